"""Twelve steps of a container: in which orders they can stand, and what happens in the others; for lab 12.

A rule says that one step must come before another, and what happens when they change places. tests/kernel tries every
rule in the kernel.
"""

from dataclasses import replace
from typing import Any, NamedTuple

from labkit.course.framework.outcomes import NotAttempted, NotYet, Verdict

STEP_NAMES = (
    "close",
    "filter",
    "fork",
    "furnish",
    "group",
    "hostname",
    "namespaces",
    "pivot",
    "powers",
    "private",
    "root",
    "workdir",
)

#: What may happen when two steps change places, as lab 12 names it.
CONSEQUENCES = {
    "door": "the program may begin its life in a folder of the host",
    "leak": "a mount of the box appears among the host's",
    "lost": "a later step does not find what it needs: a folder, a device, a descriptor",
    "name": "the host's own name changes",
    "not 1": "the box's program is not PID 1",
    "processes": "the box's /proc lists the host's processes",
    "refused": "the kernel refuses a later step for lack of privilege",
    "tree": "the box sees where in the host's tree of groups its own lies",
}

#: What to think about where that would happen. A message names no step: who were told the two that stand wrong would
#: only have to exchange them, again and again, until the order is right.
_QUESTIONS = {
    "door": "What must be shut before a path that somebody else has chosen is followed? (CVE-2024-21626)",
    "leak": "Whose list of mounts does a mount change? Lab 06: from which step on is it the box's own, and no copy "
    "that passes everything on?",
    "lost": "Go through your order and ask of each step what it takes: a folder, the host's devices, a path, a "
    "descriptor. Is it there already, and is it there still?",
    "name": "`sethostname` changes whichever UTS namespace the caller is in. Which step gives it one of its own?",
    "not 1": "Lab 06: who becomes process number 1 of a new PID namespace?",
    "processes": "A procfs shows the PID namespace of the process that mounts it. Lab 06: which process is that to be?",
    "refused": "What is given up is given up for good, and what a filter refuses stays refused. Who is to be done "
    "building by then?",
    "tree": "The root of a cgroup namespace is the group in which its maker was. Which one shall that be?",
}


class Rule(NamedTuple):
    """`first` must come before `then`, or else: the consequence, and how it comes about."""

    first: str
    then: str
    consequence: str
    seen: str


RULES = (
    Rule(
        "namespaces",
        "hostname",
        "name",
        "The name would be set in the host's own UTS namespace: every process there has the box's name then.",
    ),
    Rule(
        "namespaces",
        "private",
        "leak",
        "`private` would make the host's own mounts private, and the box's new mount namespace copies the rest: the "
        "host's tree has changed.",
    ),
    Rule(
        "namespaces",
        "fork",
        "not 1",
        "The program would not be PID 1: `unshare(CLONE_NEWPID)` leaves its caller where it is, and only children that "
        "are made *afterwards* are in the new PID namespace.",
    ),
    Rule(
        "group",
        "namespaces",
        "tree",
        "The root of a cgroup namespace is the group in which its maker was. Made before the process has joined the "
        "box's group, it begins higher up: the box sees where in the host's tree it lies, and its siblings.",
    ),
    Rule(
        "namespaces",
        "root",
        "leak",
        "The root would be mounted in the host's own mount namespace, for every process there.",
    ),
    Rule(
        "private",
        "root",
        "leak",
        "The new mount namespace is a copy whose mounts are still shared with the host's: what `root` mounts appears "
        "on the host, and stays there.",
    ),
    Rule(
        "root",
        "furnish",
        "lost",
        "`furnish` mounts on `/proc` and `/dev` of the new root, and there is no new root yet: no such folder.",
    ),
    Rule(
        "fork",
        "furnish",
        "processes",
        "A procfs shows the PID namespace of the process that mounts it. Before the fork that is the host's: the box's "
        "`/proc` would list all of the host's processes.",
    ),
    Rule(
        "root",
        "pivot",
        "lost",
        "`pivot` moves into the new root, and there is none yet: no such folder.",
    ),
    Rule(
        "furnish",
        "pivot",
        "lost",
        "After `pivot` the host's `/dev` is out of reach, so its devices cannot be bound into the box any more; and "
        "the paths that `furnish` uses lead nowhere.",
    ),
    Rule(
        "pivot",
        "workdir",
        "lost",
        "The working directory would be looked up among the host's files, and `pivot`, which ends with "
        '`os.chdir("/")`, would lose it.',
    ),
    Rule(
        "namespaces",
        "close",
        "lost",
        "The box may be told to join a network by a *descriptor*. `close` closes it, and `setns` finds nothing there.",
    ),
    Rule(
        "close",
        "workdir",
        "door",
        "Closing descriptors after the `chdir` lets the working directory be `/proc/self/fd/3`: a folder of the host, "
        "if somebody has left one open. The descriptor is closed then, and the program stands outside.",
    ),
    *(
        Rule(
            step,
            "powers",
            "refused",
            f"`{step}` takes CAP_SYS_ADMIN, and `powers` has given that up: operation not permitted.",
        )
        for step in ("namespaces", "hostname", "private", "root", "furnish", "pivot")
    ),
    *(
        Rule(
            step,
            "filter",
            "refused",
            f"`{step}` makes a system call that the filter refuses: operation not permitted.",
        )
        for step in ("namespaces", "hostname", "private", "root", "furnish", "pivot")
    ),
)

