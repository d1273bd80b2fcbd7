"""A time limit on a learner's function: it begins when the function does, not when the check begins to prepare.

In the main thread an alarm ends it: it also interrupts a wait for a child, and `run_in_child` and `spawn` kill the
child then. In another thread (a button's callback may run in one) signals are not available: there the children that
have been started are killed, and the thread is interrupted at its next bytecode.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import CodeType, FrameType, FunctionType
from typing import Any

from labkit import host, procfs
from labkit.errors import LabkitError
from labkit.process import child

SETUP_SECONDS = 60.0  #: for what a check prepares, besides the limit itself


class TimeUp(BaseException):
    """Time is up. Not an Exception, so that no `except Exception` on the way keeps it."""


class Limit:
    """A limit that runs."""

    def __init__(self, seconds: float, restart: Callable[[float], object]) -> None:
        self.began = False  #: whether a function of the learner's has been called
        self._seconds, self._restart = seconds, restart

    def begin(self) -> None:
        """The learner's function is called now, for the first time: from here on it has its seconds."""
        if not self.began:
            self.began = True
            self._restart(self._seconds)


def setup_seconds(seconds: float) -> float:
    """After how long a check ends that has not come to the learner's function; `seconds` is the limit of that."""
    return SETUP_SECONDS + seconds


@contextmanager
def of(seconds: float, answers: tuple[Any, ...]) -> Iterator[Limit]:
    """Raise `TimeUp` in the body `seconds` after the first call of one of `answers`, here or in a child."""
    guard = _alarm if threading.current_thread() is threading.main_thread() else _watchdog
    with guard(setup_seconds(seconds)) as restart:
        limit = Limit(seconds, restart)
        with _noticed(answers, limit.begin):
            yield limit


@contextmanager
def _noticed(answers: tuple[Any, ...], begin: Callable[[], None]) -> Iterator[None]:
    """Call `begin` when one of `answers` is about to be called in a child, or a function of theirs in this thread.

    At once where nothing of that will be seen: no answer is a function, or somebody measures this process already.
    """
    stand_ins = [type(answer).__call__.__code__ for answer in answers if hasattr(answer, "stands_for_stub")]
    codes = {*codes_of(answers), *stand_ins}

    def in_child(fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if any(one is answer for one in (fn, *args) for answer in answers):
            begin()

    def here(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in codes:
            sys.setprofile(before)
            begin()

    before = sys.getprofile()
    token = child.before_call.set(in_child)
    if codes and before is None:
        sys.setprofile(here)
    else:
        begin()
    try:
        yield
    finally:
        sys.setprofile(before)
        child.before_call.reset(token)


def codes_of(answers: tuple[Any, ...]) -> Iterator[CodeType]:
    """The code objects of what the learner handed in: functions, and the methods of classes and objects."""
    for answer in answers:
        if hasattr(answer, "stands_for_stub"):
            continue  # its code is in another process
        function = getattr(answer, "__func__", answer)
        if isinstance(function, FunctionType):
            yield function.__code__
        elif not isinstance(function, str | bytes | int | float | dict | list | tuple):
            owner = function if isinstance(function, type) else type(function)
            for method in vars(owner).values():
                if isinstance(method, FunctionType):
                    yield method.__code__


@contextmanager
def _alarm(seconds: float) -> Iterator[Callable[[float], object]]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield lambda anew: signal.setitimer(signal.ITIMER_REAL, anew)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _watchdog(seconds: float) -> Iterator[Callable[[float], object]]:
    thread = threading.get_ident()
    started_before = on_the_lab_host()
    done, fired, changed = threading.Event(), threading.Event(), threading.Condition()
    deadline = time.monotonic() + seconds

    def restart(anew: float) -> None:
        nonlocal deadline
        with changed:
            deadline = time.monotonic() + anew
            changed.notify()

    def watch() -> None:
        with changed:
            while not done.is_set() and (left := deadline - time.monotonic()) > 0:
                changed.wait(left)
        if done.is_set():
            return
        fired.set()
        kill(on_the_lab_host() - started_before)
        if not done.wait(1.0):  # it was not waiting for a child
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TimeUp))

    watcher = threading.Thread(target=watch, name="labkit-time-limit", daemon=True)
    watcher.start()
    try:
        yield restart
    except Exception as error:
        if fired.is_set():
            raise TimeUp from error
        raise
    finally:
        with changed:
            done.set()
            changed.notify()
        watcher.join()


def on_the_lab_host() -> set[int]:
    """The processes on the lab host now; empty where this machine cannot have one."""
    try:
        return set(procfs.descendants(host.pid()))
    except (LabkitError, OSError):
        return set()


def kill(pids: set[int]) -> None:
    """Kill them."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
