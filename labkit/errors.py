"""Every error labkit raises, and the one place where an errno gets its explanation.

::

    LabkitError                 something a user can act on: one clear sentence, never a traceback at them
    ├── Unsupported             this machine lacks something; says what, and how to mend it
    ├── InvalidConfig           what was asked for makes no sense (also a ValueError)
    ├── StartError              a container could not be started; says at which step
    │   ├── CommandNotFound     ... because the command is not there        (exit code 127, as in a shell)
    │   └── CommandNotRunnable  ... because it may not or cannot be executed (exit code 126)
    ├── ChildNotStarted         the zygote could not make a child; says at which step, and the errno
    └── ChildDied               a child ended before it could answer

A system call that fails raises the plain `OSError` subclass for its errno (`PermissionError`, `FileNotFoundError`, ...)
with a note that looks at the caller's own state and names the likely cause.
"""

import os
from errno import EAGAIN, EBUSY, EINVAL, ENODEV, ENOENT, ENOSPC, ENOSYS, ENOTDIR, EPERM, errorcode

from labkit import constants as c
from labkit.explain import overlay, privilege

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class LabkitError(Exception):
    """Something went wrong that a user can act on; `str()` of it is one clear sentence."""


class Unsupported(LabkitError):
    """This machine lacks `what`; `mend` is what to do about it."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what, mend)
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what}: {self.mend}"


class InvalidConfig(LabkitError, ValueError):
    """What was asked for makes no sense; nothing was started."""


class StartError(LabkitError):
    """A container could not be started; nothing of it is left."""

    exit_code = 125


class CommandNotFound(StartError):
    """The command does not exist in the container's root."""

    exit_code = 127


class CommandNotRunnable(StartError):
    """The command exists, and may not or cannot be executed."""

    exit_code = 126


class ChildNotStarted(LabkitError):
    """The zygote could not make a child: at `step` ("" before the first), with `number` (an errno) or None, and why."""

    def __init__(self, step: str, number: int | None, text: str, notes: list[str]) -> None:
        super().__init__(step, number, text, notes)
        self.step, self.number, self.text, self.notes = step, number, text, notes

    def __str__(self) -> str:
        return " ".join([f"a child could not be started: {self.text}", *self.notes])


class ChildDied(LabkitError):
    """A child ended before it could answer."""


def os_error(number: int, call: str, *arguments: object) -> OSError:
    """The exception for errno `number` of system call `call`, with a note where a likely cause is known.

    OSError chooses its subclass by the errno by itself. Its `filename` stays unset: a call such as mount(2) has
    several paths, and the message shows them all.
    """
    shown = ", ".join(_show(argument) for argument in arguments)
    error = OSError(number, f"{os.strerror(number)}: {call}({shown})")
    try:
        note = explain(call, number, arguments)
    except OSError:
        note = None  # without /proc there is nothing to look at, and the errno must still reach the caller
    if note:
        error.add_note(note)
    return error


def _show(argument: object) -> str:
    if isinstance(argument, bytes):
        return repr(os.fsdecode(argument))
    if isinstance(argument, int) and argument > 0xFFFF:
        return hex(argument)
    return repr(argument)


def explain(call: str, number: int, arguments: tuple[object, ...] = ()) -> str | None:
    """The likely cause of `call` failing with `number` in this process, as sentences; None where none is known."""
    if number == ENOSYS:
        return f"This kernel ({os.uname().release}) has no {call}, or a seccomp filter hides it."
    if call == "mount" and arguments[2:3] == ("overlay",) and (note := overlay.cause(number, f"{arguments[4]}")):
        return note
    cause = _CAUSES.get((call, number)) or privilege.CAUSES.get((call, number))
    return cause(arguments) if cause else None


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _unshare_einval(arguments: tuple[object, ...]) -> str | None:
    threads = _threads()
    if threads > 1:
        return (
            f"This process has {threads} threads, and only a process of one thread may make a user, PID or time "
            "namespace for itself. Let a child do it: run_in_child(fn)."
        )
    return "A flag is not one that unshare(2) knows on this kernel."


def _unshare_enospc(arguments: tuple[object, ...]) -> str:
    return "A limit on the number of namespaces is reached: see /proc/sys/user/max_*_namespaces, or 32 levels deep."


def _too_many_mounts(arguments: tuple[object, ...]) -> str:
    return "A limit is reached: see /proc/sys/fs/mount-max and /proc/sys/user/max_mnt_namespaces."


def _too_many_processes(arguments: tuple[object, ...]) -> str:
    return "A limit on the number of processes is reached: see ulimit -u, and pids.max of the control groups above."


def _mount_eperm(arguments: tuple[object, ...]) -> str:
    if arguments[2:3] == ("proc",):
        return (
            "Mounting a procfs takes CAP_SYS_ADMIN over the PID namespace it shows, and, in a user namespace, a /proc "
            "that nothing is mounted over (an outer container often masks parts of it)."
        )
    return privilege.no_capability("CAP_SYS_ADMIN", "Mounting")


def _new_filesystem_eperm(arguments: tuple[object, ...]) -> str:
    if "overlay" in str(arguments[:1]):
        return "In a user namespace the kernel lets overlays be mounted since Linux 5.11; before, it takes real root."
    return (
        "In a user namespace, /proc and /sys can be mounted anew only where the ones that are visible already have "
        "nothing mounted over them; an outer container often masks parts of them. Run it with less masking (Docker: "
        "--security-opt systempaths=unconfined), or on the machine itself."
    )


def _new_filesystem_einval(arguments: tuple[object, ...]) -> str | None:
    if arguments[1:2] == (c.FSCONFIG_CMD_CREATE,):
        return "Its options do not go together, or its folders cannot be used so; the kernel's log, dmesg, says which."
    return None


