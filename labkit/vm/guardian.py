"""The process between the caller and the virtual machine, so that nothing outlives the caller.

User Mode Linux is a family of processes, and killing its first leaves the others behind. A caller may be killed at any
moment, by a signal that it cannot handle. So this small program starts the machine, and ends with it: it is the
*subreaper* of the family (PR_SET_CHILD_SUBREAPER, prctl(2)), which makes every orphan among them its child; and its
stdin is a pipe whose other end only the caller holds, which reads end of file when the caller is gone.

The keeper may be killed so too. The kernel then kills the machine's first process (PR_SET_PDEATHSIG), and with that one
the rest of its PID namespace (`labkit.vm.sandbox`); where it has none, the caller kills the rest, or the next caller
does. By the lock on FOLDER that caller and keeper hold it knows which are abandoned.

Run as `python -I -S guardian.py FOLDER PLAN ARGUMENT...`, where PLAN is a `Confinement` as JSON, or null; it kills all
that is left, removes FOLDER, and ends with the machine's exit status.
"""

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from labkit import constants, procfs, syscalls
from labkit.vm.sandbox import Confinement, confine, enter_namespaces, possible

PREFIX = "labvm-"
_NEW_S = 60  # a folder this young may be about to be locked


def command(folder: str, argv: list[str], plan: Confinement | None = None) -> list[str]:
    """The command line that runs `argv`, confined if wished, under a keeper which removes `folder` afterwards."""
    confinement = json.dumps(plan and vars(plan))
    return [sys.executable, "-I", "-S", __file__, folder, confinement, *argv]


def lock(folder: str, operation: int = fcntl.LOCK_SH) -> int:
    """Lock a machine's folder for as long as the descriptor returned is open. flock(2)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, operation)
    except OSError:
        os.close(fd)
        raise
    return fd


def remove_abandoned(parent: str) -> None:
    """Remove what is left of this user's machines whose caller and keeper were both killed."""
    for entry in os.scandir(parent):
        with contextlib.suppress(OSError):
            status = entry.stat(follow_symlinks=False)
            old = time.time() - status.st_mtime > _NEW_S
            if entry.name.startswith(PREFIX) and status.st_uid == os.geteuid() and old:
                fd = lock(entry.path, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(entry.path)
                os.close(fd)


def remove(folder: str) -> None:
    """Kill what still runs of the machine whose HOME is `folder`, and remove that: for when its keeper is dead."""
    mark = b"HOME=" + os.fsencode(folder)
    for pid in [entry for entry in os.listdir("/proc") if entry.isdigit()]:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environ:
            if mark in environ.read().split(b"\0"):
                os.kill(int(pid), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


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


def main(folder: str, plan: Confinement | None, argv: list[str]) -> int:
    lock(folder)
    syscalls.prctl(constants.PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        if plan and not possible(plan):
            os.rmdir(plan.memory)
            os.symlink(plan.unconfined_memory, plan.memory)
            plan = None
        if plan:
            enter_namespaces()
        pid = os.fork()
        if pid == 0:
            start(argv, plan)
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


def wait_for(child: int) -> int:
    """Reap all that ends, as the first process of a PID namespace should, until `child` does; its exit status."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status) & 0xFF


def start(argv: list[str], plan: Confinement | None) -> None:
    """In the child: become the machine. Should the keeper itself be killed, the kernel kills this process."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        syscalls.prctl(constants.PR_SET_PDEATHSIG, signal.SIGKILL)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        if plan:
            confine(plan)
            if pid := os.fork():  # a first process cannot end itself by a signal, and a kernel in panic does just that
                os._exit(wait_for(pid))
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", flush=True)
    finally:
        os._exit(127)


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    sys.exit(main(sys.argv[1], given and Confinement(**given), sys.argv[3:]))
