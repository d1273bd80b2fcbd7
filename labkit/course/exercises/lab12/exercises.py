"""The exercises of lab 12: twelve steps in order, a container of one's own, a pod."""

import os
import signal
from collections.abc import Callable
from typing import Any

from labkit import namespaces, procfs, rootfs, syscalls, temporary
from labkit.constants import CLONE_NEWNET
from labkit.course.exercises.common import hostname
from labkit.course.exercises.common.mount_stand_in import StandIn, find_command, require_procfs
from labkit.course.exercises.common.trapping import TRAPPED, script, traps_all
from labkit.course.exercises.lab12.container_checks import (
    KINDS,
    SECONDS,
    Running,
    groups,
    host_touched,
    limits_to_ask,
    not_started,
    wrong_box,
    wrong_limits,
)
from labkit.course.exercises.lab12.step_order import CONSEQUENCES, GIVEN_AWAY, how, wrong_order, wrong_reasons
from labkit.course.framework import pace
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet, Passed, Verdict

_PATH = {"PATH": "/bin:/sbin:/usr/bin:/usr/sbin"}


def _image() -> str:
    return str(rootfs.find("busybox"))


class Order(Exercise):
    """Twelve steps in order, and three of the choices defended."""

    name = "order"
    title = "Put the steps in order, and defend three choices"
    points = 2
    start = "Begin with the last: after which step can nothing else of the twelve be done?"
    seconds = 40.0
    hints = (
        (
            "Ask of each step what it takes (the host's files? root's powers? a descriptor?), and which step takes "
            "just that away."
        ),
        (
            "Nothing may be mounted before the mounts are the box's own (`namespaces`) and private. `/proc` belongs to "
            "PID 1. The host's `/dev` is gone after `pivot`. A working directory is a path that a stranger has chosen. "
            "And the powers go last."
        ),
        (
            "group, namespaces, fork, hostname, private, root, furnish, pivot, close, workdir, powers, filter. To "
            "defend: `(private, root)` is a *leak*, `(fork, furnish)` shows *processes*, `(close, workdir)` is a "
            "*door*."
        ),
    )
    because = (
        "There are several right orders: `hostname` has its place anywhere between `namespaces` and `powers`, and "
        "`powers` and `filter` may change places, since both only give up. All of them have the same shape: apart from "
        "the host, build, move in, shut the doors, give up."
    )

    def check(self, order: Any, why: Any, box: type, steps: dict[str, Callable[[Any], object]]) -> Verdict:
        """By the rules; then a box is built in that order, and looked at from outside."""
        if mistake := wrong_order(order) or wrong_reasons(why):
            return mistake
        require_procfs()
        name, command = self.draw_name(), ["/bin/sleep", str(self.draw_number(1000, 9000))]
        with (
            temporary.Folder() as home,  # not the child's own: it is killed
            StandIn() as town,
            Running(town, _in_order, command, list(order), box, steps, name, home) as running,
        ):
            if mistake := not_started(running, town) or wrong_box(running, town, name, "/tmp"):
                return mistake
            running.kill()
            if changed := host_touched(town, running.caller):
                return changed
        defended = [pair for pair in why if pair != GIVEN_AWAY]
        first = defended[0]
        return Passed(
            f"A box was built in your order, and its program was `{name}`'s PID 1: in six namespaces of its own, with "
            "no trace of the old root, five capabilities, no_new_privs and a filter.",
            f"{len(defended)} choices are defended. Had `{first[0]}` and `{first[1]}` changed places: "
            f"{CONSEQUENCES[why[first]]}. {how(first)}",
        )


