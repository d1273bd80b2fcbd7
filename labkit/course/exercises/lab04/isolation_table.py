"""What a process, a container and a guest share with the host: a learner's table, compared with what is found here.

In a notebook nothing knows the right answer: `labkit.course.experiments.sharing` asks a live process, a live container
and a live guest. A judge, who is in a container and boots no guest, goes by `KNOWN`, which tests compare with what is
found.
"""

from collections.abc import Mapping
from typing import Any

from labkit.course.experiments.notebook_vm import guest
from labkit.course.experiments.sharing import FACTS, PLACES, Fact, Finding, look
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotAttempted, NotYet, Passed, Verdict
from labkit.course.framework.stub import is_placeholder

Table = Mapping[str, Mapping[str, Finding]]  # fact, place, finding

#: For each fact, what to think about where an entry of it is wrong.
_THINK = {
    "kernel": "Who answers when a program there makes a system call: is that kernel's code loaded once, or twice?",
    "uptime": "The clock counts since a kernel was started. Was one started for this place?",
    "memory": "`/proc/meminfo` says what the kernel has to give. Whose kernel, and what was that kernel given?",
    "cpu": "Who says what processor it is: the real one, or the program that stands in its place? `guest.kvm` tells.",
    "users": "A user is a number that a kernel compares. Did anybody make a user namespace, or another kernel?",
    "hostname": "Lab 05 is about this one: a kernel may keep several hostnames. Was one made for this place?",
    "processes": "A process can only be seen where the kernel lists it. Does this place have a list of its own?",
    "seen": "Look from outside: whose table does the kernel enter a new process of this place in?",
    "ports": "127.0.0.1 belongs to a loopback interface. Is there one of its own for this place?",
    "files": "A path begins at a root. Does this place have the host's root, or another?",
}


#: Which places share what with the host. Of the guest's processor nobody can know: it is the machine's own under KVM.
KNOWN: dict[str, tuple[str, ...]] = {
    "kernel": ("process", "container"),
    "uptime": ("process", "container"),
    "memory": ("process", "container"),
    "cpu": ("process", "container"),
    "users": ("process", "container"),
    "hostname": ("process",),
    "processes": ("process",),
    "seen": ("process", "container"),
    "ports": ("process",),
    "files": ("process",),
}
_DEPENDS = ("cpu", "guest")


class Shares(Exercise):
    """Ten facts, three places. A lab's own class gives it a name."""

    title = "Who shares what with the host?"
    seconds = 300.0  # a guest is booted if none runs
    start = "Begin with one line, such as `hostname`: in which of the three places is it the host's own?"
    hints = (
        (
            "Ask three questions of each fact. For the process: has it anything of its own but its memory? For the "
            "container: is this made by the kernel, which it shares, or is it one of the things a kernel can keep "
            "twice? For the guest: is there anything of the host's left, when it has a kernel of its own?"
        ),
        (
            'Look it up. `guest.run("cat /proc/meminfo").output` asks the guest; '
            '`container.run(["cat", "/proc/meminfo"])` a container; `run_in_child(os.system, "cat /proc/meminfo")` a '
            "process."
        ),
        (
            "A process shares all ten. A guest shares none of what a kernel keeps; what is left to look at is the "
            "processor, and `guest.kvm` says who plays it. A container has a name, a list of processes, a network and "
            "a tree of files of its own."
        ),
    )
    because = (
        "What the kernel can keep several times over, a container has of its own. What there is one of for each "
        "kernel, it shares. A guest brings its own kernel, and so it shares neither."
    )

    def check(self, answers: Any) -> Verdict:
        """Compare the table with what is found in each place."""
        chosen = read(answers)
        if not isinstance(chosen, dict):
            return chosen
        if self.in_room:
            return by_heart(chosen)
        return compared(chosen, look(guest(), lambda: self.draw_number(10**6, 10**8)))


def read(answers: Any) -> dict[str, set[str]] | Verdict:
    """The places that the learner's table names for each fact; or what is wrong with the table itself."""
    names = [fact.name for fact in FACTS]
    if not isinstance(answers, dict):
        return NotYet(
            f"The table is {type(answers).__name__}, not a dictionary.",
            "It has a line for each fact: name, and places.",
        )
    if all(is_placeholder(answers.get(name)) for name in names):
        return NotAttempted(f"The table is still empty. {Shares.start}")
    for name in answers:
        if name not in names:
            return NotYet(
                f"The table has a line `{name}`, which is none of the ten facts.", f"They are: {_list(names)}."
            )
    chosen = {}
    for name in names:
        given = answers.get(name)
        if is_placeholder(given):
            return NotYet(f"There is no answer for `{name}` yet.", "Where no place shares it, write `set()`.")
        if isinstance(given, str):
            given = {given}
        if not isinstance(given, set | frozenset | list | tuple | dict) or not all(
            isinstance(one, str) for one in given
        ):
            return NotYet(f"The answer for `{name}` is `{given!r}`.", 'It is a set of places, such as `{"process"}`.')
        if unknown := sorted(set(given) - set(PLACES)):
            return NotYet(f"The answer for `{name}` names `{unknown[0]}`.", f"The places are: {_list(list(PLACES))}.")
        chosen[name] = set(given)
    return chosen


def compared(chosen: Mapping[str, set[str]], found: Table) -> Verdict:
    """Passed where every entry is as it was found; else what is wrong with the first that is not."""
    wrong = [
        (fact, place)
        for fact in FACTS
        for place in PLACES
        if (place in chosen[fact.name]) != found[fact.name][place].shared
    ]
    if wrong:
        return _one_wrong(*wrong[0], chosen, found, others=len(wrong) - 1, share=_share(wrong))
    return Passed(
        "All ten lines are as they were just found, in a live process, a live container and a live guest.", _WHY
    )


def by_heart(chosen: Mapping[str, set[str]]) -> Verdict:
    """The same by `KNOWN`, where there is no machine to ask."""
    wrong = [
        (fact, place)
        for fact in FACTS
        for place in PLACES
        if (fact.name, place) != _DEPENDS and (place in chosen[fact.name]) != (place in KNOWN[fact.name])
    ]
    if not wrong:
        return Passed("All ten lines are as they are found in a live process, a live container and a live guest.", _WHY)
    fact, place = wrong[0]
    claim = "shares" if place in chosen[fact.name] else "does not share"
    return NotYet(
        f"`{fact.name}`, {fact.what}: your table says that the {place} {claim} it.{_others(len(wrong) - 1)}",
        _THINK[fact.name],
        share=_share(wrong),
    )


_WHY = (
    "A container is a process with some things of its own. A guest is a computer with everything of its own: that is "
    "what its start, its memory and its wall are for."
)


def _share(wrong: list[tuple[Fact, str]]) -> float:
    """How many of the ten lines are right."""
    return 1 - len({fact.name for fact, _ in wrong}) / len(FACTS)


def _one_wrong(
    fact: Fact, place: str, chosen: Mapping[str, set[str]], found: Table, *, others: int, share: float
) -> Verdict:
    finding = found[fact.name][place]
    claim = "shares" if place in chosen[fact.name] else "does not share"
    return NotYet(
        f"`{fact.name}`, {fact.what}: your table says that the {place} {claim} it. Looked at was {fact.where}. "
        f"The host: `{finding.host}`. The {place}: `{finding.there}`.{_others(others)}",
        _THINK[fact.name],
        share=share,
    )


def _others(count: int) -> str:
    if count == 1:
        return " (Another entry differs from what was found, too.)"
    return f" ({count} other entries differ from what was found, too.)" if count else ""


def _list(words: list[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
