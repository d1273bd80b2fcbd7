"""The judge: in a room, checks one answer to one exercise, and writes the verdict.

Standard input has the task, one JSON text; standard output gets the verdict, another. Two users share the room:

    root      this process, without CAP_SYS_ADMIN. It never executes what the learner wrote, nor unpickles freely what
              comes from where that was executed. It opens files as LEARNER (setfsuid(2)), so that what it prepares for
              the learner's code is the learner's, and a link planted for it leads to nothing that is not.
    LEARNER   root of the lab host, which is a user namespace of its own. All code of the learner's runs there. It may
              kill the lab host, and then has no answer; it cannot signal this process, or look into it or the zygote.

What a check needs is imported into the zygote before any code of the learner's runs: the learner may mount something
else over it later.
"""

import faulthandler
import json
import os
import sys
import types
from typing import Any

import cloudpickle

from labkit import host, idmap, syscalls, temporary
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.judge import judge
from labkit.course.framework.outcomes import NotAttempted, NotChecked, NotYet, Outcome, Passed
from labkit.course.grading import judge_cgroups, preload
from labkit.course.grading.function_proxy import Written, answers
from labkit.course.grading.sandbox_ids import LEARNER
from labkit.course.lab import exercises_of, find_exercises
from labkit.process import child

_shown: child.Child | None = None
#: A check may take so much longer than in a notebook: here others are being graded beside it.
PATIENCE = 2
TEXT_MAX = 4000  # characters of what was seen, and of why
_TASK_BYTES_MAX = 4 << 20


def main() -> None:
    """Read the task, judge, write the verdict."""
    task = json.loads(sys.stdin.buffer.read(_TASK_BYTES_MAX))
    verdict_fd = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):  # its standard error is for the instructor, should it end without a verdict
        os.dup2(nowhere, number)
    faulthandler.enable()
    judge_cgroups.divide()
    Exercise.in_room = True
    temporary.remove = False  # what the learner's code has put there may be anybody's, and goes with the room
    Exercise.seed = task["seed"]  # and not in the environment, which children inherit
    said = [_said(_judged(kind, task) if isinstance(kind, type) else kind) for kind in _exercises(task)]
    os.write(verdict_fd, json.dumps(said).encode())
    os._exit(0)  # the room's end is the end of all that is in it


def _exercises(task: dict[str, Any]) -> list[type[Exercise] | NotChecked]:
    """The exercise of the course, and the instructor's that go by the same name, or why there are none of these."""
    found: list[type[Exercise] | NotChecked] = []
    found += [kind for kind in exercises_of(task["lab"]) if kind.name == task["name"]]
    for text in task["hidden"]:
        module = types.ModuleType("labkit_hidden")
        sys.modules[module.__name__] = module
        cloudpickle.register_pickle_by_value(module)
        try:
            exec(compile(text, "<hidden checks>", "exec"), module.__dict__)
        except Exception as error:
            found.append(NotChecked(f"The hidden checks cannot be used: {type(error).__name__}: {error}"))
        for kind in find_exercises(module):
            kind.is_hidden = True
            found += [kind] if kind.name == task["name"] else []
    return found


def _judged(kind: type[Exercise], task: dict[str, Any]) -> Outcome:
    written = Written(task["name"], tuple(task["before"]), task["answer"], tuple(task["arguments"]))
    host.reset()  # each check has a lab host in which nothing of the learner's has run yet
    _become_judge()
    try:
        given = answers(written)
    except Exception as error:
        return _not_executed(error)
    host.reset()  # what the learner's text has done to it when it was first executed ends here
    _become_judge()
    kind.seconds *= PATIENCE
    return judge(kind, *given)


def _become_judge() -> None:
    syscalls.setfsgid(0)
    syscalls.setfsuid(0)
    all_of_them = idmap.IdMap([(0, LEARNER, _ids() - LEARNER)])
    host.map_ids(all_of_them, all_of_them)
    with judge_cgroups.at_the_start():
        preload.into_zygote()
    # The zygote is closed to its own user, and so nothing for the checks' helpers to look at; this shows the same.
    global _shown
    _shown = child.spawn(os.getpid)
    host.current().pid = _shown.pid
    child.untrusted = True
    syscalls.setfsgid(LEARNER)
    syscalls.setfsuid(LEARNER)


def _ids() -> int:
    return min(sum(count for _, _, count in map_) for map_ in idmap.of("self"))


def _not_executed(error: Exception) -> NotYet:
    lines = [line for file, line, _ in getattr(error, "child_frames", []) if file.startswith("<")]
    where = f", at line {lines[-1]} of the cell" if lines else ""
    if isinstance(error, SyntaxError):
        return NotYet(f"The cell is not Python: {error.msg}, in line {error.lineno}.", "Does it run in the notebook?")
    text = (str(error).splitlines() or [""])[0]
    return NotYet(
        f"The cell could not be run: {type(error).__name__}: {text}{where}.",
        "It runs below the lab's own cells, each exercise before it solved as the course solves it. What is defined in "
        "another cell of your own is not there: what the answer needs belongs into its cell.",
    )


def _said(outcome: Outcome) -> dict[str, Any]:
    match outcome:
        case Passed(seen, why):
            share = 1.0
        case NotYet(seen, why, share):
            share = min(max(float(share), 0.0), 0.99)
        case NotAttempted(text) | NotChecked(text):
            seen, why, share = text, "", 0.0
    return {"outcome": outcome.word, "seen": seen[:TEXT_MAX], "why": why[:TEXT_MAX], "share": share}


if __name__ == "__main__":
    main()
