"""The zygote: one small process of a single thread, from which every child comes.

A Jupyter kernel has a dozen threads and hundreds of megabytes. Forking it is slow, and unsafe: a lock that another
thread held stays locked in the child for ever. So it forks once, early and by `exec`, this process::

    caller ──requests──▶ zygote ──fork──▶ child, child, child ...
       ▲                   │ ▲
       └────── replies ────┘ └─ guards ─▶ keeper

A request is one message with descriptors attached; the first of them is the reply socket, on which the zygote answers
`P` with the child's PID and pidfd, and, when the child has ended, `X` with how. Each child has a reply socket of its
own, so that nobody waits for anybody else, and a caller who closes it says "kill that child". A start that has to wait
for its child yields meanwhile: a container that holds up whoever joins it holds up nobody else.

Two processes guard each other and watch the caller. When the caller ends, however it ends, zygote and keeper kill what
is left. When the zygote is killed, its orphans fall to the keeper, which kills them; when the keeper is, the zygote
does the same. And where all three are killed at once, what is left falls to the keeper's parent, the guard, which does
nothing else in its life than wait for the keeper's end. All are "child subreapers" (PR_SET_CHILD_SUBREAPER): no orphan
of theirs escapes to PID 1.

Before the first request the two move into namespaces of their own: the lab host (`labkit.host`).
"""

import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress

from labkit import constants as c
from labkit import procfs, syscalls
from labkit.host import cgroup, enter
from labkit.host.guardian import keep, kill_descendants, watch
from labkit.host.messages import REQUEST_BYTES, REQUEST_DESCRIPTORS, Began, Ended, NoLabHost, Ready, Refused
from labkit.host.netns_pool import NetnsPool
from labkit.kernel import nofile as descriptors
from labkit.kernel import reaping, record, scm_rights
from labkit.launch.pending import Pending, Started
from labkit.program import CallFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from labkit.kernel.record import Record
    from labkit.launch.pending import Starting

    # What a request names: called in the zygote with the request's record and descriptors, it forks and returns the
    # child, or yields until there is one. It owns the descriptors only until then.
    Handler = Callable[[Record, dict[str, int], NetnsPool], "Started | Starting"]

GUARD_NAME = "labkit-guard"
PROCESS_NAME = "labkit-host"  # what `ps -o comm` shows, and by which `labkit.host` finds hosts left behind
_CHILD_OPENS = 36  # descriptors, more than a container's beginning has open at once, without mounts of one's own

_LOOK_SECONDS = 5.0  # while there are children: after that their ends are looked for, should a signal have been lost


def main(control_fd: int) -> "NoReturn":
    """Become keeper and zygote of the caller at the other end of `control_fd`."""
    control = socket.socket(fileno=control_fd)
    caller = syscalls.pidfd_open(os.getppid())
    # Opened before anything can be mounted over it: children share the lab host's mounts.
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    hello = record.loads(control.recv(REQUEST_BYTES))
    sys.path[:], limit = hello.path, hello.nofile
    descriptors.raise_limit(limit)
    os.setsid()
    _plain_signals()
    syscalls.prctl(c.PR_SET_CHILD_SUBREAPER, 1)
    _set_name(PROCESS_NAME)
    try:
        group, lack = enter.enter(control)
    except OSError as error:
        notes = getattr(error, "__notes__", [])
        control.send(record.dumps(NoLabHost(errno=error.errno, text=error.strerror, notes=list(notes))))
        os._exit(1)
    # A collection in a child would touch, and so copy, every page of the zygote's.
    gc.disable()
    guard = syscalls.pidfd_open(os.getpid())
    if pid := os.fork():
        control.close()
        _set_name(GUARD_NAME)
        _drop_stderr()
        watch(pid, group, proc)
    syscalls.prctl(c.PR_SET_CHILD_SUBREAPER, 1)
    keeper = syscalls.pidfd_open(os.getpid())
    ready_here, ready_there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        syscalls.prctl(c.PR_SET_CHILD_SUBREAPER, 1)
        cgroup.on_lab_host, cgroup.current, cgroup.lack = True, group, lack
        if group:
            group.settle()
        folder = group.folder if group else ""
        control.send(record.dumps(Ready(pid=os.getpid(), keeper_pid=os.getppid(), group=folder, lack=lack)))
        _drop_stderr()
        ready_there.close()
        Zygote(control, caller, keeper, group, proc, NetnsPool(ready_here)).serve()
    control.close()
    ready_here.close()
    _drop_stderr()
    keep(syscalls.pidfd_open(pid), caller, guard, ready_there, group, proc)


