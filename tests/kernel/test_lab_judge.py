"""The judge with a real child: whose fault an exception there is."""

from collections.abc import Callable
from typing import Any

from labkit import syscalls
from labkit.constants import CLONE_NEWNS
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.judge import judge
from labkit.course.framework.outcomes import NotChecked, NotYet, Passed, Verdict
from labkit.process import run_in_child


class InChild(Exercise):
    """Runs the answer in a child."""

    name, title, start = "answer", "An answer", ""

    def check(self, answer: Callable[[], object]) -> Verdict:
        run_in_child(answer)
        return Passed("It ran.", "It may.")


def test_an_exception_of_the_learners_function_names_their_line_and_the_cause() -> None:
    def answer() -> None:
        syscalls.unshare(CLONE_NEWNS)
        syscalls.umount2("/usr/bin")

    outcome = judge(InChild, answer)
    assert isinstance(outcome, NotYet)
    assert '(`syscalls.umount2("/usr/bin")`)' in outcome.seen
    assert "is not a mount point here" in outcome.why


def test_an_exception_of_the_checks_own_child_is_the_courses_fault() -> None:
    class Broken(InChild):
        def check(self, answer: Callable[[], object]) -> Verdict:
            run_in_child(divmod, 1, 0)
            return Passed("", "")

    cell: dict[str, Any] = {}
    exec(compile("def answer():\n    return 1\n", "the learner's cell", "exec"), cell)
    assert isinstance(judge(Broken, cell["answer"]), NotChecked)
