"""How a check ends, whatever the learner's code does in it. Nothing here needs a lab host."""

import threading
import time
import types
from collections.abc import Callable

import pytest

from labkit.course.framework import judge as judging
from labkit.course.framework import pace, time_limit
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.judge import judge
from labkit.course.framework.outcomes import NotAttempted, NotChecked, NotYet, Passed, Verdict
from labkit.errors import ChildDied, Unsupported


@pytest.fixture(autouse=True)
def no_lab_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limit, "on_the_lab_host", set)
    monkeypatch.setattr(pace, "run_in_child", lambda _: None)


class Call(Exercise):
    name = "call"
    title = "Return true"
    start = "Begin with `return`."
    seconds = 0.3

    def check(self, answer: Callable[[], object]) -> Verdict:
        return Passed("true", "why") if answer() else NotYet("false", "why")


def test_passed_and_not_yet() -> None:
    assert judge(Call, lambda: 1) == Passed("true", "why")
    assert judge(Call, lambda: 0) == NotYet("false", "why")


def test_a_stub_is_not_attempted_and_says_where_to_start() -> None:
    def answer() -> None: ...

    assert judge(Call, answer) == NotAttempted("`answer()` is still the empty stub. Begin with `return`.")
    assert isinstance(judge(Call, None), NotAttempted)
    assert isinstance(judge(Call, ...), NotAttempted)


def test_not_implemented_anywhere_is_not_attempted() -> None:
    def answer() -> object:
        value = len("a") * 2
        raise NotImplementedError(str(value))

    assert isinstance(judge(Call, answer), NotAttempted)


def test_the_learners_exception_is_not_yet_with_its_line_and_note() -> None:
    def answer() -> object:
        error = PermissionError(1, "Operation not permitted")
        error.add_note("You are not root here.")
        raise error

    outcome = judge(Call, answer)
    assert isinstance(outcome, NotYet)
    assert "`answer()` raised PermissionError: [Errno 1]" in outcome.seen
    assert "(`raise error`)" in outcome.seen
    assert outcome.why == "You are not root here."


def test_a_fault_of_the_check_is_said_to_be_the_courses() -> None:
    class Broken(Call):
        def check(self, answer: Callable[[], object]) -> Verdict:
            raise KeyError("nothing")

    outcome = judge(Broken, max)
    assert isinstance(outcome, NotChecked)
    assert "KeyError: 'nothing'" in outcome.text
    assert "a fault of the course" in outcome.text


def test_a_check_that_returns_nonsense_is_the_courses_fault() -> None:
    class Forgetful(Call):
        def check(self, answer: Callable[[], object]) -> Verdict:
            return None  # type: ignore[return-value]

    assert isinstance(judge(Forgetful, max), NotChecked)


def test_what_the_machine_lacks_is_nobodys_fault() -> None:
    class Lacking(Call):
        def check(self, answer: Callable[[], object]) -> Verdict:
            raise Unsupported("no busybox", "run ./lab setup")

    assert judge(Lacking, max) == NotChecked("This machine cannot run the check: no busybox: run ./lab setup")


def test_a_child_that_died_is_not_yet() -> None:
    class Died(Call):
        def check(self, answer: Callable[[], object]) -> Verdict:
            raise ChildDied("process 7 was killed by SIGKILL before answer() had returned")

    outcome = judge(Died, lambda: 1)
    assert isinstance(outcome, NotYet)
    assert "SIGKILL" in outcome.seen


def endless() -> object:
    while True:
        len("")


def endless_and_stubborn() -> object:
    while True:
        try:
            len("")
            time.sleep(0.001)
        except Exception:
            continue


