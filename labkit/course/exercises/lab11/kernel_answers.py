"""What the kernel answers, under a filter, to the calls that make or join a namespace, mount, or make a folder.

Sources: seccomp(2), clone(2), mount(2), and the manual pages of the calls that are named here.
"""

import errno
import os
import signal

from labkit import constants, seccomp, syscalls
from labkit.constants import PR_SET_NO_NEW_PRIVS
from labkit.course.exercises.lab11 import filter_checks

#: The namespaces that clone(2) makes. The eighth, of times, is made by clone3 and unshare alone.
KINDS = ("NEWCGROUP", "NEWIPC", "NEWNET", "NEWNS", "NEWPID", "NEWUSER", "NEWUTS")
_NOWHERE = (1 << 64) - 1  # no descriptor has this number
#: Calls with arguments by which they fail, and do nothing, where they are let through; the rest of the six is 0.
_CALLS: dict[str, tuple[int, ...]] = {
    "setns": (_NOWHERE,),
    "clone3": (),
    "mount": (),
    "umount2": (),
    "pivot_root": (),
    "open_tree": (_NOWHERE,),
    "move_mount": (_NOWHERE, 0, _NOWHERE),
    "fsopen": (),
    "fsconfig": (_NOWHERE,),
    "fsmount": (_NOWHERE,),
    "fspick": (_NOWHERE,),
    "mount_setattr": (_NOWHERE,),
    # The kind that nobody needs a privilege for. The last: who has got one may not mount in the old one any more.
    "unshare": (constants.CLONE_NEWUSER,),
}
_FOLDER_CALLS: dict[str, tuple[int, ...]] = {"mkdir": (), "mkdirat": (_NOWHERE,), "io_uring_setup": ()}


def for_namespaces_and_mounts(code: bytes) -> dict[str, str]:
    """In a child that keeps all its powers: put the filter on; the answer to each call, by the call's name.

    It is the name of an errno, or "ok". That of a filter can be told from the kernel's own, but for a child without
    the power to mount, which gets EPERM from both.
    """
    number = _under(code)
    made = {f"clone({kind})": _clone(number["clone"], getattr(constants, f"CLONE_{kind}")) for kind in KINDS}
    return made | {name: _answer(number[name], arguments) for name, arguments in _CALLS.items() if name in number}


def for_folders(code: bytes) -> dict[str, str]:
    """As `for_namespaces_and_mounts`, for the calls that make a folder, or that have the kernel make one."""
    number = _under(code)
    return {name: _answer(number[name], arguments) for name, arguments in _FOLDER_CALLS.items() if name in number}


def _under(code: bytes) -> dict[str, int]:
    number = filter_checks.numbers()
    syscalls.prctl(PR_SET_NO_NEW_PRIVS, 1)
    seccomp.load(code)
    return number


def _answer(number: int, arguments: tuple[int, ...]) -> str:
    result = syscalls.raw(number, *[*arguments, 0, 0, 0, 0, 0, 0][:6])
    return errno.errorcode.get(-result, str(-result)) if result < 0 else "ok"


def _clone(number: int, flag: int) -> str:
    result = syscalls.raw(number, flag | signal.SIGCHLD, 0, 0, 0, 0, 0)
    if result == 0:
        os._exit(0)
    if result < 0:
        return errno.errorcode.get(-result, str(-result))
    os.waitpid(result, 0)
    return "ok"