def _in_order(
    command: list[str],
    order: list[str],
    box: type,
    steps: dict[str, Callable[[Any], object]],
    hostname: str,
    home: str,
) -> int:
    """In a child: build a box in `order` by the lab's own steps. A descriptor is left open, as they happen to be."""
    pid = os.fork()
    if pid == 0:
        try:
            os.open("/", os.O_RDONLY | os.O_DIRECTORY)
            one = box(command, _image(), hostname=hostname, workdir="/tmp")
            one.home = home
            for name in order:
                steps[name](one)
            os.execve(command[0], command, _PATH)
        finally:
            os._exit(127)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Run(Exercise):
    """A container of one's own."""

    name = "run"
    title = "Your own run"
    points = 3
    start = (
        "Begin with the shape of lab 07's `box`: fork; in the child the steps and `os.execve`, in the parent "
        "`exit_code_of`."
    )
    seconds = 40.0
    hints = (
        (
            "Two processes: the caller, which begins, waits and ends; and the child, "
            "which takes the twelve steps and becomes the program. What must the child do when a step fails?"
        ),
        (
            "`begin(box)` first; then `try: ... finally: end(box)` around the rest, so that it is done in every case. "
            "In the child `try: ... finally: os._exit(127)`."
        ),
        (
            "In the child: `for name in (...): STEPS[name](box)`, then `os.execve(command[0], command, "
            '{"PATH": "/bin:/sbin:/usr/bin:/usr/sbin"})`. In the parent: `return exit_code_of(pid)`.'
        ),
    )
    because = (
        "The caller never enters a namespace, so it can wait and tidy up whatever becomes of the child. "
        "`finally: os._exit(127)` is reached only where a step or execve has failed: a child that returned would be a "
        "second copy of the caller."
    )

    def check(self, run: Callable[..., Any]) -> Verdict:
        """Run a program and look at it from outside; then look at how boxes end."""
        require_procfs()
        with StandIn() as town:
            before = groups()
            return (
                self._look(town, run)
                or self._exit_codes(town, run)
                or self._told_apart(town, run)
                or self._joins(town, run)
                or _nothing_left(before)
                or Passed(
                    "Your box has six namespaces of its own, a root on layers with no trace of the old, exactly the "
                    "five capabilities, no_new_privs and a filter, and its limits where this machine has them; it "
                    "joined a network that was given; it passed on exit codes, a signal and a command that does not "
                    "exist, and left nothing behind.",
                    "This is what an engine calls a runtime: a function from a configuration to a process, and back to "
                    "an exit code.",
                )
            )

    def _look(self, town: StandIn, run: Callable[..., Any]) -> Verdict | None:
        command, name = ["/bin/sleep", str(self.draw_number(1000, 9000))], self.draw_name()
        limits = limits_to_ask(self.draw_number(20, 60))
        with Running(town, run, command, _image(), hostname=name, limits=limits, workdir="/tmp") as box:
            if mistake := not_started(box, town) or wrong_box(box, town, name, "/tmp"):
                return mistake
            assert box.pid
            if mistake := wrong_limits(box.pid, limits):
                return mistake
            returned = box.kill()
            if isinstance(returned, NotYet):
                return returned
            return host_touched(town, box.caller) or (None if returned == 137 else _wrong_signal(returned))

    def _exit_codes(self, town: StandIn, run: Callable[..., Any]) -> Verdict | None:
        code = self.draw_number(3, 99)
        for command, wanted in ((["/bin/sh", "-c", f"exit {code}"], code), (["/bin/none-such"], 127)):
            with town.spawn(run, command, _image(), wait=False) as caller:
                if not caller.answered(pace.scaled(8)):
                    return NotYet(
                        f"The box of `{' '.join(command)}` has not ended after {pace.scaled(8):.3g} seconds.",
                        "Which process still waits, and for whom?",
                    )
                if caller.value != wanted:
                    return _wrong_code(command, caller.value, wanted)
        return None

    def _told_apart(self, town: StandIn, run: Callable[..., Any]) -> Verdict | None:
        """A program whose exit code nothing says but its end: it depends on a signal that is drawn while it runs."""
        for _ in range(2):
            base, number = self.draw_number(20, 80), self.random.choice(TRAPPED)
            command = _trapping(base)
            with Running(town, run, command, _image()) as box:
                if mistake := not_started(box, town):
                    return mistake
                assert box.pid
                pid = box.pid
                if not hostname.until(lambda pid=pid: traps_all(pid), SECONDS):  # type: ignore[misc]
                    return NotYet("A shell in the box did not come to its second line.", "Is it stopped, or waiting?")
                os.kill(box.pid, number)
                returned = box.exit_code()
                if isinstance(returned, NotYet):
                    return returned
                if returned != base + number:
                    return _wrong_code(["/bin/sh", "-c", "..."], returned, base + number)
        return None

    def _joins(self, town: StandIn, run: Callable[..., Any]) -> Verdict | None:
        command = ["/bin/sleep", str(self.draw_number(1000, 9000))]
        with town.spawn(os.getpid) as owner:
            owner.call(_new_network)
            with Running(town, _with_network, command, run, owner.pid) as box:
                if mistake := not_started(box, town):
                    return mistake
                assert box.pid
                if not namespaces.same("net", box.pid, owner.pid):
                    return NotYet(
                        "A network namespace was given by its descriptor, and the box is in another one.",
                        "`Box` has an argument `network`; was yours passed on? And is it joined before it is closed?",
                    )
                box.kill()
        return None