#: The pair that the lab gives away as an example.
GIVEN_AWAY = ("namespaces", "hostname")


def wrong_order(order: Any) -> Verdict | None:
    """What is wrong with the list `order`; None: nothing that the rules know."""
    if not isinstance(order, list | tuple) or not all(isinstance(one, str) for one in order):
        return NotYet(
            f"ORDER is {order!r:.60}.", 'A list of the twelve names is asked for: `["group", "namespaces", ...]`.'
        )
    if not order:
        return NotAttempted("ORDER is empty. Begin with the last: which step makes all others impossible?")
    if unknown := [one for one in order if one not in STEP_NAMES]:
        return NotYet(f"There is no step called `{unknown[0]}`.", f"The twelve are: {', '.join(STEP_NAMES)}.")
    if twice := sorted({one for one in order if list(order).count(one) > 1}):
        return NotYet(f"`{twice[0]}` is in ORDER twice.", "Each of the twelve is done once.")
    if missing := [one for one in STEP_NAMES if one not in order]:
        return NotYet(
            f"ORDER has {len(order)} steps; {', '.join(f'`{one}`' for one in missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing.",
            "All twelve are needed.",
        )
    place = {name: index for index, name in enumerate(order)}
    for rule in RULES:
        if place[rule.first] > place[rule.then]:
            return NotYet(
                f"A box that is built in your order would not be one: {CONSEQUENCES[rule.consequence]}.",
                _QUESTIONS[rule.consequence],
            )
    return None


def wrong_reasons(why: Any) -> Verdict | None:
    """What is wrong with the reasons `why`, a dict from (earlier, later) to a consequence; None: nothing.

    The right order, which comes before this, is half of the exercise; each of three choices is a third of the rest.
    """
    if not isinstance(why, dict):
        return NotYet(
            "Your order is a right one. WHY is not a dict yet.",
            'It goes from pairs to consequences: `{("namespaces", "hostname"): "name"}` and so on.',
            1 / 2,
        )
    by_pair = {(rule.first, rule.then): rule for rule in RULES}
    defended = {pair: rule for pair, rule in by_pair.items() if pair != GIVEN_AWAY}
    good = sum(pair in why and why[pair] == rule.consequence for pair, rule in defended.items())
    mistake = _no_defence(why, by_pair) or _too_few(why) or _wrong_consequence(why, by_pair)
    return mistake and replace(mistake, share=1 / 2 + min(good, 2) / 6)


def how(pair: tuple[str, str]) -> str:
    """How it comes about that what the pair's rule says happens, where the two change places."""
    return next(rule.seen for rule in RULES if (rule.first, rule.then) == pair)


def _too_few(why: dict[Any, Any]) -> NotYet | None:
    count = len(set(why) - {GIVEN_AWAY})
    if count >= 3:
        return None
    return NotYet(
        f"Your order is a right one. WHY has {count} {'pair' if count == 1 else 'pairs'} besides the one that was "
        "given away, and three are asked for.",
        "Take two steps whose order matters. What would happen if they changed places?",
    )


def _wrong_consequence(why: dict[Any, Any], by_pair: dict[tuple[str, str], Rule]) -> NotYet | None:
    """All are looked at together: whoever is told which one is wrong need only try the eight consequences there."""
    if all(by_pair[pair].consequence == consequence for pair, consequence in why.items()):
        return None
    return NotYet(
        "Your order is a right one. Not everything that WHY says would happen does: at least one of the pairs has "
        "another consequence.",
        "Think each exchange through to its end. What does the earlier step make, take away or shut? Does the later "
        "one fail without it, or does it succeed, and with whose mounts, processes or folders?",
    )


def _no_defence(why: dict[Any, Any], by_pair: dict[tuple[str, str], Rule]) -> NotYet | None:
    for pair, consequence in why.items():
        if not isinstance(pair, tuple) or len(pair) != 2 or not all(one in STEP_NAMES for one in pair):
            return NotYet(f"WHY has {pair!r:.60}, which is no pair of steps.", "A pair is two of the twelve names.")
        if not isinstance(consequence, str) or consequence not in CONSEQUENCES:
            return NotYet(
                f"For `{pair[0]}` before `{pair[1]}` you say {consequence!r:.40}, which is none of the consequences.",
                f"They are: {', '.join(CONSEQUENCES)}.",
            )
        if pair not in by_pair:
            return _not_needed(pair, by_pair)
    return None


def _not_needed(pair: tuple[str, str], by_pair: dict[tuple[str, str], Rule]) -> NotYet:
    if pair[::-1] in by_pair:
        return NotYet(
            f"WHY says that `{pair[0]}` comes before `{pair[1]}`. It is the other way round, also in your ORDER.",
            "A pair has the earlier step first.",
        )
    return NotYet(
        f"`{pair[0]}` and `{pair[1]}` may change places directly: nothing happens to the box by that alone.",
        "Choose a pair where one needs what the other does, or destroys it.",
    )