def _drop_stderr() -> None:
    """Let go of standard error, which nobody reads any more: Python writing there would be killed by SIGPIPE."""
    null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, 2)
    os.close(null)


def _set_name(name: str) -> None:
    # Not by /proc/self/comm, which is closed to a process that is not dumpable: see `labkit.host.enter`.
    text = ctypes.create_string_buffer(name.encode())
    syscalls.prctl(c.PR_SET_NAME, ctypes.addressof(text))


class Child:
    """A child that has not been reaped yet, and where to say how it ended."""

    __slots__ = ("reply", "started")

    def __init__(self, started: Started, reply: socket.socket) -> None:
        self.started, self.reply = started, reply


class Zygote:
    """The loop that starts children on request and tells their callers how they ended."""

    def __init__(
        self,
        control: socket.socket,
        caller: int,
        keeper: int,
        group: "cgroup.HostGroup | None",
        proc: int,
        networks: NetnsPool,
    ) -> None:
        self.control = control
        self.networks = networks
        self.proc = proc
        self.group = group
        self.children: dict[int, Child] = {}  # by PID
        self.replies: dict[int, Child | Pending] = {}  # by the descriptor of its reply socket
        self.pending: dict[int, Pending] = {}  # by the descriptor that it waits for
        self.ended_sessions: set[int] = set()  # of children that have ended, while orphans are left
        self.handlers: dict[str, Handler] = {}
        self.caller, self.keeper = caller, keeper
        self.wake, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that the wake-up descriptor is written to
        self.poll = select.epoll()
        for fd in (control.fileno(), self.wake, caller, keeper):
            self.poll.register(fd, select.EPOLLIN)

    def serve(self) -> "NoReturn":
        """Serve until the caller or the keeper is gone; then kill what is left and exit."""
        try:
            while self._turn():
                pass
        finally:
            kill_descendants(self.proc)
            if self.group and _readable(self.keeper):
                self.group.end()  # else it is the keeper's to remove, which outlives us
            os._exit(0)

    def _turn(self) -> bool:
        # Whose each descriptor is must be known before anything is done: a number may be used again for another one.
        try:
            ready = self.poll.poll(self._patience())
        except OSError:
            ready = []
        if not ready:
            self._reap()
        for fd, replying, pending in [(fd, self.replies.get(fd), self.pending.get(fd)) for fd, _ in ready]:
            if fd == self.control.fileno():
                if not self._request():
                    return False
            elif fd == self.wake:
                with suppress(OSError):  # then it is readable still
                    os.read(self.wake, 4096)
                self._reap()
            elif fd in (self.caller, self.keeper):
                return False
            elif pending and pending is self.pending.get(fd):
                self._go_on(pending, True)
            elif replying and replying is self.replies.get(fd):  # its caller has closed the other end: unwanted now
                with suppress(OSError):
                    self.poll.unregister(fd)
                self._kill(replying)
        if self.pending:
            now = time.monotonic()
            for pending in [pending for pending in self.pending.values() if pending.deadline <= now]:
                self._go_on(pending, False)
        return True

    def _patience(self) -> float | None:
        """For how many seconds there is nothing to do, if nothing happens."""
        if self.pending:
            first = min(pending.deadline for pending in self.pending.values())
            return min(max(first - time.monotonic(), 0), _LOOK_SECONDS)
        return _LOOK_SECONDS if self.children else None

    def _request(self) -> bool:
        try:
            data, fds = scm_rights.receive(self.control, REQUEST_BYTES, REQUEST_DESCRIPTORS)
        except ConnectionResetError:
            return False
        except OSError:
            return True  # no descriptor left: that request is lost, and its caller sees its reply socket closed
        if not data:
            return False
        reply_fd, *rest = fds
        reply = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=reply_fd)
        pending = None
        try:
            self.poll.register(reply_fd, select.EPOLLRDHUP)
            descriptors.make_room(reply_fd, _CHILD_OPENS)
            request = record.loads(data)
            handler = self.handlers.get(request.handler)
            if handler is None:
                module, _, name = request.handler.partition(":")
                handler = self.handlers[request.handler] = getattr(importlib.import_module(module), name)
            started = handler(request.spec, dict(zip(request.names, rest, strict=True)), self.networks)
            if not isinstance(started, Started):
                pending = Pending(started, reply, rest)
        except Exception as error:
            self._refuse(reply, error)
        else:
            if pending:
                self._go_on(pending, False)
                return True
            assert isinstance(started, Started)
            self._began(reply, started)
        for fd in rest:
            os.close(fd)
        return True

    def _go_on(self, pending: Pending, in_time: bool) -> None:
        """Let a start go on to where it waits next, or to its end."""
        self._stop_waiting(pending)
        try:
            started = pending.go_on(in_time)
        except Exception as error:
            self._refuse(pending.reply, error)
        else:
            if started is None:
                assert pending.wait
                self.pending[pending.wait.fd] = self.replies[pending.reply.fileno()] = pending
                self.poll.register(pending.wait.fd, select.EPOLLIN)
                return
            self._began(pending.reply, started)
        pending.forget()

    def _stop_waiting(self, pending: Pending) -> None:
        if pending.wait and self.pending.pop(pending.wait.fd, None):
            del self.replies[pending.reply.fileno()]
            # Closing would not do: a child forked meanwhile may hold a copy open.
            self.poll.unregister(pending.wait.fd)

    def _refuse(self, reply: socket.socket, error: Exception) -> None:
        """Tell why nothing was started."""
        number = error.errno if isinstance(error, OSError) else None
        text = error.strerror if isinstance(error, OSError) and error.strerror else f"{error}"
        notes = list(getattr(error, "__notes__", []))
        step = error.call.step if isinstance(error, CallFailed) else ""
        _send(reply, Refused(step=step, errno=number, text=text, notes=notes))
        self._close(reply)

    def _began(self, reply: socket.socket, started: Started) -> None:
        """Tell of a child; from here on its end will be."""
        self.ended_sessions.discard(started.pid)
        child = self.children[started.pid] = self.replies[reply.fileno()] = Child(started, reply)
        if not _send(reply, Began(pid=started.pid), started.pidfd, *started.descriptors):
            self._kill(child)
        for fd in started.descriptors:
            os.close(fd)
        if ended := reaping.early.pop(started.pid, None):
            self._ended(started.pid, *ended)

    def _kill(self, unwanted: Child | Pending) -> None:
        if isinstance(unwanted, Pending):
            self._stop_waiting(unwanted)
            unwanted.starting.close()
            self._close(unwanted.reply)
            unwanted.forget()
            return
        with suppress(ProcessLookupError):
            syscalls.pidfd_send_signal(unwanted.started.pidfd, signal.SIGKILL)

    def _close(self, reply: socket.socket) -> None:
        with suppress(OSError):
            self.poll.unregister(reply.fileno())  # closing would not do: a child forked just now may hold a copy open
        reply.close()

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except OSError:  # ECHILD: there are none
                break
            if not pid:
                break
            cpu_usec = int((usage.ru_utime + usage.ru_stime) * 1e6)
            if pid in self.children:
                self._ended(pid, status, cpu_usec, usage.ru_maxrss)
            elif any(pending.wait and pid in pending.wait.pids() for pending in self.pending.values()):
                reaping.early[pid] = status, cpu_usec, usage.ru_maxrss
            # else an orphan that fell to us
        if self.ended_sessions:
            self._end_sessions()
        self.networks.ask()

    def _ended(self, pid: int, status: int, cpu_usec: int, memory_kib: int) -> None:
        """Tell the caller of a child how it ended."""
        child = self.children.pop(pid)
        if child.started.leaves_orphans:
            self.ended_sessions.add(pid)
            self._end_sessions()
        _send(child.reply, Ended(status=status, cpu_usec=cpu_usec, peak_memory_kib=memory_kib))
        del self.replies[child.reply.fileno()]
        self._close(child.reply)
        os.close(child.started.pidfd)

    def _end_sessions(self) -> None:
        """Kill what ended children have left in their sessions: it falls to us, generation after generation."""
        try:
            orphans = [pid for pid in procfs.children(os.getpid(), self.proc) if pid not in self.children]
        except OSError:
            return  # the next end of a child has us look again
        for pid in orphans:
            with suppress(ProcessLookupError):
                if int(procfs.stat(pid, self.proc)[5]) in self.ended_sessions:
                    os.kill(pid, signal.SIGKILL)
        if not orphans:
            self.ended_sessions.clear()


def _send(reply: socket.socket, message: "Record", *descriptors: int) -> bool:
    """Whether it could be sent. A caller that has gone is no error: closing its end told us to kill the child."""
    try:
        scm_rights.send(reply, record.dumps(message), descriptors)
    except OSError:
        return False
    return True


def _readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def _plain_signals() -> None:
    """Default actions and an empty mask, for this process and so for every child: Python and Jupyter change some."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def plain_signals_in_child() -> None:
    """Undo, in a forked child, what the zygote's own loop needs."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
