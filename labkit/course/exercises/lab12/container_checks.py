"""What a whole container must be, read from outside: for lab 12."""

import os
import signal
from collections.abc import Callable
from typing import Any

from labkit import capabilities, cgroups, host, namespaces, procfs
from labkit.course.exercises.common.devices import DEVICES, look_into, wrong_dev
from labkit.course.exercises.common.left_behind import mounted
from labkit.course.exercises.common.mount_stand_in import StandIn, find_command
from labkit.course.exercises.common.old_root import trace_in_process
from labkit.course.experiments.overlay_scratch import marks
from labkit.course.framework import pace
from labkit.course.framework.outcomes import NotYet, Verdict
from labkit.process import Child, run_in_child

__all__ = ["DEVICES", "KEPT", "KINDS", "MARKS", "PROTECTED"]

#: The capabilities that a box of lab 12 keeps: those of lab 11.
KEPT = ("CHOWN", "DAC_OVERRIDE", "KILL", "NET_BIND_SERVICE", "SYS_CHROOT")
#: Below /proc, what a box may read and not write; what this kernel does not have is left out.
PROTECTED = tuple(name for name in ("sys", "sysrq-trigger") if os.path.exists(f"/proc/{name}"))
#: The namespaces that a box has of its own.
KINDS = ("uts", "ipc", "pid", "mnt", "net", "cgroup")
#: What the options of an overlay end with on this machine.
MARKS = marks()
SECONDS = 8.0


class Running:
    """A box that a function of the learner's runs: the process that called it, and the box's program, or None."""

    def __init__(self, town: StandIn, run: Callable[..., Any], command: list[str], *args: Any, **named: Any) -> None:
        self.command, self.town = command, town
        self.error: Exception | None = None  #: what the function raised before the program was there
        self.pid: int | None = None
        self.caller = town.spawn(_call, run, (command, *args), named, wait=False)
        try:
            self.pid = find_command(self.caller, command, SECONDS)
        except Exception as error:
            self.error = error

    def exit_code(self) -> Any:
        """What the function has returned once the box's program has ended; `NotYet` where it does not return."""
        if self.caller.value is not None:  # it has answered already
            return self.caller.value
        try:
            if self.caller.answered(pace.scaled(SECONDS)):
                return self.caller.value
        except Exception:
            if changed := host_touched(self.town, self.caller):
                return changed  # and that is why it raised
            raise
        return NotYet(
            "The box's program has ended, and your function has not returned.",
            "Who waits for whom? Each process waits for the child that it has forked, and for that one only.",
        )

    def kill(self) -> Any:
        """End the box's program by SIGKILL; what the function returned."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
        return self.exit_code()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.caller.kill()


def _call(run: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return run(*args, **named)


def not_started(box: Running, town: StandIn) -> Verdict | None:
    """What to say where the program did not start; None: it did. Raises what the function raised."""
    if box.pid is not None:
        return None
    if changed := host_touched(town, box.caller):
        return changed
    if box.error:
        raise box.error
    returned = box.caller.value
    if returned is not None:
        return NotYet(
            f"The command {' '.join(box.command)} was never executed; your function returned {returned!r}.",
            "127 says that a step has failed in the child. Print the error there: "
            "`except OSError as error: print(name, error)`. Which step is it?",
        )
    return NotYet(
        f"The command {' '.join(box.command)} was never executed.",
        "After the last step the child must become the program: `os.execve(command[0], command, {...})`. And who "
        "forks the child in the first place?",
    )


def host_touched(town: StandIn, caller: Child) -> Verdict | None:
    """What a box has changed outside."""
    if leaked := town.leaked():
        return NotYet(
            f"A mount of the box is on the lab host, too: `{leaked[0].mount_point}` ({leaked[0].filesystem}).",
            "It travelled there, or was made there. Which two steps must come before anything is mounted?",
        )
    if caller.alive and namespaces.inode(caller.pid, "uts") != namespaces.inode(town.pid, "uts"):
        return NotYet(
            f"Process {caller.pid}, which *called* your function, is in the box's namespaces itself.",
            "The steps belong in a child: `os.fork()` first. Who would be left to wait and to tidy up?",
        )
    return None


def wrong_box(box: Running, town: StandIn, hostname: str | None = None, workdir: str | None = None) -> Verdict | None:
    """Everything that makes the program's process a box, in the order of the labs; None: all is there."""
    pid = box.pid
    assert pid is not None
    for kind in KINDS:
        if namespaces.inode(pid, kind) == namespaces.inode(town.pid, kind):
            return NotYet(
                f"The program is in {kind}:[{namespaces.inode(pid, kind)}], the lab host's own {kind} namespace.",
                "`unshare(CLONE_NEWPID)` is for children that are made afterwards: which step makes one?"
                if kind == "pid"
                else "Which step gives the box six namespaces of its own?",
            )
    if procfs.nspid(pid)[-1] != 1 and not _one_above_is_init(pid):
        return NotYet(
            f"The program is process {procfs.nspid(pid)[-1]} of its PID namespace, and nobody of yours is number 1.",
            "The child that is forked right after `namespaces` is number 1.",
        )
    if changed := host_touched(town, box.caller):
        return changed
    with town.witness(pid) as witness:
        return (
            (_wrong_name(pid, hostname) if hostname else None)
            or _wrong_root(witness, town)
            or _wrong_inside(pid, witness, workdir)
            or _wrong_powers(pid)
        )


def _one_above_is_init(pid: int) -> bool:
    parent = int(procfs.stat(pid)[3])
    return parent > 0 and procfs.nspid(parent)[-1] == 1 and namespaces.same("pid", pid, parent)


