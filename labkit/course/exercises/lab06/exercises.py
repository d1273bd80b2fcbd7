"""The exercises of lab 06: PID namespaces, the duties of PID 1, /proc."""

import errno
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from labkit import host, namespaces, procfs
from labkit.constants import CLONE_NEWPID
from labkit.course.exercises.common import trapping
from labkit.course.exercises.common.left_behind import mounted
from labkit.course.exercises.common.mount_stand_in import (
    StandIn,
    as_pid_1,
    find_command,
    require_procfs,
)
from labkit.course.framework import pace
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet, Passed, Verdict
from labkit.process import Child, spawn
from labkit.syscalls import unshare


class Alone(Exercise):
    """A command that is PID 1 and sees itself only."""

    name = "alone"
    title = "Be PID 1 and see only yourself"
    points = 3
    start = "Begin with the call that gives your *next child* a PID namespace, then make that child."
    hints = (
        (
            "Three things are needed, in this order: new namespaces, a child in them, and a `/proc` that the child "
            "mounts. Which of them must happen before the fork, and which after?"
        ),
        (
            "`unshare(CLONE_NEWPID | CLONE_NEWNS)`, then `os.fork()`. In the child: cut the propagation, mount a "
            "`proc` on `/proc`, and execute the command. See the cell above in which the leak was cured."
        ),
        (
            'In the child: `mount(None, "/", None, MS_REC | MS_PRIVATE)`, then `mount("proc", "/proc", "proc")`, then '
            "`os.execvp(command[0], command)`. In the parent: `os.waitpid(pid, 0)`."
        ),
    )
    because = (
        "`unshare` comes before the fork, since a PID namespace is for children. Everything else comes after it: a "
        "procfs shows the PID namespace of whoever mounts it, and the mount must be private before anything is mounted."
    )

    def check(self, alone: Callable[[list[str]], object]) -> Verdict:
        """Look for the command on the machine, then at its namespaces and at what its /proc lists."""
        require_procfs()
        command = ["sleep", str(self.draw_number(100_000, 999_999))]
        with StandIn() as town, town.spawn(alone, command, wait=False) as child:
            try:
                found = find_command(child, command, 4.0)
            except PermissionError as error:
                if error.errno == errno.EPERM and "'proc'" in str(error):
                    return _PROC_REFUSED
                raise
            if mistake := _mounts_of_the_host(town, child if found is None else None, found):
                return mistake
            if found is None:
                return NotYet(
                    f"No process executes `{' '.join(command)}`.",
                    "If an error is shown above, it happened in the forked process. Otherwise: which process should "
                    "call `os.execvp(command[0], command)`, and does it get there?",
                )
            return _number(town, child, found) or _view_of(found) or _alone(found)


#: Where the lab host's root is an ordinary user of the machine. Real root may mount it, and then it shows the machine.
_PROC_REFUSED = NotYet(
    "The kernel refused to mount a procfs: the process that tried is still in the lab host's PID namespace, which is "
    "the machine's, and you are not root of that one.",
    "A procfs shows the PID namespace of the process that mounts it. `unshare` left its caller where it was: which "
    "process is in the new namespace, and should mount?",
)


def _mounts_of_the_host(town: StandIn, child: Child | None, found: int | None) -> Verdict | None:
    """A mount that leaked, or propagation switched off in the wrong place."""
    if leaked := town.leaked():
        where = leaked[-1].mount_point
        pid = found if found is not None else child.pid if child else town.pid
        own = False
        with suppress(OSError):
            own = namespaces.inode(pid, "mnt") != namespaces.inode(town.pid, "mnt")
        if own:
            return NotYet(
                f"Your `{where}` leaked: the lab host has it too, although process {pid} has a mount namespace of its "
                "own.",
                "A new mount namespace begins as a copy, and a copy of a *shared* mount passes new mounts on to its "
                "peers. What must be changed in the copy before anything is mounted?",
            )
        return NotYet(
            f"Your `{where}` was mounted on the lab host itself: every process there now reads it.",
            "Mounts belong to a mount namespace, and none was made. Which flag makes one, and can `unshare` take two "
            "at once?",
        )
    if town.no_longer_shared():
        return NotYet(
            "The mounts of the lab host itself have been made private: nothing leaked, but the host is not as it was.",
            "Propagation was changed before there was a mount namespace to change it in. Which of the two calls comes "
            "first?",
        )
    return None


