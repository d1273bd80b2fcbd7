"""Starting a container: the one list of system calls, in the only order, and running it. In the zygote.

::

    caller                 zygote                      child, PID 1 of its namespaces
      ── request ──────▶   write the program
                           clone3(NEWPID, ...) ─────▶  session, network namespace, output,
                           (sleeps)                    root filesystem, host name, descriptors,
                                                       working directory, capabilities,
                           ◀─────────────────────────  execve: started; or the call that failed
      ◀── P, pidfd ───     or F, step and errno
      ◀── X, status ──     wait4

Why this order: the network namespace comes before /sys, which shows the network of whoever mounts it. Mounts come
before capabilities are given up, since mounting takes them. Descriptors are closed before the working directory is
chosen, or /proc/self/fd/N could name one that leads outside (CVE-2024-21626).
"""

import marshal
import os
import signal
import struct

from labkit import capabilities, rootfs, zygote
from labkit import constants as c
from labkit.program import CallFailed, Program, Value
from labkit.zygote import Started

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAMESPACES = c.CLONE_NEWNS | c.CLONE_NEWUTS | c.CLONE_NEWIPC | c.CLONE_NEWPID | c.CLONE_NEWCGROUP
EXECUTING = "executing the command"
CHANGING_DIRECTORY = "changing to the working directory"
_LAST_DESCRIPTOR = 0xFFFFFFFF
_KEPT_PROGRAMS = 64

_written: "dict[bytes, Written]" = {}


class Written:
    """A program with its parameters: the descriptors, which differ from one run to the next."""

    def __init__(self, message: "tuple[Any, ...]", own_network: bool) -> None:
        args, root, hostname, env, cwd, readonly, kept, plan = message
        self.network = Value("network")
        self.output = (Value("stdout"), Value("stderr"))
        program = self.program = Program()
        program.step("beginning a session")
        # Should the zygote die, so does this child, and as PID 1 it takes all processes of its namespace along.
        program.call("prctl", c.PR_SET_PDEATHSIG, signal.SIGKILL.value, 0, 0, 0)
        program.call("setsid")
        for number, value in enumerate(self.output, start=1):
            program.call("dup3", value, number, 0)  # 0 is the zygote's own: /dev/null
        if own_network:
            _write_loopback(program)
        else:
            program.step("joining a network namespace")
            program.call("setns", self.network, c.CLONE_NEWNET)
        rootfs.write_entry(program, root, plan, readonly)
        program.step("setting the host name")
        program.call("sethostname", hostname, len(os.fsencode(hostname)))
        program.step("closing descriptors")
        program.call("close_range", 3, _LAST_DESCRIPTOR, 0)
        program.step(CHANGING_DIRECTORY)
        program.call("chdir", cwd)
        capabilities.write_keep_only(program, kept)
        program.step(EXECUTING)
        variables = tuple(f"{name}={value}" for name, value in env.items())
        # execve(2) does not search; where a candidate is not there, or may not be executed, the next one is tried.
        candidates = _candidates(args[0], env)
        for candidate in candidates[:-1]:
            program.call("execve", candidate, args, variables, may_fail=True)
        program.call("execve", candidates[-1], args, variables)


def start(argument: "Any", fds: list[int]) -> Started:
    """Start the command of `argument` (`Config.message()`) in a new container; return it.

    `fds` are its stdout and stderr. Returns when execve(2) has succeeded. `CallFailed` says what did not.
    """
    network = zygote.ready_networks.take() if zygote.ready_networks else None
    try:
        written = _written_for(argument, network is None)
        flags = NAMESPACES | (c.CLONE_NEWNET if network is None else 0)
        parameters = [*zip(written.output, fds, strict=True), (written.network, network or 0)]
        try:
            # PID 1 of a PID namespace takes all of its processes along, so nothing of its session can be left.
            return Started(*written.program.spawn(flags, parameters), leaves_orphans=False)
        except CallFailed as failed:
            raise _most_telling(written.program, failed) from None
    finally:
        if network is not None:
            os.close(network)


def _written_for(message: "tuple[Any, ...]", own_network: bool) -> Written:
    """The program for `message`, written now or kept from the last time the same was asked for."""
    key = marshal.dumps((message, own_network))
    written = _written.get(key)
    if written is None:
        if len(_written) >= _KEPT_PROGRAMS:
            del _written[next(iter(_written))]  # the oldest
        written = _written[key] = Written(message, own_network)
    return written


def _candidates(command: str, env: dict[str, str]) -> list[str]:
    """Where the command may be: itself, if it has a slash, else in each folder of the container's own PATH."""
    if "/" in command:
        return [command]
    return [f"{folder or '.'}/{command}" for folder in env.get("PATH", os.defpath).split(":")]


def _most_telling(program: Program, failed: CallFailed) -> CallFailed:
    """Of several execve calls that failed, one that found something (EACCES, say) tells more than a last ENOENT."""
    if failed.call.name == "execve":
        for call, result in program.results():
            if call.name == "execve" and -result not in (2, 20):  # ENOENT, ENOTDIR
                return CallFailed(-result, call)
    return failed


def _write_loopback(program: Program) -> None:
    program.step("bringing up the loopback interface")
    fd = program.call("socket", 2, 2 | os.O_CLOEXEC, 0, returns="socket")  # AF_INET, SOCK_DGRAM
    program.call("ioctl", fd, 0x8914, struct.pack("=16sh22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
