"""The process between the caller and the virtual machine, so that nothing outlives the caller.

User Mode Linux is a family of processes, and killing its first leaves the others behind. A caller may be killed at any
moment, by a signal that it cannot handle. So this small program starts the machine, and ends with it: it is the
*subreaper* of the family (PR_SET_CHILD_SUBREAPER, prctl(2)), which makes every orphan among them its child; and its
stdin is a pipe whose other end only the caller holds, which reads end of file when the caller is gone.

Run as `python -I -S keeper.py FOLDER ARGUMENT...`; it kills all that is left, removes FOLDER, and ends with the
machine's exit status.
"""

import contextlib
import os
import select
import shutil
import signal
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from labkit import constants, procfs, syscalls


def command(folder: str, argv: list[str]) -> list[str]:
    """The command line that runs `argv` under a keeper which removes `folder` afterwards."""
    return [sys.executable, "-I", "-S", __file__, folder, *argv]


def kill_all() -> None:
    """Kill the children and their children, until there are none: those orphaned meanwhile become ours too."""
    while True:
        for pid in procfs.descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def main(folder: str, argv: list[str]) -> int:
    syscalls.prctl(constants.PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        pid = os.fork()
        if pid == 0:
            start(argv)
        machine = syscalls.pidfd_open(pid)
        poll = select.poll()
        poll.register(machine, select.POLLIN)
        poll.register(0, select.POLLIN)
        poll.poll()
        ended, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) & 0xFF if ended else 1
    finally:
        kill_all()
        shutil.rmtree(folder, ignore_errors=True)


def start(argv: list[str]) -> None:
    """In the child: become the machine. Should the keeper itself be killed, the kernel kills this process."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        syscalls.prctl(constants.PR_SET_PDEATHSIG, signal.SIGKILL)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", flush=True)
    finally:
        os._exit(127)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