def _trapping(base: int) -> list[str]:
    return ["/bin/sh", "-c", script(base)]


def _with_network(command: list[str], run: Callable[..., Any], owner: int) -> Any:
    fd = os.open(f"/proc/{owner}/ns/net", os.O_RDONLY)
    return run(command, _image(), network=fd)


def _new_network() -> None:
    syscalls.unshare(CLONE_NEWNET)
    syscalls.set_interface_up("lo")


def _wrong_signal(returned: Any) -> NotYet:
    said = f"The program was ended by signal 9, and your function returned {returned!r}; 137 was asked for."
    if returned == 247:
        return NotYet(
            said, "247 is -9 in one byte. Somewhere a negative exit code goes through `os._exit`: `exit_code_of`?"
        )
    if returned == -9:
        return NotYet(said, "Python's way to say it is -9. A shell's, and the exercise's, is 128 + 9: `exit_code_of`.")
    if returned in (9, 137 << 8):
        return NotYet(said, "That is the raw status of wait(2): `exit_code_of` reads it.")
    if returned is None:
        return NotYet(said, "Does it `return` what `exit_code_of` gives?")
    return NotYet(said, "The process between you and PID 1 passes the code on: what did it get, and what does it give?")


def _wrong_code(command: list[str], returned: Any, wanted: int) -> NotYet:
    said = f"The box of `{' '.join(command)}` gave {returned!r}; {wanted} was expected."
    if returned is None:
        return NotYet(said, "Does it `return` what `exit_code_of` gives?")
    if returned == wanted << 8:
        return NotYet(said, "That is the raw status of wait(2): `os.waitstatus_to_exitcode` reads it.")
    if command[0] == "/bin/none-such":
        return NotYet(
            said,
            "There is no such program in the image, so `os.execve` raises an error in the child. Where does that lead? "
            "A `finally: os._exit(127)` ends the child in every case.",
        )
    return NotYet(said, "Where does the program's exit code get lost on the way?")


def _nothing_left(before: set[str]) -> NotYet | None:
    if left := sorted(groups() - before):
        return NotYet(
            f"The box has ended, and its control group `{left[0]}` is still there.",
            "`end(box)` belongs into a `finally`, so that it is done however the box ended.",
        )
    return None


