"""seccomp: which system calls a process may make, decided by a filter that it can never take off again.

A `Profile` says it in OCI's words; libseccomp makes a program in BPF of it, which the kernel runs before every system
call of the process and of its children. The program is bytes: compiled once, then written into as many containers as
are started.

What the profile refuses by default, yet nobody knew when it was written, must not look like a refusal: a libc that is
told ENOSYS for a new system call uses an old one, and one that is told EPERM gives up. So where the default is an
errno, numbers that libseccomp has not heard of get ENOSYS, by a few instructions put before the program.

Sources: seccomp(2), OCI config-linux.md "Seccomp".
"""

import marshal
import os
import zlib
from contextlib import suppress

from labkit import bpf, libseccomp
from labkit import constants as c
from labkit.files import state_folder
from labkit.program import Block, Program
from labkit.seccomp.profile import ACTIONS, OPERATORS, Arg, Profile, action_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_ENOSYS = 38


def default_profile(capabilities: "Iterable[str]") -> Profile:
    """Docker's decisions for a container that keeps `capabilities` (`labkit.seccomp.default`)."""
    from labkit.seccomp import default as seccomp_default

    return seccomp_default.default_profile(capabilities)


_compiled: "dict[Profile, bytes]" = {}


def compile_profile(profile: Profile) -> bytes:
    """The program in BPF that decides as `profile` says. `Unsupported`: libseccomp is not installed.

    Compiling takes longer than starting a container, so what was compiled is kept: here, and in a file for the next
    process.
    """
    if profile not in _compiled:
        # What the program depends on: the profile, what this libseccomp knows, and this module.
        known = (libseccomp.version(), len(libseccomp.known(libseccomp.native())))
        key = repr((profile, os.uname().machine, *known, os.stat(__file__).st_mtime_ns))
        file = os.path.join(state_folder.state_folder(), "seccomp", f"{zlib.crc32(key.encode()):08x}")
        _compiled[profile] = _read(file, key) or _write(file, key, _compile(profile))
    return _compiled[profile]


def _read(file: str, key: str) -> "bytes | None":
    with suppress(OSError, ValueError, EOFError, TypeError):
        with open(file, "rb") as kept:
            found, code = marshal.loads(kept.read())
        if found == key and isinstance(code, bytes):
            return code
    return None


def _write(file: str, key: str, code: bytes) -> bytes:
    with suppress(OSError):
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(f"{file}.{os.getpid()}", "wb") as kept:
            kept.write(marshal.dumps((key, code)))
        os.rename(kept.name, file)
    return code


def _compile(profile: Profile) -> bytes:
    default = action_number(profile.default_action, profile.default_errno_ret)
    # Who calls by an architecture that no rule is about must not get past the rules by that.
    refuses = profile.default_action not in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
    tokens = {libseccomp.native(): None, **{libseccomp.TOKENS[name]: None for name in profile.architectures}}
    with libseccomp.Filter(default, default if refuses else ACTIONS["SCMP_ACT_KILL_PROCESS"], tokens) as filter_:
        for rule in profile.syscalls:
            action = action_number(rule.action, rule.errno_ret)
            if action == default:
                continue  # libseccomp does not take a rule that changes nothing
            for name in rule.names:
                number = libseccomp.number(name, libseccomp.native())
                if number is not None:
                    for comparisons in _alternatives(rule.args):
                        filter_.rule(action, number, comparisons)
        program = filter_.export()
    if refuses and libseccomp.TOKENS["SCMP_ARCH_X86"] in tokens and _socketcall_is_a_way_round(profile):
        program = _no_socket_by_socketcall() + program
    if profile.default_action == "SCMP_ACT_ERRNO" and default != ACTIONS["SCMP_ACT_ERRNO"] | _ENOSYS:
        return _unknown_is_enosys({token: list(libseccomp.known(token)) for token in tokens}) + program
    return program


