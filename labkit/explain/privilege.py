"""Why the kernel refused something for lack of privilege: what this process may, and over which user namespace.

EPERM says no more than "not you". Three things decide: the capability that the call takes, the user namespace that owns
what is changed (a capability counts there and in the namespaces below it alone), and a filter that may stand before
both. All three can be read in /proc. Sources: capabilities(7), user_namespaces(7), seccomp(2).
"""

import os
from errno import EACCES, EINVAL, EPERM

from labkit import constants as c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NUMBERS = {"CAP_SETPCAP": 8, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}


def no_capability(name: str, doing: str) -> str:
    """The likely cause where `doing` takes the capability `name`."""
    status = _status()
    held = _holds(name, status)
    if held and status.get("Seccomp") == "2":
        return (
            f"{doing} takes {name}, which this process has; but a filter of system calls is on it (Seccomp: 2 in "
            "/proc/self/status), and may refuse the call before anybody looks at capabilities."
        )
    with open("/proc/self/ns/user", "rb") as namespace:
        inode = os.fstat(namespace.fileno()).st_ino
    who = f"This process has uid {os.geteuid()} in user:[{inode}]"
    if not held:
        return f"{doing} takes {name} in the user namespace that owns what is changed. {who} and lacks it."
    return (
        f"{doing} takes {name} in the user namespace that owns what is changed. {who} and has it there, but what is "
        "changed belongs to a user namespace further out, where that counts for nothing."
    )


def _holds(name: str, status: dict[str, str]) -> int:
    return int(status["CapEff"], 16) >> _NUMBERS[name] & 1


def _status() -> dict[str, str]:
    with open("/proc/self/status") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def _restricted() -> bool:
    try:
        with open("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def unshare(arguments: tuple[object, ...]) -> str:
    """EPERM from unshare(2) or clone3(2)."""
    flags = arguments[0] if arguments and isinstance(arguments[0], int) else 0
    if flags & c.CLONE_NEWUSER:
        return (
            "This machine does not let ordinary users make user namespaces"
            + (" (AppArmor: kernel.apparmor_restrict_unprivileged_userns is 1)." if _restricted() else ".")
            + " `./lab doctor` says what restricts them."
        )
    text = no_capability("CAP_SYS_ADMIN", "Making a namespace other than a user namespace")
    if _restricted() and not _holds("CAP_SYS_ADMIN", _status()):
        # Ubuntu lets the user namespace be made, and takes every capability in it away.
        text += " AppArmor may have taken it: kernel.apparmor_restrict_unprivileged_userns is 1. See `./lab doctor`."
    return text


def _capset(arguments: tuple[object, ...]) -> str:
    return (
        "Capabilities can be given up, and never taken: what is permitted afterwards must have been permitted before, "
        "what is effective must be permitted, and what is inheritable must be so already, or in the bounding set. "
        f"Now: CapPrm {_status()['CapPrm']}, CapBnd {_status()['CapBnd']}."
    )


def _prctl(arguments: tuple[object, ...]) -> str | None:
    option = arguments[0] if arguments else None
    if option == c.PR_CAPBSET_DROP:
        return no_capability("CAP_SETPCAP", "Dropping a capability from the bounding set")
    if option == c.PR_CAP_AMBIENT:
        return "A capability can be ambient only where it is permitted and inheritable already."
    return None


def _seccomp_eacces(arguments: tuple[object, ...]) -> str:
    return (
        "A process may filter itself once it can gain nothing by that: a setuid program that meets the filter could be "
        "led astray by it. Set no_new_privs first, prctl(PR_SET_NO_NEW_PRIVS, 1), or have CAP_SYS_ADMIN."
    )


def _seccomp_einval(arguments: tuple[object, ...]) -> str:
    return (
        "The kernel finds fault with the filter: a jump beyond its end, a load from beyond the 64 bytes of "
        "seccomp_data, an end that is no ret, no instruction at all or more than 4096."
    )


def _for(name: str, doing: str) -> "Callable[[tuple[object, ...]], str | None]":
    return lambda _: no_capability(name, doing)


#: By system call and errno, as in `labkit.errors`.
CAUSES: "dict[tuple[str, int], Callable[[tuple[object, ...]], str | None]]" = {
    ("unshare", EPERM): unshare,
    ("clone3", EPERM): unshare,
    ("setns", EPERM): _for("CAP_SYS_ADMIN", "Joining a namespace"),
    ("sethostname", EPERM): _for("CAP_SYS_ADMIN", "Changing the host name"),
    ("umount2", EPERM): _for("CAP_SYS_ADMIN", "Unmounting"),
    ("pivot_root", EPERM): _for("CAP_SYS_ADMIN", "Changing the root mount"),
    ("ioctl", EPERM): _for("CAP_NET_ADMIN", "Changing a network interface"),
    ("capset", EPERM): _capset,
    ("prctl", EPERM): _prctl,
    ("seccomp", EACCES): _seccomp_eacces,
    ("seccomp", EINVAL): _seccomp_einval,
}
