"""Eight troubles of servers that share a machine, and what would help against each; for lab 02.

What helps: something of one's own ("own"), a limited share ("limit"), or no isolation at all ("no").
"""

from typing import Any, NamedTuple

from labkit.course.framework.outcomes import NotAttempted, NotYet, Passed, Verdict

ANSWERS = ("own", "limit", "no")


class Trouble(NamedTuple):
    """What helps, and what to think about for each answer that does not."""

    helps: tuple[str, ...]
    reasons: dict[str, str]


TROUBLES: dict[str, Trouble] = {
    "port": Trouble(
        ("own",),
        {
            "limit": "Nobody takes too much here: each wants one single port. A smaller share of it would be none.",
            "no": "Either server alone would have started. It is only because of the other one that this one does not.",
        },
    ),
    "library": Trouble(
        ("own",),
        {
            "limit": "Both programs take one file, and neither too much of it. What if there were two such files?",
            "no": "The old program ran well for years, and would still, had nobody changed a file that it reads.",
        },
    ),
    "report": Trouble(
        ("limit",),
        {
            "own": "A processor for each program would be dear, and idle most of the time. The report may use the one "
            "there is, as long as it does not use all of it.",
            "no": "The shop was quick enough before the report began. What does the report take from it?",
        },
    ),
    "leak": Trouble(
        ("limit",),
        {
            "own": "All programs live in the machine's one memory; none has a memory of its own. What could the kernel "
            "have refused to the one that grew, before it came to killing another?",
            "no": "The database did nothing wrong: it died for what another program took. Is there nothing that could "
            "have been kept from that other one?",
        },
    ),
    "upload": Trouble(
        ("own", "limit"),
        {
            "no": "The database would have gone on writing, had the uploads not been in the same file system. Think of "
            "the exercise before this one.",
        },
    ),
    "partner": Trouble(
        ("no",),
        {
            "own": "The application *needs* the database: it asks it for every row. Would a database behind a wall "
            "answer, once it has ended?",
            "limit": "Nobody takes too much of anything: one has ended, and the other cannot do without it.",
        },
    ),
    "bug": Trouble(
        ("no",),
        {
            "own": "It would divide by zero on a machine of its own too.",
            "limit": "The program takes nothing from others. Who is hurt by its fault, and by whom?",
        },
    ),
    "power": Trouble(
        ("no",),
        {
            "own": "Whatever each server has of its own, it is still on this machine. What would it take to go on?",
            "limit": "No share of a machine without power is worth anything.",
        },
    ),
}


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
    right = [name for name, trouble in TROUBLES.items() if given.get(name) in trouble.helps]
    share = len(right) / len(TROUBLES)
    for name, trouble in TROUBLES.items():
        answer = given.get(name)
        if answer is not None and answer is not ... and name not in right:
            return NotYet(
                f"{len(right)} of 8 are sorted as we would. `{name}`: you say `{answer}`.",
                trouble.reasons[answer],
                share,
            )
    if missing := [name for name in TROUBLES if name not in right]:
        return NotYet(
            f"What you have sorted is right. Still to be sorted: {_listed(missing)}.",
            "All eight, please.",
            share,
        )
    return Passed(
        "All eight are sorted: what can be each one's own, what can only be shared out, and what no isolation mends.",
        "The first kind is what namespaces are for (labs 05 to 08 and 10), the second what control groups are for "
        "(lab 09).",
    )


def _listed(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)