def _number(town: StandIn, child: Child, found: int) -> Verdict | None:
    """The command's place in PID namespaces."""
    pid_namespace = namespaces.inode(found, "pid")
    if pid_namespace == namespaces.inode(town.pid, "pid"):
        if found == child.pid and _children_go_elsewhere(found):
            return NotYet(
                f"The command is process {found}, inside and outside alike. It was executed by the very process that "
                "called `unshare`, and that one stays where it was.",
                "`unshare(CLONE_NEWPID)` is a promise for the next child. Who is the next child here?",
            )
        if _children_go_elsewhere(child.pid):
            return NotYet(
                f"The command is process {found} of pid:[{pid_namespace}], the lab host's. Its parent has a new PID "
                "namespace waiting for children, but the command's process had been forked before.",
                "Which comes first, the fork or the unshare?",
            )
        return NotYet(
            f"The command is process {found} of pid:[{pid_namespace}], the lab host's PID namespace.",
            "Nobody made a new PID namespace. Which flag does `unshare` need?",
        )
    inside = procfs.nspid(found)[-1]
    if inside != 1:
        return NotYet(
            f"The command is PID {inside} of its PID namespace, not PID 1.",
            "Somebody was born before it. The *first* child becomes PID 1: can that one execute the command itself?",
        )
    return None


def _children_go_elsewhere(pid: int) -> bool:
    """Whether the next child of `pid` would be in another PID namespace."""
    try:
        return procfs.namespace_inode(pid, "pid_for_children") != namespaces.inode(pid, "pid")
    except FileNotFoundError:
        return True  # the link leads nowhere until PID 1 of the new namespace is born


def _view_of(found: int) -> Verdict | None:
    """What the command's /proc shows."""
    listed = _numbers_in(found)
    expected = {procfs.nspid(pid)[-1] for pid in namespaces.members("pid", namespaces.inode(found, "pid"))}
    if listed == expected:
        if mounted(found, "/proc") == "proc":
            return None
        return NotYet(
            f"What is mounted on the command's `/proc` is no procfs: `{mounted(found, '/proc') or 'nothing'}`.",
            "Its numbers must be the kernel's. Which type does `mount` take for that?",
        )
    if not listed:
        return NotYet(
            "The command's `/proc` lists no process at all.",
            "It is not a procfs of the namespace it is in. Which process should mount it, and with which type?",
        )
    own = namespaces.inode(found, "mnt") != namespaces.inode(os.getpid(), "mnt")
    if own and _procs_mounted(found) > _procs_mounted(host.pid()):
        return NotYet(
            f"The command is PID 1, and a new procfs is mounted on its `/proc`, but that one lists {len(listed)} "
            "processes: those of the outer PID namespace.",
            "A procfs shows the PID namespace of the process that mounted it. Which process did, and in which "
            "namespace was it at that moment?",
        )
    return NotYet(
        f"The command is PID 1, but its `/proc` lists {len(listed)} processes: it is still the host's.",
        "`/proc` is a mount like any other, and yours was inherited. What must be mounted anew, and by whom?",
    )


def _procs_mounted(pid: int) -> int:
    """How many procfs lie on each other at a process's /proc: a machine that is itself a container may have two."""
    return sum(one.mount_point == "/proc" and one.filesystem == "proc" for one in procfs.mountinfo(pid))


def _numbers_in(pid: int) -> set[int]:
    return {int(entry) for entry in os.listdir(f"/proc/{pid}/root/proc") if entry.isdigit()}


def _alone(found: int) -> Passed:
    return Passed(
        f"Outside it is process {found}, inside PID 1 of {namespaces.label(found, 'pid')}; its `/proc` lists one "
        "process, and the lab host's `/proc` is as it was.",
        "What a process cannot name it cannot signal, trace or read: the numbers are the door.",
    )


class Init(Exercise):
    """PID 1 that reaps whatever falls to it."""

    name = "init"
    title = "Reap an orphan"
    points = 2
    start = "Begin by starting `command` in a child; then wait for whatever child ends."
    hints = (
        "PID 1 gets children that it never made. Which call waits for *any* child and says which one it was?",
        (
            "`os.wait()` returns `(pid, status)` of the next child that ended, your own or an orphan. Call it in a "
            "loop, and leave the loop at the right moment."
        ),
        "`while True: pid, status = os.wait()`, and `if pid == child: return os.waitstatus_to_exitcode(status)`.",
    )
    because = (
        "`os.wait()` takes any child that has ended. An orphan is forgotten and the loop goes on; when it is the "
        "command, its exit code is the answer. That is all that `docker run --init` adds (its program is called tini)."
    )

    def check(self, init: Callable[[list[str]], int]) -> Verdict:
        """Run it as PID 1 with a command that leaves orphans; look for zombies, then end the command."""
        orphans, base, number = self.draw_number(3, 7), self.draw_number(20, 80), self.random.choice(trapping.TRAPPED)
        # A subshell that ends at once leaves its child to PID 1. Then the shell waits for our signal.
        orphan = ["sleep", str(self.draw_number(100_000, 999_999))]
        make_orphans = f"for i in {'x ' * (orphans + 1)}; do ({' '.join(orphan)} &); done"
        command = ["sh", "-c", f"{make_orphans}; {trapping.script(base)}"]
        with spawn(as_pid_1, init, command, stay=False, wait=False) as child:
            return _is_an_init(child, command, orphan, orphans, (number, base + number))