def _no_such_filesystem(arguments: tuple[object, ...]) -> str | None:
    if not arguments:
        return None
    return f"The kernel knows no file system {arguments[0]!r}: see /proc/filesystems; as root, modprobe may load it."


def _mount_einval(arguments: tuple[object, ...]) -> str | None:
    flags = arguments[3] if len(arguments) > 3 and isinstance(arguments[3], int) else 0
    propagation = c.MS_SHARED | c.MS_SLAVE | c.MS_PRIVATE | c.MS_UNBINDABLE
    target = arguments[1] if len(arguments) > 1 else None
    if flags & (propagation | c.MS_REMOUNT | c.MS_MOVE) and isinstance(target, str):
        return None if _is_mount_point(target) else f"{target} is not a mount point, and only a mount has propagation."
    return "The file system type does not take these options, or a source in another mount namespace was named."


def _mount_enodev(arguments: tuple[object, ...]) -> str:
    return f"The kernel knows no file system {arguments[2]!r}: see /proc/filesystems." if len(arguments) > 2 else ""


def _mount_enoent(arguments: tuple[object, ...]) -> str | None:
    for argument in arguments[:2]:
        if isinstance(argument, str) and argument.startswith("/") and not os.path.exists(argument):
            return f"{argument} does not exist here; a mount point must exist before it is mounted on."
    return None


def _mount_ebusy(arguments: tuple[object, ...]) -> str:
    return "The very same file system is mounted on this place already, or the mount is in use."


def _pivot_root_einval(arguments: tuple[object, ...]) -> str:
    from labkit import procfs

    if not arguments or not isinstance(arguments[0], str):
        return "See pivot_root(2): the new root must be a mount point in this mount namespace."
    new_root = os.path.realpath(arguments[0])
    mounts = procfs.mountinfo()
    at_new_root = [mount for mount in mounts if mount.mount_point == new_root]
    if not at_new_root:
        return f"The new root {new_root} is not a mount point. Bind-mount it on itself first (MS_BIND)."
    if new_root == "/":
        return "The new root is this process's root already."
    parents = {mount.mount_id: mount for mount in mounts}
    for mount, which in (
        (at_new_root[-1], "The new root"),
        (parents.get(at_new_root[-1].parent_id), "Its parent"),
    ):
        if mount and mount.is_shared:
            return (
                f"{which} ({mount.mount_point}) is a shared mount, and pivot_root would carry the change into every "
                "namespace that shares it. Make the tree private first: mount(None, '/', None, MS_REC | MS_PRIVATE)."
            )
    return "put_old must lie at or under the new root, and the old root must be a mount point of this namespace."


def _pivot_root_ebusy(arguments: tuple[object, ...]) -> str:
    return (
        "The new root or put_old is on the root mount that this process already has; it must be another mount. "
        "Bind-mount it on itself first (MS_BIND)."
    )


def _umount_einval(arguments: tuple[object, ...]) -> str:
    path = arguments[0] if arguments and isinstance(arguments[0], str) else "It"
    return (
        f"{path} is not a mount point here, or the mount came from a more privileged namespace and is locked: then "
        "only the whole tree can be unmounted."
    )


def _umount_ebusy(arguments: tuple[object, ...]) -> str:
    return "Something still uses it: an open file, a working directory, or a mount below. MNT_DETACH waits for them."


def _setns_einval(arguments: tuple[object, ...]) -> str:
    threads = _threads()
    if threads > 1:
        return f"This process has {threads} threads; joining a user or mount namespace takes one thread only."
    return "The descriptor is not of a namespace of this kind, or it is the user namespace this process is in already."


def _sethostname_einval(arguments: tuple[object, ...]) -> str:
    return "A host name has 64 bytes at most."


def _notdir(arguments: tuple[object, ...]) -> str:
    return "Both new_root and put_old must be directories."


def _is_mount_point(path: str) -> bool:
    from labkit import procfs

    return any(mount.mount_point == os.path.realpath(path) for mount in procfs.mountinfo())


_CAUSES: "dict[tuple[str, int], Callable[[tuple[object, ...]], str | None]]" = {
    ("unshare", EINVAL): _unshare_einval,
    ("unshare", ENOSPC): _unshare_enospc,
    ("clone3", ENOSPC): _unshare_enospc,
    ("clone3", EAGAIN): _too_many_processes,
    ("setns", EINVAL): _setns_einval,
    ("sethostname", EINVAL): _sethostname_einval,
    ("mount", EPERM): _mount_eperm,
    ("mount", EINVAL): _mount_einval,
    ("mount", ENODEV): _mount_enodev,
    ("mount", ENOENT): _mount_enoent,
    ("mount", EBUSY): _mount_ebusy,
    ("open_tree", ENOSPC): _too_many_mounts,
    ("fsmount", ENOSPC): _too_many_mounts,
    ("move_mount", ENOSPC): _too_many_mounts,
    ("fsopen", ENODEV): _no_such_filesystem,
    ("fsconfig", EINVAL): _new_filesystem_einval,
    ("fsconfig", EPERM): _new_filesystem_eperm,
    ("fsmount", EPERM): _new_filesystem_eperm,
    ("umount2", EINVAL): _umount_einval,
    ("umount2", EBUSY): _umount_ebusy,
    ("pivot_root", EINVAL): _pivot_root_einval,
    ("pivot_root", EBUSY): _pivot_root_ebusy,
    ("pivot_root", ENOTDIR): _notdir,
}


def name(number: int) -> str:
    """The symbolic name of an errno, such as `EPERM`."""
    return errorcode.get(number, str(number))
