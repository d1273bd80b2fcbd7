"""The process boundary: run a Python function in a child process, from a notebook, safely.

`run_in_child(fn)` runs a function in a child and gives back what it returned. `spawn(fn)` does so and keeps the child
alive, so that what the function did to it can be looked at from outside. What the child prints appears where the caller
prints; an exception of the function is raised in the caller, with the child's traceback as a note.

Every child is forked by the lab host's zygote (`labkit.host.zygote`), never by the calling process, which has threads.
Children are held by pidfd, which stays with its process even when the PID is used again.
"""

import io
import linecache
import os
import pickle
import socket
from collections import ChainMap
from collections.abc import Callable
from contextvars import ContextVar
from types import CodeType
from typing import Any, ClassVar, ParamSpec, TypeVar

import cloudpickle

from labkit import host
from labkit.errors import ChildDied, LabkitError
from labkit.kernel import interrupts
from labkit.kernel.nofile import plainly
from labkit.process import plain
from labkit.process import worker as remote
from labkit.process.handle import Held
from labkit.process.stdio import Output, readable

P = ParamSpec("P")
T = TypeVar("T")


def run_in_child(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `fn(*args, **kwargs)` in a child process on the lab host; return what it returned.

    The child is root on the lab host, and ends with the call: what it did to itself (namespaces, root, host name) ends
    with it. `fn` may be a function or closure defined in a notebook cell; arguments and value travel by cloudpickle.
    Raises what `fn` raised; `ChildDied` where the child ended first; KeyboardInterrupt kills the child.
    """
    with Child(closed=True) as child:
        return child.call(fn, *args, **kwargs)


def spawn(fn: Callable[..., Any], /, *args: Any, wait: bool = True, **kwargs: Any) -> "Child":
    """Call `fn` in a child that stays alive afterwards, to be looked at; return it once `fn` has returned.

    `fn` may also execute another program: the child then is that program, and its `value` is None. With `wait=False`
    return at once, for a function that never returns. End the child with `kill()`, or use it in a `with` statement.
    """
    return _spawned(Child(), fn, args, kwargs, wait)


def spawn_closed(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Child":
    """As `spawn`, for a child of our own that no other process needs to look into.

    Where the lab host is `untrusted`, none can: whatever else runs there, what this child says is what it has found.
    """
    return _spawned(Child(closed=True), fn, args, kwargs, True)


def _spawned(
    child: "Child", fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], wait: bool
) -> "Child":
    try:
        child._spawn(fn, args, kwargs, wait)
    except BaseException:
        child.kill()
        raise
    return child


#: True where code runs on the lab host that nobody vouches for. Children that are not there to be looked at are then
#: closed to it: they stay "not dumpable", as the zygote is, ptrace(2). And what a child answers is read as plain data:
#: a pickle does what it says to whoever reads it.
untrusted = False
PLAIN_BYTES_MAX = 16 << 20  #: of an answer that is read as plain data


class Child(Held):
    """A child process on the lab host that calls functions for us until it is killed.

    A parked one does not end by itself: `kill` it, or `call` its end. With it goes what it has left in its session.
    """

    def __init__(self, *, closed: bool = False) -> None:
        with interrupts.Deferred(), plainly("starting a process on the lab host"):
            self._begin(closed)

    def _begin(self, closed: bool) -> None:
        calls, their_calls = socket.socketpair()
        self._calls = calls
        self._answers_plainly = untrusted
        self.output = Output()
        try:
            with their_calls, self.output.writers() as writers:
                spec = remote.WorkerSpec(
                    path=host.absolute_import_path(),
                    cwd=os.getcwd(),
                    environ=dict(os.environ),
                    dumpable=not (closed and untrusted),
                    plainly=untrusted,
                )
                stdout, stderr = writers
                fds = {"calls": their_calls.fileno(), "stdout": stdout, "stderr": stderr}
                started = host.current().request(remote.start, spec, fds)
        except BaseException:
            calls.close()
            self.output.close()
            raise
        Held.__init__(self, started)
        self.answer_seconds: float | None = None  #: within which a function must have returned, where it is one of ours
        self.value: Any = None  #: what the function given to `spawn` returned

    def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call another function in this child; return what it returned, or raise what it raised."""
        self._send_call(fn, args, kwargs)
        answered, value = self._answer()
        if not answered:
            raise ChildDied(f"process {self.pid} {self._how_it_went()} before {_name(fn)}() had returned")
        return value  # type: ignore[no-any-return]

    def _spawn(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], wait: bool) -> None:
        self._send_call(fn, args, kwargs)
        if wait:
            answered, self.value = self._answer()
            if not answered and not self.alive and self.wait() != 0:
                raise ChildDied(f"process {self.pid} {self._how_it_went()} before {_name(fn)}() had returned")
        self.output.follow()

    def _send_call(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if told := before_call.get():
            told(fn, args)
        with plainly(f"calling {_name(fn)}() in process {self.pid}"):
            try:
                remote.write_message(self._calls, _pickled(fn, args, kwargs))
            except (BrokenPipeError, ConnectionResetError):
                raise ChildDied(f"process {self.pid} {self._how_it_went()}; it takes no more calls") from None

    def _answer(self) -> tuple[bool, Any]:
        """Pass output on until the answer comes; (False, None) where the child closed the connection instead."""
        try:
            with plainly(f"waiting for process {self.pid}"):
                if not self.output.pass_on_until(self._calls, timeout=self.answer_seconds):
                    raise LabkitError(f"process {self.pid} has not answered for {self.answer_seconds} s")
                limit = PLAIN_BYTES_MAX if self._answers_plainly else remote.MESSAGE_BYTES_MAX
                message = remote.read_message(self._calls, limit)
                self.output.drain()
        except BaseException:
            self.kill()
            raise
        if message is None:
            return False, None
        try:
            kind, value, *where = plain.loads(message) if self._answers_plainly else pickle.loads(message)
        except plain.NotPlain as error:
            raise ChildDied(f"its answer is no plain data: {error}") from None
        if kind == plain.ERROR:
            value.child_frames = where[0]  # (file, line, function), outermost first, for programs that look
            value.add_note(_traceback(self.pid, where[0]))
            raise value
        return True, value

    def send(self, fn: Callable[..., Any], /, *args: Any) -> None:
        """Call a function in this child and do not wait for it: `answered` says when it has returned."""
        self._send_call(fn, args, {})
        self.output.follow()

    def answered(self, timeout: float = 0.0) -> bool:
        """Whether the function given to `spawn(..., wait=False)` has returned, or its process has ended.

        Waits `timeout` seconds at most. What the function returned is in `value` then; what it raised is raised.
        """
        if self.exit is not None or not readable(self._calls.fileno(), timeout):
            return not self.alive
        returned, value = self._answer()
        if returned:
            self.value = value
        return returned or not self.alive

    def _let_go(self) -> None:
        self._calls.close()
        super()._let_go()
        self.output.close()

    def _how_it_went(self) -> str:
        try:
            self.wait(timeout=1)
        except TimeoutError:
            return "is no longer running our code"
        except ChildDied:
            return "has ended with the lab host"
        assert self.exit
        return str(self.exit)

    def __repr__(self) -> str:
        return f"<Child {self.pid}: {'parked' if self.alive else self.exit or 'ended'}>"


#: Told of each function, with its arguments, that is about to be called in a child: a time limit begins there.
before_call: ContextVar[Callable[[Callable[..., Any], tuple[Any, ...]], object] | None] = ContextVar(
    "before_call", default=None
)


def _reduce_code(code: CodeType) -> tuple[Any, ...]:
    make, arguments = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return remote.code_of_file, (code.co_filename, make, arguments)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, but code keeps the name of its file, by which errors find the learner's line.

    cloudpickle leaves it out since 3.1.3, to give the same bytes wherever a function was defined.
    """

    dispatch_table: ClassVar[Any] = ChainMap({CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table)


def _pickled(*call: object) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(call)
    return buffer.getvalue()


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def _traceback(pid: int, frames: list[tuple[str, int, str]]) -> str:
    """The child's frames as text; the source comes from here, since only the notebook knows its cells."""
    lines = [f"In the child (process {pid}):"]
    for filename, lineno, name in frames:
        if f"{os.sep}labkit{os.sep}syscalls.py" in filename:
            continue  # the wrapper says nothing that its caller's line does not
        lines.append(f"  line {lineno} of {name}() in {os.path.basename(filename)}")
        if _may_quote(filename) and (source := linecache.getline(filename, lineno).strip()):
            lines.append(f"    {source}")
    return "\n".join(lines)


def _may_quote(filename: str) -> bool:
    """A frame is what the child says: where it is not trusted no file is read for it, only text that was put here."""
    held = linecache.cache.get(filename)
    return not untrusted or (held is not None and len(held) == 4 and held[1] is None)