def _is_an_init(child: Child, command: list[str], orphan: list[str], orphans: int, end: tuple[int, int]) -> Verdict:
    """`end` is the signal by which the command is to end, and with which exit code."""
    number, code = end
    running = _when_it_waits(child, command, 4.0)
    if running is None:
        value = _returned(child)
        return NotYet(
            f"`init()` returned {value!r} before the command had done anything."
            if child.value is not None
            else "The command was never started, or did not get far.",
            "PID 1 must start the command in a child, and stay for as long as it runs. When PID 1 ends, the kernel "
            "kills everything else in the namespace.",
        )
    with suppress(ProcessLookupError):
        os.kill(running, signal.SIGSTOP)  # should the shell itself be PID 1, it reaps nothing
    first = procfs.children(child.pid)
    if first and procfs.nspid(first[0])[-1] != 1:
        return NotYet("The process that runs `init()` is not PID 1 any more.", "It must stay where it was born.")
    zombies, left = _end_orphans(child, first[0], orphan, orphans) if first else ([], [])
    if child.answered(0.01):
        value = _returned(child)
        return NotYet(
            f"`init()` returned {value!r} while the command was still running, and all of the namespace died with it.",
            "`os.wait()` comes back with whichever child ended first, and that was an orphan. Whose end should you "
            "wait for, and what should happen to the others?",
        )
    if zombies:
        return NotYet(
            f"{len(zombies)} zombies are in the namespace. {orphans} processes lost their parent, fell to PID 1, "
            "and ended; nobody has asked for their exit status.",
            "You wait for one child only, or for none. PID 1 must wait for any child, also for those it never made.",
        )
    if not left:
        return NotYet(
            "PID 1 has no children, or not those that the command left to it.",
            "Start the command in a child of PID 1.",
        )
    with suppress(ProcessLookupError):
        os.kill(running, number)
        os.kill(running, signal.SIGCONT)
    deadline = time.monotonic() + pace.scaled(2.0)
    while not child.answered(0.01):
        if time.monotonic() > deadline:
            return NotYet(
                "The command has ended, and `init()` goes on waiting: an orphan that has nothing to do with the "
                "command still runs.",
                "PID 1 is there for its command. When that has ended, it may end too, and the kernel ends the rest. "
                "How do you notice that it was the command?",
            )
    value = _returned(child)
    if value != code:
        return NotYet(
            f"The command ended with exit code {code}, and `init()` returned {value!r}.",
            "`os.wait()` gives a *status*, which is not yet an exit code: `os.waitstatus_to_exitcode` takes it apart. "
            "And is it the status of the command, or of another child?",
        )
    return Passed(
        f"{orphans} orphans fell to PID 1 and were reaped; no zombie was left. The command's exit code {code} came "
        "back, and the orphan that still ran ended with the namespace.",
        "A container whose PID 1 does not do this fills up with zombies until no process can be started in it.",
    )


def _returned(child: Child) -> object:
    return child.value.value_or_raise() if child.value is not None else None


def _when_it_waits(child: Child, command: list[str], seconds: float) -> int | None:
    """The PID of `command` once it waits for its signal; None: it never does, or the function has returned first."""
    deadline = time.monotonic() + pace.scaled(seconds)
    while time.monotonic() < deadline and not child.answered(0.01):
        with suppress(ProcessLookupError):
            for pid in procfs.descendants(child.pid):
                if trapping.executes(pid, command) and trapping.traps_all(pid):
                    return pid
    return None


def _end_orphans(child: Child, pid_1: int, orphan: list[str], count: int) -> tuple[list[int], list[int]]:
    """End `count` of PID 1's adopted children; see `_settle`. Where there are fewer, wait for those that there are."""
    deadline = time.monotonic() + pace.scaled(3.0)
    adopted: list[int] = []
    while len(adopted) <= count and time.monotonic() < deadline and not child.answered(0.01):
        adopted = []
        with suppress(ProcessLookupError):
            for pid in procfs.children(pid_1):
                with suppress(ProcessLookupError):
                    if procfs.cmdline(pid) == orphan:
                        adopted.append(pid)
    if len(adopted) <= count:
        return [], []
    for pid in adopted[:count]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return _settle(pid_1)


