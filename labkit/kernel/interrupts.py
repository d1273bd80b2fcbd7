"""Holding back KeyboardInterrupt while descriptors change hands.

A notebook's stop button sends SIGINT, and Python raises KeyboardInterrupt between any two instructions: also between a
call that opens something and the statement that would keep it, where it is lost. `Deferred` keeps the interrupt until
its body has ended; what takes long in there is done within `allowed`, where nothing would be lost. Only the main thread
is ever interrupted. signal(7)
"""

import contextlib
import signal
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

_outermost: "Deferred | None" = None


class Deferred:
    """A context manager: an interrupt that comes in the body is raised at its end. One within another changes nothing.

    The object that the body makes must be whole at the end, so that it gives back what it holds when it is dropped.
    """

    def __init__(self) -> None:
        self.came = self._may_raise = False
        self._before: Callable[[int, FrameType | None], object] | int | None = None
        self._active = False

    def __enter__(self) -> "Deferred":
        global _outermost
        if _outermost is None and threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            # What is no function of Python's (ignored, the default action, a library's own) raises nothing.
            if callable(self._before):
                signal.signal(signal.SIGINT, self._on_interrupt)  # from here on none is raised before the end
                _outermost, self._active = self, True
        return self

    def __exit__(self, kind: object, error: BaseException | None, where: "TracebackType | None") -> None:
        global _outermost
        if not self._active:
            return
        _outermost, self._active = None, False
        assert callable(self._before)
        signal.signal(signal.SIGINT, self._before)
        if self.came:  # also where the body failed: whoever pressed stop wants to stop
            self._before(signal.SIGINT, None)  # raises, as a rule

    def _on_interrupt(self, number: int, frame: "FrameType | None") -> None:
        self.came = True
        if self._may_raise:
            self._raise(frame)

    def _raise(self, frame: "FrameType | None") -> None:
        self.came = False
        assert callable(self._before)
        self._before(signal.SIGINT, frame)


@contextlib.contextmanager
def allowed() -> "Iterator[None]":
    """In the body of a `Deferred`: a part that may be interrupted, and in which nothing is opened."""
    outer = _outermost if threading.current_thread() is threading.main_thread() else None
    if outer is None:
        yield
        return
    outer._may_raise = True
    try:
        if outer.came:
            outer._raise(None)
        yield
    finally:
        outer._may_raise = False