def _wrong_name(pid: int, hostname: str) -> Verdict | None:
    name = namespaces.inside(pid, ("uts",), os.uname).nodename
    if name == hostname:
        return None
    return NotYet(f"The box is called `{name}`; `{hostname}` was asked for.", "Which step sets the name, and to what?")


def _wrong_root(witness: Child, town: StandIn) -> Verdict | None:
    mounts = procfs.mountinfo(witness.pid)
    places = town.places()
    devices = {(one.device, one.root) for one in mounts if one.mount_point.startswith("/dev/")}
    old = [one for one in mounts if (one.device, one.root) in places and (one.device, one.root) not in devices]
    if old:
        return NotYet(
            f"The old root is still there: `{old[0].mount_point}` and {len(old) - 1} more mounts of the lab host can "
            "be reached in the box.",
            "`chroot` leaves them where they are. Which step exchanges the root mount, and takes the old one away?",
        )
    top = next((one for one in mounts if one.mount_point == "/"), None)
    if top is None or top.filesystem != "overlay":
        return NotYet(
            f"The box's root is of the type {top.filesystem if top else 'none'}: what it writes goes into the image.",
            "Which step puts a layer of the box's own above the image?",
        )
    return None


def _wrong_inside(pid: int, witness: Child, workdir: str | None) -> Verdict | None:
    found = run_in_child(look_into, f"/proc/{pid}/root")
    if mistake := wrong_dev(found["dev"]):
        return mistake
    expected = {str(procfs.nspid(one)[-1]) for one in namespaces.members("pid", namespaces.inode(pid, "pid"))}
    if set(found["proc"]) != expected or mounted(witness.pid, "/proc") != "proc":
        return NotYet(
            f"The box's `/proc` lists {len(found['proc'])} processes; in its PID namespace there "
            f"{'is 1' if len(expected) == 1 else f'are {len(expected)}'}.",
            "A procfs shows the PID namespace of the process that mounts it. Which step comes before `furnish`?",
        )
    readonly = {one.mount_point for one in procfs.mountinfo(witness.pid) if one.is_readonly}
    if open_ := [name for name in PROTECTED if not {f"/proc/{name}", "/proc"} & readonly]:
        return NotYet(
            f"The box may write to `/proc/{open_[0]}`, which are the whole machine's settings.",
            "`furnish` makes it read-only. Is that step done as it was given?",
        )
    if mistake := trace_in_process(pid):
        return mistake
    if extra := sorted(int(number) for number in os.listdir(f"/proc/{pid}/fd") if int(number) > 2):
        return NotYet(
            f"Descriptor {extra[0]} is open in the box, on {os.readlink(f'/proc/{pid}/fd/{extra[0]}')}.",
            "What is not passed on purpose is closed: `close`, or `close_range(3)`.",
        )
    here = os.readlink(f"/proc/{pid}/cwd")
    if workdir is not None and here != workdir:
        return NotYet(
            f"The program's working directory is `{here}`; `{workdir}` was asked for.",
            "Which step sets it, and which step after it may have changed it again?",
        )
    return None


def _wrong_powers(pid: int) -> Verdict | None:
    sets, status = capabilities.of(pid), procfs.status(pid)
    for name in ("bounding", "permitted", "effective"):
        held, kept = set(getattr(sets, name)), set(KEPT)
        if more := sorted(held - kept):
            return NotYet(
                f"The program's {name} set has {len(held)} capabilities, among them {more[0]}, which is not in KEPT.",
                "What is not given up is there. Which step takes all but KEPT away, and is it done?",
            )
        if less := sorted(kept - held):
            return NotYet(f"{less[0]} is in KEPT, and not in the program's {name} set.", "Give up no more than asked.")
    for name in ("inheritable", "ambient"):
        if held := getattr(sets, name):
            return NotYet(
                f"The program's {name} set has {held[0]}: it is handed on to programs that are executed.",
                "It is to be empty: lab 11.",
            )
    if status["NoNewPrivs"] != "1":
        return NotYet(
            "no_new_privs is 0: a setuid program in the image may gain privilege.",
            "One `prctl` promises otherwise: lab 11.",
        )
    if status["Seccomp"] != "2":
        return NotYet("No filter is on the program (Seccomp: 0).", "Which step puts it on, last of all?")
    return None


def limits_to_ask(pids_max: int) -> dict[str, str]:
    """The limits for a check: none where the machine has no control groups to give."""
    return {} if cgroups.unsupported() else {"pids.max": str(pids_max), "memory.max": str(64 << 20)}


def wrong_limits(pid: int, limits: dict[str, str]) -> Verdict | None:
    """Whether the process is in a group that has exactly these limits."""
    if not limits:
        return None
    place, found = run_in_child(_limits_of, pid, tuple(limits))
    if place in ("/", "/host"):
        return NotYet(
            "The box is in the lab host's own control group: its limits are nobody's.",
            "A process must join the group: the step `group`. And `begin` makes the group: is it called?",
        )
    for file, text in limits.items():
        if found[file] != text:
            return NotYet(
                f"`{file}` of the box's group says {found[file]!r}, and {text!r} was asked for.",
                "Which helper writes the limits? Was it given them?",
            )
    return None


def _limits_of(pid: int, files: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    with open(f"/proc/{pid}/cgroup") as file:
        place = file.read().splitlines()[-1].removeprefix("0::")
    found = {}
    for name in files:
        try:
            with open(f"/sys/fs/cgroup{place}/{name}") as file:
                found[name] = file.read().strip()
        except FileNotFoundError:
            found[name] = "nothing"
    return place, found


def groups() -> set[str]:
    """The control groups right below the lab host's; none where it has no group."""
    if cgroups.unsupported():
        return set()
    top = host.current().group
    return {entry.name for entry in os.scandir(top) if entry.is_dir()}