def _settle(pid_1: int) -> tuple[list[int], list[int]]:
    """The zombies and the living among PID 1's children, once it has had the time to reap all orphans."""
    deadline = time.monotonic() + pace.scaled(1.5)
    zombies: list[int] = []
    left: list[int] = []
    while time.monotonic() < deadline:
        zombies, left = [], []
        with suppress(ProcessLookupError):
            for pid in procfs.children(pid_1):
                with suppress(ProcessLookupError):
                    (zombies if procfs.stat(pid)[2] == "Z" else left).append(pid)
        if not zombies and len(left) <= 2:  # the command and the orphan that lasts
            break
        time.sleep(0.02)
    return zombies, left


class Translate(Exercise):
    """From a PID inside to the PID outside."""

    name = "translate"
    title = "Translate a PID"
    points = 2
    start = "Begin by asking: where does the kernel write down all the numbers that one process has?"
    hints = (
        (
            "Two processes may both be PID 3, each in a namespace of its own. So you need two things of a process: the "
            "namespace it is in, and its number there."
        ),
        (
            "`namespaces.members(kind, inode)` lists the processes of a namespace, and the last of `procfs.nspid(pid)` "
            "is the innermost number. Or read the line `NSpid:` of `/proc/PID/status` yourself."
        ),
        (
            'For each `pid` in `namespaces.members("pid", namespaces.inode(pid_1, "pid"))`: if `procfs.nspid(pid)[-1] '
            "== "
            "inside`, return `pid`."
        ),
    )
    because = (
        "The kernel keeps one number for each level of PID namespaces, in `struct pid`. No arithmetic connects them: "
        "they must be looked up."
    )

    def check(self, translate: Callable[[int, int], int]) -> Verdict:
        """Two namespaces with the same numbers inside and gaps between them; ask for one process."""
        gaps = [self.draw_number(1, 4) for _ in range(4)]
        with (
            spawn(_first) as other,
            spawn(_first) as child,
            spawn(_pass_by, 1) as outside,
        ):
            twins = []
            for gap in gaps:  # used up inside and outside, so that the two counters run apart
                twins.append((child.call(_one_more, gap % 3), other.call(_one_more, gap % 3)))
                outside.call(_pass_by, gap)
            pid_1, (truth, twin) = child.value, self.random.choice(twins)
            inside = procfs.nspid(truth)[-1]
            try:
                answer = translate(pid_1, inside)
            except (PermissionError, ProcessLookupError, FileNotFoundError) as error:
                return NotYet(
                    f"`translate()` raised {type(error).__name__}: {error}.",
                    "Some processes are not yours to look into, and some end while you look. Neither is the one you "
                    "seek: pass over them.",
                )
            return _is_translation(answer, pid_1, inside, truth, twin)


def _is_translation(answer: object, pid_1: int, inside: int, truth: int, twin: int) -> Verdict:
    asked = f"PID {inside} in the namespace of process {pid_1}"
    if answer == truth:
        return Passed(
            f"{asked} is process {truth} outside: its line `NSpid` ends in `{inside}`.",
            "This is how `docker top` names the processes of a container, and how a debugger on the host finds the "
            "right one.",
        )
    if answer == inside:
        return NotYet(
            f"`translate({pid_1}, {inside})` returned {inside} itself: that is its number *inside*.",
            "Outside, that number belongs to another process, or to none. Which file lists all numbers of a process?",
        )
    if answer == twin:
        return NotYet(
            f"`translate({pid_1}, {inside})` returned {twin}. That one is PID {inside} too, but in another namespace, "
            f"{namespaces.label(twin, 'pid')}.",
            "A number inside means nothing without its namespace. How do you tell which namespace a process is in?",
        )
    if answer == pid_1 + inside - 1:
        return NotYet(
            f"`translate({pid_1}, {inside})` returned {answer}, which is {pid_1} + {inside} - 1; {asked} is another "
            "process.",
            "Outside and inside, numbers are given out independently: each namespace has a counter of its own. There "
            "is nothing to calculate; where can you look it up?",
        )
    return NotYet(
        f"`translate({pid_1}, {inside})` returned {answer!r}; {asked} is another process.",
        "Compare two things: the namespace (`/proc/PID/ns/pid`), and the last number in the line `NSpid:` of "
        "`/proc/PID/status`.",
    )


def _first() -> int:
    unshare(CLONE_NEWPID)
    return _sleeper()


def _one_more(passing: int) -> int:
    _pass_by(passing)
    return _sleeper()


def _pass_by(count: int) -> None:
    """Make processes that end at once, to use up PIDs."""
    for _ in range(count):
        if (pid := os.fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)


def _sleeper() -> int:
    pid = os.fork()
    while pid == 0:
        signal.pause()
    return pid
