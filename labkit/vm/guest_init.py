"""What runs inside the virtual machine as its first process: build the root, run the command, report.

The kernel starts this program with the host's own files as its root, read-only. From then on both kinds of machine go
the same way::

    host                                            guest (this file, PID 1)
    ----                                            ------------------------
                          <- ready {kernel}         open the line
    start {argv, ...} ->                            overlay on a tmpfs, /proc /sys /dev /run /tmp, cgroup2, pivot_root
    stdin             ->  <- stdout, stderr         fork, exec; reap what is orphaned
    connect {port}    ->  <- bytes of connections
                          <- exit {code}            kill what is left, write shared folders back
    (kills the machine)                             or, at any point: <- error {sentence}

Nothing is kept of the machine's memory, and so of its file system, except in the folders shared writable.
"""

import contextlib
import fcntl
import fnmatch
import os
import select
import signal
import socket
import struct
import sys
import termios
import time
import tty

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from labkit.syscalls import mount
from labkit.vm import streams
from labkit.vm.guest_root import build_root, delegate, set_up_system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def init_script(channel: str) -> str:
    """The shell script that the kernel is told to start; it only finds this program and the Python to run it with."""
    words = [sys.executable, "-I", "-S", __file__, channel]
    return "#!/bin/sh\nexec " + " ".join("'" + word.replace("'", "'\\''") + "'" for word in words) + "\n"


class Command:
    """The one command of this machine, and the streams tied to it."""

    def __init__(self, line: streams.Streams, order: "dict[str, Any]") -> None:
        group = delegate(order["uid"], order["gid"]) if order["uid"] else None
        if order["terminal"]:
            terminal, inner = os.openpty()
            set_size(terminal, *order["terminal"])
            os.set_inheritable(inner, True)
            self.pid = os.fork()
            if self.pid == 0:
                execute(order, group, (inner, inner, inner))
            os.close(inner)
            line.attach(streams.STDIN, sink=terminal)
            line.attach(streams.STDOUT, source=terminal)
            return
        stdin, to_stdin = os.pipe()
        os.set_blocking(to_stdin, False)
        from_stdout, stdout = os.pipe()
        from_stderr, stderr = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            execute(order, group, (stdin, stdout, stderr))
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        line.attach(streams.STDIN, sink=to_stdin, on_end=lambda: os.close(to_stdin))
        line.attach(streams.STDOUT, source=from_stdout)
        line.attach(streams.STDERR, source=from_stderr)


def set_size(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def execute(order: "dict[str, Any]", group: str | None, stdio: tuple[int, int, int]) -> "NoReturn":
    """In the child: become the command, or say why not and end with 127 (not there) or 126, as a shell does."""
    try:
        for target, fd in enumerate(stdio):
            os.dup2(fd, target)
        os.setsid()
        if order["terminal"]:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        if group:
            with open(f"{group}/cgroup.procs", "w") as procs:
                procs.write(str(os.getpid()))
        if order["uid"]:
            os.setgroups(order["groups"])
            os.setgid(order["gid"])
            os.setuid(order["uid"])
        argv, env = order["argv"], order["env"]
        try:
            os.chdir(order["cwd"])
        except OSError as error:
            os.write(2, f"{order['cwd']}: {error.strerror}\n".encode())
            os._exit(126)
        try:
            os.execvpe(argv[0], argv, env)
        except OSError as error:
            os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
            os._exit(127 if isinstance(error, FileNotFoundError | NotADirectoryError) else 126)
    finally:
        os._exit(126)


def connect(line: streams.Streams, number: int, port: int) -> None:
    """Tie stream `number` to a connection to a server in the guest; the line carries it to the host's client."""
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    except OSError:
        line.reject(number)
        return
    connection.setblocking(False)
    fd = connection.fileno()
    line.attach(
        number,
        source=fd,
        sink=fd,
        on_end=lambda: connection.shutdown(socket.SHUT_WR),
        on_done=connection.close,
    )


def serve(line: streams.Streams, command: Command, wakeup: int) -> int:
    """Move bytes and reap processes until the command has ended; returns its exit code, 128 + n after signal n."""
    while True:
        if wakeup in line.step(None, (wakeup,)):
            os.read(wakeup, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == command.pid:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


def end_all() -> None:
    """Kill every other process (kill(2) with pid -1), which closes whatever they still held open."""
    while True:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def open_line(pattern: str) -> int:
    """The device of the line, without the terminal's translation of bytes if it is a serial one."""
    if not os.path.exists("/dev/null"):
        mount("devtmpfs", "/dev", "devtmpfs", 0, None)
    waited_until = time.monotonic() + 20
    while not (found := fnmatch.filter(os.listdir("/dev"), pattern)):
        if time.monotonic() > waited_until:
            raise FileNotFoundError(f"the line to the host, /dev/{pattern}, did not appear")
        time.sleep(0.02)  # QEMU announces the port to its driver a moment after the driver was loaded
    fd = os.open(f"/dev/{found[0]}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if os.isatty(fd):
        tty.setraw(fd)
    return fd


def main(channel: str) -> None:
    if os.getpid() != 1:  # on a running system this program would mount over it and kill everything
        sys.exit("this program is the first process of a virtual machine; start one with `./lab vm`")
    orders: list[dict[str, Any]] = []

    def on_message(message: "dict[str, Any]") -> None:
        if "start" in message:
            orders.append(message["start"])
        elif "connect" in message:
            connect(line, message["connect"], message["port"])

    line = streams.Streams(open_line(channel), on_message, tell_read=True)
    try:
        line.send({"ready": os.uname().release})
        while not orders:
            line.step(None)
        build_root(orders[0])
        set_up_system(orders[0])
        wakeup, alarm = os.pipe()
        os.set_blocking(alarm, False)
        signal.set_wakeup_fd(alarm)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        command = Command(line, orders[0])
        line.send({"started": command.pid})
        code = serve(line, command, wakeup)
        end_all()
        while line.sending(streams.STDOUT, streams.STDERR):
            line.step(None)
        if orders[0]["writable"]:
            os.sync()
        line.send({"exit": code})
    except Exception as error:
        line.send({"error": f"{type(error).__name__}: {error}"})
    while not line.closed:  # the host ends this machine; were PID 1 to end, the kernel would panic
        line.step(None)
    select.select([], [], [])


if __name__ == "__main__":
    main(sys.argv[1])
