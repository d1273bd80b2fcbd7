"""Capabilities: the pieces that root's power is made of, and giving most of them up.

Sources: capabilities(7), linux/capability.h; the default set is Docker's.
"""

from collections import namedtuple

from labkit import constants as c
from labkit import procfs, syscalls
from labkit.errors import InvalidConfig
from labkit.program import Program

#: Every capability in the order of its number.
_IN_ORDER = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
NAMES = tuple(_IN_ORDER.split())

#: What a container keeps unless told otherwise.
_DOCKERS = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
    "AUDIT_WRITE"
)
DEFAULT = tuple(_DOCKERS.split())


_masks: "dict[tuple[str, ...] | str, int]" = {}


def mask(names: "tuple[str, ...] | str") -> int:
    """The bit mask of capabilities named with or without their "CAP_". `InvalidConfig`: an unknown name."""
    if names in _masks:
        return _masks[names]
    bits = 0
    for name in (names,) if isinstance(names, str) else names:
        short = name.upper().removeprefix("CAP_")
        if short not in NAMES:
            raise InvalidConfig(f"there is no capability called {name!r}; capabilities(7) lists them")
        bits |= 1 << NAMES.index(short)
    _masks[names] = bits
    return bits


def names(mask: int) -> tuple[str, ...]:
    """The names of the capabilities in a bit mask, in the order of their numbers."""
    numbers = (number for number in range(mask.bit_length()) if mask >> number & 1)
    return tuple(NAMES[number] if number < len(NAMES) else str(number) for number in numbers)


class Sets(namedtuple("Sets", "effective permitted inheritable bounding ambient")):
    """The five sets of a thread, each as names. capabilities(7):

    - effective: what the kernel looks at when it is asked for something;
    - permitted: what the thread may make effective; given up from here, it is gone;
    - inheritable: what a program that names it in its file keeps when executed;
    - bounding: what a program that is executed can get at most, from its file or from being root;
    - ambient: what an ordinary program keeps when executed.
    """

    __slots__ = ()


_STATUS = ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")


def of(pid: int | str) -> Sets:
    """The sets of process `pid` (of its main thread), from /proc/PID/status."""
    status = procfs.status(pid)
    return Sets(*(names(int(status[key], 16)) for key in _STATUS))


def assign(
    *,
    effective: "tuple[str, ...] | None" = None,
    permitted: "tuple[str, ...] | None" = None,
    inheritable: "tuple[str, ...] | None" = None,
    bounding: "tuple[str, ...] | None" = None,
    ambient: "tuple[str, ...] | None" = None,
) -> None:
    """Set the sets of the calling thread, by names; one that is not given stays as it is, as far as it can.

    Bounding comes first, since dropping from it takes SETPCAP; ambient last, since it must be permitted and inheritable
    by then. `InvalidConfig`: an unknown name, or bounding is to grow. `PermissionError`: what is permitted would grow,
    or a set holds what the other that it depends on does not.
    """
    now = of("self")
    if bounding is not None:
        kept = mask(bounding)
        if grown := names(kept & ~mask(now.bounding)):
            raise InvalidConfig(f"the bounding set never grows, and {', '.join(grown)} is not in it")
        for name in now.bounding:
            if not kept & mask((name,)):
                syscalls.prctl(c.PR_CAPBSET_DROP, NAMES.index(name))
    if ambient is not None or permitted is not None or inheritable is not None:
        syscalls.prctl(c.PR_CAP_AMBIENT, c.PR_CAP_AMBIENT_CLEAR_ALL)
    new_permitted = mask(now.permitted if permitted is None else permitted)
    new_effective = mask(now.effective) & new_permitted if effective is None else mask(effective)
    new_inheritable = mask(now.inheritable if inheritable is None else inheritable)
    syscalls.capset(new_effective, new_permitted, new_inheritable)
    wanted = mask(now.ambient) & new_permitted & new_inheritable if ambient is None else mask(ambient)
    for name in names(wanted):
        syscalls.prctl(c.PR_CAP_AMBIENT, c.PR_CAP_AMBIENT_RAISE, NAMES.index(name))


_bounding_set: list[int] | None = None


def bounding_set() -> list[int]:
    """The numbers of the capabilities in this process's bounding set; looked up once, for it and its children."""
    global _bounding_set
    if _bounding_set is None:
        with open("/proc/sys/kernel/cap_last_cap") as file:
            count = int(file.read()) + 1
        _bounding_set = [number for number in range(count) if syscalls.prctl(c.PR_CAPBSET_READ, number)]
    return _bounding_set


def write_bounding(program: "Program", kept: int) -> None:
    """Add the system calls that take all outside the mask `kept` from the bounding set, for good, to `program`.

    That itself takes CAP_SETPCAP, so it comes first. Nothing executed from here on gets more.
    """
    program.step("giving up capabilities")
    for number in bounding_set():
        if not kept >> number & 1:
            program.call("prctl", c.PR_CAPBSET_DROP, number, 0, 0, 0)


def write_sets(program: "Program", *, effective: int, permitted: int, inheritable: int, ambient: int) -> None:
    """Add the system calls that set four of the five sets, as masks; what this process itself lacks is left out.

    A program that another user than root executes has the ambient ones and no others. (What is ambient has to be
    permitted and inheritable too.)
    """
    program.step("giving up capabilities")
    program.call("prctl", c.PR_CAP_AMBIENT, c.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    held = permitted & syscalls.capget()[1]
    program.call("capset", *syscalls.capability_structs(effective & held, held, inheritable & held))
    ambient &= held & inheritable
    for number in range(ambient.bit_length()):
        if ambient & 1 << number:
            program.call("prctl", c.PR_CAP_AMBIENT, c.PR_CAP_AMBIENT_RAISE, number, 0, 0)


def write_keep_only(program: "Program", kept: int) -> None:
    """Add the system calls that give up every capability outside the mask `kept`, for good, to `program`.

    Inheritable and ambient end empty, and no_new_privs makes setuid programs and file capabilities powerless.
    """
    write_bounding(program, kept)
    write_sets(program, effective=kept, permitted=kept, inheritable=0, ambient=0)
    program.call("prctl", c.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def keep_only(kept: int) -> None:
    """Give up every capability of the calling process outside the mask `kept`: see `write_keep_only`."""
    program = Program()
    write_keep_only(program, kept)
    program.perform()