@pytest.mark.parametrize("answer", [endless, endless_and_stubborn])
@pytest.mark.parametrize("in_main_thread", [True, False])
def test_an_endless_loop_ends(answer: Callable[[], object], in_main_thread: bool) -> None:
    outcomes: list[object] = []
    if in_main_thread:
        outcomes.append(judge(Call, answer))
    else:
        thread = threading.Thread(target=lambda: outcomes.append(judge(Call, answer)))
        thread.start()
        thread.join(10)
    (outcome,) = outcomes
    assert isinstance(outcome, NotYet)
    assert "had not returned after" in outcome.seen


@pytest.mark.parametrize("in_main_thread", [True, False])
def test_what_the_check_prepares_is_not_the_learners_time(in_main_thread: bool) -> None:
    class Slow(Call):
        def check(self, answer: Callable[[], object]) -> Verdict:
            time.sleep(2 * self.seconds)
            return super().check(answer)

    outcomes: list[object] = []
    thread = threading.Thread(target=lambda: outcomes.extend((judge(Slow, lambda: 1), judge(Slow, endless))))
    thread.run() if in_main_thread else thread.start()
    if not in_main_thread:
        thread.join(30)
    assert isinstance(outcomes[0], Passed)
    assert isinstance(outcomes[1], NotYet)


def test_a_check_that_does_not_come_to_the_learner_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Call):
        def check(self, answer: Callable[[], object]) -> Verdict:
            time.sleep(30)
            return super().check(answer)

    monkeypatch.setattr(time_limit, "SETUP_SECONDS", 0.1)
    outcome = judge(Slow, lambda: 1)
    assert isinstance(outcome, NotChecked)
    assert "this machine is too slow at the moment" in outcome.text


def test_a_slow_machine_has_longer_limits_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []

    class Patient(Call):
        def check(self, answer: Callable[[], object]) -> Verdict:
            limits.append(pace.scaled(2.0))
            return super().check(answer)

    monkeypatch.setattr(pace, "measure", lambda: 4.0)
    outcome = judge(Patient, endless)
    assert isinstance(outcome, NotYet)
    assert f"had not returned after {4 * Call.seconds:.3g} seconds" in outcome.seen
    assert "4.0 times the usual limit, since this machine is slow" in outcome.seen
    assert limits == [8.0]
    assert pace.scaled(2.0) == 2.0, "and only for that check"


@pytest.mark.parametrize(("took", "factor"), [(0.001, 1.0), (3 * pace.QUICK_SECONDS, 3.0), (9.0, pace.MOST)])
def test_the_machines_pace_is_the_start_of_a_child(monkeypatch: pytest.MonkeyPatch, took: float, factor: float) -> None:
    clock = [0.0]
    children = iter([9.0, took])  # the first is not what counts: it may start the lab host

    def child(_: Callable[[], object]) -> None:
        clock[0] += next(children)

    monkeypatch.setattr(pace, "run_in_child", child)
    monkeypatch.setattr(pace, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    assert pace.measure() == pytest.approx(factor)


def test_without_a_lab_host_limits_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Callable[[], object]) -> None:
        raise Unsupported("no namespaces", "")

    monkeypatch.setattr(pace, "run_in_child", refused)
    assert pace.measure() == 1.0


def test_an_interrupt_goes_through() -> None:
    def answer() -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge(Call, answer)


def test_what_is_left_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    running: set[int] = {1}
    ended: list[set[int]] = []

    def end(pids: set[int]) -> None:
        ended.append(set(pids))
        running.difference_update(pids)

    monkeypatch.setattr(time_limit, "on_the_lab_host", lambda: set(running))
    monkeypatch.setattr(judging, "_wait_for_end", end)
    judge(Call, lambda: running.add(77))
    assert ended == [{77}]
    assert running == {1}


def test_parameters_are_fresh_and_can_be_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_SEED", raising=False)
    assert len({Call().draw_name() for _ in range(20)}) > 10
    monkeypatch.setenv("LABKIT_SEED", "x")
    assert Call().draw_name() == Call().draw_name()
    assert 3 <= Call().draw_number(3, 4) <= 4
