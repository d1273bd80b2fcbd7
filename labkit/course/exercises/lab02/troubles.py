"""Eight troubles of servers that share a machine, and what would help against each; for lab 02.

What helps: something of one's own ("own"), a limited share ("limit"), or no isolation at all ("no").
"""

from typing import Any, NamedTuple

from labkit.course.framework.outcomes import NotAttempted, NotYet, Passed, Verdict

ANSWERS = ("own", "limit", "no")


#: What helps against each.
TROUBLES: dict[str, tuple[str, ...]] = {
    "port": ("own",),
    "library": ("own",),
    "report": ("limit",),
    "leak": ("limit",),
    "upload": ("own", "limit"),
    "partner": ("no",),
    "bug": ("no",),
    "power": ("no",),
}


class Misunderstanding(NamedTuple):
    """One kind of mistake: `said` where one of `helps` would help; and what to think about."""

    said: tuple[str, ...]
    helps: tuple[str, ...]
    seen: str
    why: str


#: In this order the first that is met is told. Which trouble it was is not: whoever is told that need not think, but
#: only try what is left, one trouble after the other.
MISUNDERSTANDINGS = (
    Misunderstanding(
        ("own", "limit"),
        ("no",),
        "You expect a wall to help where none does.",
        "Imagine each server on a machine of its own, with nobody beside it. Where the same would have happened there, "
        "or where it needs just what would then be on the other side, dividing things up mends nothing.",
    ),
    Misunderstanding(
        ("no",),
        ("own", "limit"),
        'You say `"no"` where something could have been done.',
        "Imagine each server on a machine of its own, with nobody beside it. Where it would have gone on there, "
        "something was shared that hurt it. What did it share, and what could have been kept from the others?",
    ),
    Misunderstanding(
        ("limit",),
        ("own",),
        'You say `"limit"` where nobody takes too much.',
        "A limit helps against somebody who takes more than a fair part of what can be measured out. Where several "
        "want one and the same thing, a smaller share of it would be none. What if there were two?",
    ),
    Misunderstanding(
        ("own",),
        ("limit",),
        'You say `"own"` for what a machine has one of.',
        "One for each program would be dear, and idle most of the time, and so the kernel hands out parts of the one "
        "there is. What could it have refused to whoever took too much?",
    ),
)


def sorted_well(given: Any) -> Verdict:
    """The outcome of the dict `given`, from each trouble to what helps."""
    if not isinstance(given, dict):
        return NotYet(f"TROUBLES is {given!r:.60}.", 'A dict is asked for: `{"port": "own", ...}`.')
    if all(answer is None or answer is ... for answer in given.values()):
        return NotAttempted(f'Nothing is sorted yet. Put one of {_listed(ANSWERS)} beside each, such as `"port": ...`.')
    if unknown := [name for name in given if name not in TROUBLES]:
        return NotYet(f"There is no trouble called {unknown[0]!r:.40}.", f"The eight are: {_listed(TROUBLES)}.")
    for name, answer in given.items():
        if answer is not None and answer is not ... and answer not in ANSWERS:
            return NotYet(f"For `{name}` you say {answer!r:.40}.", f"One of these is asked for: {_listed(ANSWERS)}.")
    wrong = [name for name, helps in TROUBLES.items() if given.get(name) not in helps]
    share = 1 - len(wrong) / len(TROUBLES)
    if missing := [name for name in TROUBLES if given.get(name) in (None, ...)]:
        return NotYet(
            f"Still to be sorted: {_listed(missing)}.", "All eight, please: they are looked at together.", share
        )
    for one in MISUNDERSTANDINGS:
        if any(given[name] in one.said and TROUBLES[name][0] in one.helps for name in wrong):
            return NotYet(one.seen, one.why, share)
    return Passed(
        "All eight are sorted: what can be each one's own, what can only be shared out, and what no isolation mends.",
        "The first kind is what namespaces are for (labs 05 to 08 and 10), the second what control groups are for "
        "(lab 09).",
    )


def _listed(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)
