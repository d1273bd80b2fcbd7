"""What a process, a container and a guest share with the host: a learner's table, compared with what is found here.

In a notebook nothing knows the right answer: `labkit.course.experiments.sharing` asks a live process, a live container
and a live guest. A judge, who is in a container and boots no guest, goes by `KNOWN`, which tests compare with what is
found.
"""

from collections.abc import Mapping
from typing import Any

from labkit.course.experiments.notebook_vm import guest
from labkit.course.experiments.sharing import FACTS, PLACES, Finding, look
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotAttempted, NotYet, Passed, Verdict
from labkit.course.framework.stub import is_placeholder

Table = Mapping[str, Mapping[str, Finding]]  # fact, place, finding

#: By place and by what the table claims of it: what to think about where an entry is other than it was found. The
#: first that is met is told, and not which entry it was: of one that is known to be wrong, the other answer is right.
_THINK = {
    ("process", False): (
        "The process has more in common with the host than your table says.",
        (
            "A new process is entered in the same kernel's tables as any other. Which of the ten did anybody make anew "
            "for it? `run_in_child` lets you ask from within one."
        ),
    ),
    ("guest", True): (
        "The guest has less in common with the host than your table says.",
        (
            "Whatever a kernel keeps is kept by the guest's own. Ask it: `guest.run(...)`, beside the same question on "
            "the host."
        ),
    ),
    ("guest", False): (
        "Something that a kernel does not make but finds is the host's in the guest, too.",
        "Which of the ten is not the work of a kernel at all? `guest.kvm` says who plays it.",
    ),
    ("container", True): (
        "The container has more of its own than your table says.",
        (
            "Some things a kernel can keep several times over, and has one made for each container: those are what it "
            "does not share. Lab 05 is about one of them. `container.run(...)` asks within one."
        ),
    ),
    ("container", False): (
        "The container has more in common with the host than your table says.",
        (
            "It has no kernel of its own. What there is one of for each kernel, and what nobody has made a second one "
            "of, it shares. `container.run(...)` asks within one."
        ),
    ),
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
    """Passed where every entry is as it was found; else the first principle that was misunderstood."""
    wrong = [
        (fact.name, place)
        for fact in FACTS
        for place in PLACES
        if (place in chosen[fact.name]) != found[fact.name][place].shared
    ]
    return _misunderstood(chosen, wrong) or Passed(
        "All ten lines are as they were just found, in a live process, a live container and a live guest.", _WHY
    )


def by_heart(chosen: Mapping[str, set[str]]) -> Verdict:
    """The same by `KNOWN`, where there is no machine to ask."""
    wrong = [
        (fact.name, place)
        for fact in FACTS
        for place in PLACES
        if (fact.name, place) != _DEPENDS and (place in chosen[fact.name]) != (place in KNOWN[fact.name])
    ]
    return _misunderstood(chosen, wrong) or Passed(
        "All ten lines are as they are found in a live process, a live container and a live guest.", _WHY
    )


def _misunderstood(chosen: Mapping[str, set[str]], wrong: list[tuple[str, str]]) -> NotYet | None:
    """The first principle that an entry is against; the share is how many of the ten lines are right."""
    claims = {(place, place in chosen[name]) for name, place in wrong}
    share = 1 - len({name for name, _ in wrong}) / len(FACTS)
    return next((NotYet(*_THINK[claim], share) for claim in _THINK if claim in claims), None)


_WHY = (
    "A container is a process with some things of its own. A guest is a computer with everything of its own: that is "
    "what its start, its memory and its wall are for."
)


def _list(words: list[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