def _alternatives(args: "tuple[Arg, ...]") -> "list[tuple[tuple[int, int, int, int], ...]]":
    """The comparisons, each with libseccomp's number for its operator.

    All must hold, unless two are about the same argument: then any one is enough, as runc has always understood it.
    """
    comparisons = [
        (arg.index, 1 + OPERATORS.index(arg.op.removeprefix("SCMP_CMP_")), arg.value, arg.value_two) for arg in args
    ]
    if len({arg.index for arg in args}) < len(args):
        return [(comparison,) for comparison in comparisons]
    return [tuple(comparisons)]


def _socketcall_is_a_way_round(profile: Profile) -> bool:
    """Whether the profile asks for a certain kind of socket, and does not allow socketcall(2) itself."""
    conditional = any(rule.args for rule in profile.syscalls if "socket" in rule.names)
    return conditional and not any("socketcall" in rule.names for rule in profile.syscalls)


def _no_socket_by_socketcall() -> bytes:
    """Instructions to go before a program: a 32-bit x86 program makes no socket by socketcall(2).

    What kind it would be lies in memory, where no filter can look, and libseccomp allows all kinds for each rule that
    allows one.
    """
    lines = ["ld [arch]", f"jeq #{bpf.ARCHITECTURES['i386']}, i386, end", "i386: ld [nr]", "jeq #102, bundle, end"]
    lines += ["bundle: ld [arg0]", "jeq #1, refused, end", "refused: ret errno #EPERM", "end: ret allow"]
    return bpf.assemble("\n".join(lines))[: -bpf.INSTRUCTION.size]


def _unknown_is_enosys(known: "dict[int, list[int]]") -> bytes:
    """Instructions to go before a program: ENOSYS for every number outside `known`, by architecture.

    Calls of x32 are calls of x86-64 with a bit set. Where nobody asked for them they do not exist, as on most kernels.
    """
    x32 = libseccomp.TOKENS["SCMP_ARCH_X32"]
    lines = ["ld [arch]", *(f"jeq #{token}, {token}" for token in known if token != x32), "jmp end"]
    for token, numbers in known.items():
        lines += [f"{token}: and #{bpf.X32_BIT - 1}"] if token == x32 else [f"{token}: ld [nr]"]
        if token == bpf.ARCHITECTURES["x86_64"]:
            lines += [f"jge #{bpf.X32_BIT}, {x32 if x32 in known else 'enosys'}"]
        lines += [f"jgt #{numbers[-1]}, enosys"]
        gaps = [(low + 1, high - 1) for low, high in zip([-1, *numbers], numbers, strict=False) if high > low + 1]
        if gaps:
            # The calls that are made most have low numbers, before the first gap.
            lines += [f"jge #{gaps[0][0]}, {token}-gaps", "jmp end", f"{token}-gaps:"]
        for first, last in reversed(gaps):
            lines += [f"jgt #{last}, end", f"jge #{first}, enosys"]
        lines += ["jmp end"]
    # What is put behind takes the place of the last instruction.
    return bpf.assemble("\n".join([*lines, "enosys: ret errno #ENOSYS", "end: ret allow"]))[: -bpf.INSTRUCTION.size]


def available() -> bool:
    """Whether this kernel has filters."""
    return os.path.exists("/proc/sys/kernel/seccomp/actions_avail")


def write(program: Program, code: bytes) -> None:
    """Add the system call that puts the filter `code` on the process, for good, to `program`.

    It must be the last before execve, and the filter must allow that. It takes no_new_privs, or CAP_SYS_ADMIN.
    """
    program.step("filtering system calls")
    # struct sock_fprog: how many instructions, and where they are.
    program.call("seccomp", c.SECCOMP_SET_MODE_FILTER, 0, Block(len(code) // bpf.INSTRUCTION.size, code))


def load(code: bytes) -> None:
    """Put the filter `code` on the calling thread, and so on all that it will ever start. seccomp(2).

    EACCES: neither no_new_privs is set nor is there CAP_SYS_ADMIN. EINVAL: the kernel finds fault with the program.
    """
    program = Program()
    write(program, code)
    program.perform()