class Pod(Exercise):
    """Two boxes that share a network, and nothing else."""

    name = "pod"
    title = "A pod"
    points = 3
    start = "Begin with the network: who makes the namespace, and who holds it while the two boxes come and go?"
    seconds = 30.0
    hints = (
        (
            "A network namespace lives as long as somebody is in it, or has a descriptor of it. Your function's own "
            "process may be that somebody."
        ),
        (
            '`unshare(CLONE_NEWNET)` and `set_interface_up("lo")` in your own process; a descriptor of it is '
            '`os.open("/proc/self/ns/net", os.O_RDONLY)`. `run` waits for the end of its box, so each of the two needs '
            "a process that calls it."
        ),
        (
            "For each command: `pid = os.fork()`, in the child `os._exit(run(command, image, network=network))`; then "
            "`[exit_code_of(pid) for pid in pids]`."
        ),
    )
    because = (
        "In Kubernetes a tiny program called *pause* does nothing but be in the network namespace, so that containers "
        "of the pod can end and begin again and keep their address. Here the calling process is it."
    )

    def check(self, pod: Callable[..., Any]) -> Verdict:
        """Two programs that sleep, seen from outside; that they reach each other; and their exit codes."""
        require_procfs()
        one, two = (["/bin/sleep", str(self.draw_number(low, low + 999))] for low in (1000, 3000))
        with StandIn() as town, town.spawn(pod, one, two, _image(), wait=False) as caller:
            pids = [find_command(caller, command, 10) for command in (one, two)]
            if mistake := _not_both(pids, caller):
                return mistake
            first, second = (pid for pid in pids if pid is not None)
            if mistake := _shared(first, second, town.pid):
                return mistake
            if namespaces.inside(first, ("net",), _loopback_is_down):
                return NotYet(
                    "The two share a network, and its loopback is down: nobody reaches anybody at 127.0.0.1.",
                    'Whoever makes the network brings it up: `set_interface_up("lo")`.',
                )
            os.kill(first, signal.SIGKILL)
            os.kill(second, signal.SIGTERM)  # PID 1 does not mind
            os.kill(second, signal.SIGKILL)
            if not caller.answered(pace.scaled(8)):
                return NotYet(
                    "Both programs have ended, and your function has not returned.",
                    "Whom does it wait for? For each child that it has forked, once.",
                )
            if caller.value != [137, 137]:
                return NotYet(
                    f"Both programs were ended by SIGKILL, and your function returned {caller.value!r}; [137, 137] was "
                    "expected.",
                    "A list of both exit codes is asked for, as `run` gives them.",
                )
            if changed := host_touched(town, caller):
                return changed
        return self._told_apart(pod) or Passed(
            f"Process {first} and process {second} ran at the same time, in one network and apart in everything else: "
            "names, processes, mounts, IPC and groups.",
            "A pod is not a thing in the kernel. It is an agreement on who shares which namespace.",
        )

    def _told_apart(self, pod: Callable[..., Any]) -> Verdict | None:
        """Two programs whose exit codes nothing says but their ends: see `Run`."""
        bases, numbers = (20, 120), [self.random.choice(TRAPPED) for _ in range(2)]
        commands = [_trapping(base) for base in bases]
        with StandIn() as town, town.spawn(pod, *commands, _image(), wait=False) as caller:
            pids = [find_command(caller, command, 10) for command in commands]
            if mistake := _not_both(pids, caller):
                return mistake
            for pid, number in zip(pids, numbers, strict=True):
                assert pid is not None
                if not hostname.until(lambda pid=pid: traps_all(pid), SECONDS):  # type: ignore[misc]
                    return NotYet("A shell in a box did not come to its second line.", "Is it stopped, or waiting?")
                os.kill(pid, number)
            wanted = [base + number for base, number in zip(bases, numbers, strict=True)]
            if not caller.answered(pace.scaled(8)) or caller.value != wanted:
                return NotYet(
                    f"Two programs ended with {wanted[0]} and {wanted[1]}; your function returned {caller.value!r}.",
                    "A list of both exit codes is asked for, in the order of the commands, as `run` gives them.",
                )
        return None


def _not_both(pids: list[int | None], caller: Any) -> NotYet | None:
    if None not in pids:
        return None
    if pids == [None, None]:
        value = caller.value if caller.answered() else None
        return NotYet(
            "Neither of the two programs was executed"
            + (f"; your function returned {value!r}." if value is not None else "."),
            "Is the descriptor of the network still open when `run` joins it, and is it one of a *network* namespace?",
        )
    which = "second" if pids[0] else "first"
    return NotYet(
        f"The {which} program was not there while the other ran.",
        "`run` returns when its box has ended: two calls one after the other are two boxes one after the other. Who "
        "else could call it?",
    )


def _shared(first: int, second: int, host_pid: int) -> NotYet | None:
    if namespaces.same("net", first, host_pid):
        return NotYet(
            f"Both are in net:[{namespaces.inode(first, 'net')}]: that is the lab host's own network.",
            "It is shared by everybody there. Make a new one for the two.",
        )
    if not namespaces.same("net", first, second):
        return NotYet(
            "Each of the two has a network of its own: "
            f"net:[{namespaces.inode(first, 'net')}] and net:[{namespaces.inode(second, 'net')}].",
            "`run` makes a new one unless it is given one: `network=`, a descriptor.",
        )
    for kind in KINDS:
        if kind != "net" and namespaces.same(kind, first, second):
            return NotYet(
                f"They share more than a network: both are in {kind}:[{namespaces.inode(first, kind)}].",
                "Each is to be in a box of its own: one call of `run` for each.",
            )
    if procfs.nspid(first)[-1] != 1 or procfs.nspid(second)[-1] != 1:
        return NotYet("One of the two is not PID 1 of its box.", "One call of `run` for each.")
    return None


def _loopback_is_down() -> bool:
    """Whether a connection to 127.0.0.1 finds no way there. (Refused is fine: there is a way, and nobody listens.)"""
    import errno
    import socket

    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", 9)) == errno.ENETUNREACH
