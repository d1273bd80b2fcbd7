"""Lab 06: each likely mistake gets its own message, and other right ways than the course's pass."""

import os

import pytest

from labkit import host, procfs
from labkit.course.authoring.trial import attempt
from labkit.course.framework.outcomes import NotYet, Passed
from labkit.process import run_in_child

#: An ordinary user may not mount a procfs of the machine's PID namespace; root may, and then sees the machine's.
AS_ROOT = os.geteuid() == 0

MISTAKES = {
    "executed by the process that unshared": (
        "alone",
        """
def alone(command):
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc")
    os.execvp(command[0], command)
""",
        "stays where it was" if AS_ROOT else "`unshare` left its caller where it was",
    ),
    "forked before unsharing": (
        "alone",
        """
def alone(command):
    pid = os.fork()
    if pid == 0:
        os.execvp(command[0], command)
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    os.waitpid(pid, 0)
""",
        "forked before",
    ),
    "no PID namespace": (
        "alone",
        """
def alone(command):
    unshare(CLONE_NEWNS)
    pid = os.fork()
    if pid == 0:
        os.execvp(command[0], command)
    os.waitpid(pid, 0)
""",
        "Nobody made a new PID namespace",
    ),
    "not the first child": (
        "alone",
        """
def alone(command):
    import subprocess
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    if os.fork() == 0:
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        mount("proc", "/proc", "proc")
        subprocess.run(command)
""",
        "Somebody was born before it",
    ),
    "/proc never mounted": (
        "alone",
        """
def alone(command):
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    pid = os.fork()
    if pid == 0:
        os.execvp(command[0], command)
    os.waitpid(pid, 0)
""",
        "it is still the host's",
    ),
    "/proc mounted before the fork": (
        "alone",
        """
def alone(command):
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc")
    pid = os.fork()
    if pid == 0:
        os.execvp(command[0], command)
    os.waitpid(pid, 0)
""",
        "of the outer PID namespace" if AS_ROOT else "`unshare` left its caller where it was",
    ),
    "something else mounted on /proc": (
        "alone",
        """
def alone(command):
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    pid = os.fork()
    if pid == 0:
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        mount("tmpfs", "/proc", "tmpfs")
        os.execvp(command[0], command)
    os.waitpid(pid, 0)
""",
        "no process at all",
    ),
    "no mount namespace": (
        "alone",
        """
def alone(command):
    unshare(CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        mount("proc", "/proc", "proc")
        os.execvp(command[0], command)
    os.waitpid(pid, 0)
""",
        "on the lab host itself",
    ),
    "shared propagation": (
        "alone",
        """
def alone(command):
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    pid = os.fork()
    if pid == 0:
        mount("proc", "/proc", "proc")
        os.execvp(command[0], command)
    os.waitpid(pid, 0)
""",
        "leaked",
    ),
    "private before there is a namespace": (
        "alone",
        """
def alone(command):
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    pid = os.fork()
    if pid == 0:
        mount("proc", "/proc", "proc")
        os.execvp(command[0], command)
    os.waitpid(pid, 0)
""",
        "made private",
    ),
    "the command is never executed": (
        "alone",
        """
def alone(command):
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    pid = os.fork()
    if pid == 0:
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        mount("proc", "/proc", "proc")
""",
        "No process executes",
    ),
    "an error in the function": (
        "alone",
        """
def alone(command):
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    mount("proc", "/nowhere", "proc")
""",
        "a mount point must exist",
    ),
    "waits for the command only": (
        "init",
        """
def init(command):
    child = os.fork()
    if child == 0:
        os.execvp(command[0], command)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
""",
        "zombies are in the namespace",
    ),
    "becomes the command": (
        "init",
        """
def init(command):
    os.execvp(command[0], command)
""",
        "zombies are in the namespace",
    ),
    "never waits": (
        "init",
        """
def init(command):
    child = os.fork()
    if child == 0:
        os.execvp(command[0], command)
    import signal
    signal.pause()
""",
        "zombies are in the namespace",
    ),
    "returns at the first end": (
        "init",
        """
def init(command):
    if os.fork() == 0:
        os.execvp(command[0], command)
    _, status = os.wait()
    return os.waitstatus_to_exitcode(status)
""",
        "died with it",
    ),
    "waits for every orphan": (
        "init",
        """
def init(command):
    child = os.fork()
    if child == 0:
        os.execvp(command[0], command)
    code = None
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
""",
        "goes on waiting",
    ),
    "returns the status": (
        "init",
        """
def init(command):
    child = os.fork()
    if child == 0:
        os.execvp(command[0], command)
    while True:
        pid, status = os.wait()
        if pid == child:
            return status
""",
        "takes it apart",
    ),
    "does not wait at all": (
        "init",
        """
def init(command):
    if os.fork() == 0:
        os.execvp(command[0], command)
    return 0
""",
        "0",
    ),
    "never starts the command": (
        "init",
        """
def init(command):
    return 3
""",
        "before the command had done anything",
    ),
    "no translation": (
        "translate",
        """
def translate(pid_1, inside):
    return inside
""",
        "its number *inside*",
    ),
    "arithmetic": (
        "translate",
        """
def translate(pid_1, inside):
    return pid_1 + inside - 1
""",
        "nothing to calculate",
    ),
    "any namespace": (
        "translate",
        """
def translate(pid_1, inside):
    mine = namespaces.inode(pid_1, "pid")
    for entry in sorted(os.listdir("/proc"), key=lambda entry: (len(entry), entry)):
        if entry.isdigit():
            try:
                numbers = procfs.nspid(entry)
                if len(numbers) > 1 and numbers[-1] == inside and namespaces.inode(entry, "pid") != mine:
                    return int(entry)
            except OSError:
                continue
""",
        "in another namespace",
    ),
    "PID 1 itself": (
        "translate",
        """
def translate(pid_1, inside):
    return pid_1
""",
        "another process",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gets_its_own_message(mistake: str) -> None:
    exercise, code, words = MISTAKES[mistake]
    outcome = attempt("06", exercise, code)
    assert isinstance(outcome, NotYet), outcome
    assert words in outcome.seen + outcome.why, outcome


RIGHT = {
    "the unshare program": (
        "alone",
        """
def alone(command):
    os.execvp("unshare", ["unshare", "--fork", "--pid", "--mount-proc", *command])
""",
    ),
    "clone3": (
        "alone",
        """
def alone(command):
    from labkit.syscalls import clone3
    pid, _ = clone3(CLONE_NEWPID | CLONE_NEWNS)
    if pid == 0:
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        mount("proc", "/proc", "proc")
        os.execvp(command[0], command)
    os.waitpid(pid, 0)
""",
    ),
    "mount namespace after the fork, slave, and no waiting": (
        "alone",
        """
def alone(command):
    from labkit.constants import MS_SLAVE
    unshare(CLONE_NEWPID)
    if os.fork() == 0:
        unshare(CLONE_NEWNS)
        mount(None, "/", None, MS_REC | MS_SLAVE)
        mount("proc", "/proc", "proc")
        os.execvp(command[0], command)
""",
    ),
    "subprocess": (
        "init",
        """
def init(command):
    import subprocess
    started = subprocess.Popen(command)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == started.pid:
            return os.WEXITSTATUS(status)
""",
    ),
    "on SIGCHLD": (
        "init",
        """
def init(command):
    import signal
    child = os.posix_spawnp(command[0], command, os.environ)
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED)
        if ended.si_pid == child:
            return ended.si_status
""",
    ),
    "by reading /proc": (
        "translate",
        """
def translate(pid_1, inside):
    mine = os.readlink(f"/proc/{pid_1}/ns/pid")
    for entry in os.listdir("/proc"):
        try:
            if os.readlink(f"/proc/{entry}/ns/pid") == mine:
                with open(f"/proc/{entry}/status") as status:
                    if any(line.startswith("NSpid:") and line.split()[-1] == str(inside) for line in status):
                        return int(entry)
        except OSError:
            continue
""",
    ),
}


@pytest.mark.parametrize("way", RIGHT)
def test_another_right_way_passes(way: str) -> None:
    exercise, code = RIGHT[way]
    outcome = attempt("06", exercise, code)
    assert isinstance(outcome, Passed), outcome


def test_a_leak_in_a_check_does_not_reach_the_lab_host() -> None:
    lab_host = host.pid()
    before = procfs.mountinfo(lab_host)
    for mistake in ("shared propagation", "no mount namespace", "private before there is a namespace"):
        exercise, code, _ = MISTAKES[mistake]
        attempt("06", exercise, code)
    assert host.pid() == lab_host
    assert procfs.mountinfo(lab_host) == before
    assert str(os.getpid()) in run_in_child(os.listdir, "/proc")
