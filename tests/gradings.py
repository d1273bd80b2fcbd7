"""Made-up results of grading, for the tests of what is made from them."""

import random
from typing import Any

from labkit.course.grading.results import CellRun, ExerciseResult, Judged, Replay, Result

PASSED = Judged("passed", "The child is `box-7f3a` in uts:[4026532201].", "Every engine does it like this.", 1.0)
NOT_YET = Judged("not yet", "The lab host is called `box-7f3a` too.", "Which of the two calls makes a new place?")
NOT_ATTEMPTED = Judged("not attempted", "", "Begin with the call that gives a process a namespace of its own.")
NOT_CHECKED = Judged("not checked", "", "this machine has no cgroup v2 controllers")
ANSWER = (
    "def isolate(hostname: str) -> None:\n    unshare(CLONE_NEWUTS)  # first the place\n    sethostname(hostname)\n"
)

LABS = {
    "05": ("A name of one's own", ("isolate", "together", "join", "rename")),
    "07": ("A root of one's own", ("enter", "escape", "pivot")),
    "09": ("Sharing fairly", ("limit", "tame")),
}
TITLES = {
    "isolate": "A hostname of its own",
    "together": "The same namespace, or only the same name?",
    "join": "Into another process's namespace",
    "rename": "A new name for a running process",
    "enter": "Into a new root",
    "escape": "Out of a chroot",
    "pivot": "A root that cannot be left",
    "limit": "Half a processor",
    "tame": "The noisy neighbour, tamed",
}
EXPECTED = "A process whose hostname is another than the lab host's."
FIRST = "Ada Alan Annie Barbara Betty Claude Dana Dennis Donald Edsger Fran Grace Hedy Ivan Jean Joan John Karen Ken"
LAST = (
    "Lovelace Turing Easley Liskov Holberton Shannon Ulery Ritchie Knuth Dijkstra Allen Hopper Lamarr Sutherland Sammet"
)


def exercise(name: str = "isolate", judged: Judged = PASSED, **more: Any) -> ExerciseResult:
    """One exercise of one point, passed if nothing else is said."""
    values = {"title": "A hostname of its own", "points": 1.0, "expected": EXPECTED, "answer": ANSWER, **more}
    return ExerciseResult(name, judged=judged, **values)


def result(learner: str = "ada", lab: str = "05", *exercises: ExerciseResult, **more: Any) -> Result:
    """One submission, of one passed exercise if nothing else is said."""
    values = {"title": LABS.get(lab, ("",))[0], "file": f"handed-in/{learner}/{lab}.ipynb", "seconds": 2.5, **more}
    return Result(learner, lab, exercises=exercises or (exercise(),), **values)


def a_class(size: int, seed: int = 7) -> list[Result]:
    """A class of which most do well; one handed in something else, one nothing in the last lab."""
    draw = random.Random(seed)
    names = sorted({f"{first} {last}" for first in FIRST.split() for last in LAST.split()})
    made = []
    for number, learner in enumerate(draw.sample(names, size)):
        for lab, (title, exercises) in LABS.items():
            if number == 3 and lab == "07":
                refused = "The file is no notebook: it is not JSON. Save it in JupyterLab and hand it in again."
                made.append(Result(learner, lab, title, f"handed-in/{learner}/07_rootfs.ipynb", refused=refused))
            elif number != 5 or lab != "09":
                made.append(_of_one(draw, learner, lab, exercises))
    return made


def _of_one(draw: random.Random, learner: str, lab: str, exercises: tuple[str, ...]) -> Result:
    graded = []
    for name in exercises:
        judged = draw.choices((PASSED, NOT_YET, NOT_ATTEMPTED), (8, 2, 1))[0]
        if judged is NOT_YET and draw.random() < 0.5:
            judged = Judged("not yet", NOT_YET.seen, NOT_YET.why, 0.5)
        if name == "tame" and draw.random() < 0.1:
            judged = NOT_CHECKED
        hidden = draw.choice((PASSED, PASSED, NOT_YET)) if judged is PASSED else NOT_YET
        answer = "" if judged is NOT_ATTEMPTED else ANSWER.replace("isolate", name)
        points = 2.0 if name in ("pivot", "tame") else 1.0
        checks = (hidden,) if name == "join" and judged is not NOT_ATTEMPTED else ()
        graded.append(exercise(name, judged, title=TITLES[name], points=points, hidden=checks, answer=answer))
    failing = draw.random() < 0.2
    output = "Traceback (most recent call last):\n  ...\nPermissionError: [Errno 1] Operation not permitted"
    cells = (CellRun(3, True, "lab = Lab('05')", ""), CellRun(5, not failing, ANSWER, output if failing else "ok"))
    notes = ("The exercise cell `join` was there twice; the first one that is not the stub was graded.",)
    return result(
        learner,
        lab,
        *graded,
        title=LABS[lab][0],
        file=f"handed-in/{learner}/{lab}_lab.ipynb",
        replay=Replay(cells),
        notes=notes if failing else (),
        digest=f"{draw.randrange(16**12):012x}",
    )
