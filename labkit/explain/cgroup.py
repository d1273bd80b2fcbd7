"""Why the kernel refused something in /sys/fs/cgroup: an errno, explained by how the groups stand.

The kernel's answers here are a handful of errnos for dozens of rules. cgroup-v2.rst, "Organizing Processes and
Threads" and "Controlling Controllers", has the rules; cgroup_procs_write() and cgroup_subtree_control_write() in
kernel/cgroup/cgroup.c have the errnos.
"""

import io
import os
from errno import (
    EACCES,
    EAGAIN,
    EBUSY,
    EEXIST,
    EINVAL,
    ENODEV,
    ENOENT,
    ENOTDIR,
    EOPNOTSUPP,
    EPERM,
    ERANGE,
    EROFS,
    ESRCH,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

ROOT = "/sys/fs/cgroup"


def explained(error: OSError, path: str, text: str | None = None) -> OSError:
    """`error`, from using `path` (a group or a file of one), with a note on the likely cause where one is known.

    It is named after the file, and after what was to be written to it.
    """
    number = error.errno or 0
    what = f"writing {text!r} to {path}" if text is not None else path
    new = OSError(number, f"{os.strerror(number)}: {what}")
    try:
        note = cause(number, path, text)
    except OSError:
        note = None
    if note:
        new.add_note(note)
    return new


def annotate(error: OSError) -> None:
    """Add that note to an error that plain Python code met under /sys/fs/cgroup, while its traceback is at hand.

    Errors of `open` and `mkdir` name the path. One of `write` or `close` does not: it is that of a file object in the
    variables of the code that used it.
    """
    path, text = error.filename, None
    if path is None:
        path, text = _file_in_use(error.__traceback__)
    if isinstance(path, str | os.PathLike) and f"{os.fspath(path)}/".startswith(f"{ROOT}/") and error.errno:
        try:
            note = cause(error.errno, os.fspath(path).rstrip("/"), text)
        except OSError:
            return  # the groups have changed meanwhile, or may not be looked at
        if note and note not in getattr(error, "__notes__", ()):
            error.add_note(note)


def _file_in_use(frames: "TracebackType | None") -> tuple[str | None, str | None]:
    """The path of the file under /sys/fs/cgroup in the innermost frame that has one; what is written, where known."""
    found: tuple[str | None, str | None] = (None, None)
    while frames is not None:
        variables = frames.tb_frame.f_locals
        for value in list(variables.values()):
            name = getattr(value, "name", None) if isinstance(value, io.IOBase) else None
            if isinstance(name, str) and name.startswith(f"{ROOT}/"):
                data = variables.get("data")  # of pathlib's write_text
                found = (name, data if isinstance(data, str) else None)
        frames = frames.tb_next
    return found


def cause(number: int, path: str, text: str | None = None) -> str | None:
    """The likely cause of errno `number` from using `path`, a group's folder or a file in it; None: none is known."""
    group, file = (path, "") if os.path.isdir(path) else os.path.split(path)
    if number == EROFS:
        return "The control groups are mounted read-only here, as in most containers."
    if number == EACCES and "." in file and os.path.isdir(group) and not os.path.exists(path):
        number = ENOENT  # open(2) was asked to make the file, which only the kernel does
    if number in (EACCES, EPERM):
        return _not_allowed(group, file)
    if file == "cgroup.subtree_control":
        return _subtree_control(number, group, text)
    if file in ("cgroup.procs", "cgroup.threads"):
        return _procs(number, group, text)
    if number == ENOENT:
        return _missing(group, file)
    if file == "":
        return _folder(number, group)
    return _limit(number, file, text)


def _not_allowed(group: str, file: str) -> str:
    if file == "cgroup.procs":
        return (
            "A process can be moved only by who may write to cgroup.procs of three groups: where it goes, and the "
            "nearest one that is above both that and where it is now."
        )
    if not os.path.exists(os.path.join(group, file)):  # what was to be made there
        return _whose(group)
    owner = _owner(os.path.join(group, file))
    if file and not file.startswith("cgroup.") and owner != os.geteuid():
        return (
            "This limit has not been delegated: a group's own limits belong to who made it, and whoever got it "
            "sets limits in groups below."
        )
    if file and owner == os.geteuid():
        return (
            f"{group} is the root of this cgroup namespace: its own limits are set from outside. "
            "Make a group below it, and limit that."
        )
    return _whose(group)


def _whose(group: str) -> str:
    return f"{group} has not been delegated to uid {os.geteuid()}: it belongs to uid {_owner(group)}."


def _subtree_control(number: int, group: str, text: str | None) -> str | None:
    available = _words(f"{group}/cgroup.controllers")
    asked = [word.lstrip("+-") for word in (text or "").split()]
    missing = [name for name in asked if name not in available]
    if number == EBUSY:
        pids = _words(f"{group}/cgroup.procs")
        if pids:
            return (
                f"This group still holds {_some('process', pids)}. A group hands controllers on only while it holds "
                "no processes itself: move them into a group below first."
            )
        enabled = {name: set(_enabled(f"{group}/{name}")) for name in _groups_below(group)}
        using = [name for name in enabled if enabled[name] & set(asked) or (enabled[name] and not asked)]
        return (
            f"A group below ({', '.join(using)}) still hands the controller on; disable it there first."
            if using
            else None
        )
    if number in (ENOENT, EINVAL) and (missing or not asked):
        names = " and ".join(missing) or "a controller"
        return (
            f"This group has no {names} to hand on, only: {' '.join(available) or 'none'}. A controller comes from the "
            f"group above: it must be in {os.path.dirname(group)}/cgroup.subtree_control first."
        )
    if number == EINVAL:
        return 'Written are names with a sign in front, such as "+memory -io".'
    if number == EOPNOTSUPP:
        return _threaded(group)
    return None


def _procs(number: int, group: str, text: str | None) -> str | None:
    if number == EBUSY:
        enabled = _enabled(group)
        return (
            f"This group hands controllers on ({' '.join(enabled)}), and so may hold no processes itself: put them "
            "into a group below it."
        )
    if number == ESRCH:
        return f"There is no process {text.strip()}." if text else "There is no such process."
    if number == EINVAL:
        return "Written is one process number at a time."
    if number == ENOENT:
        if not os.path.isdir(group):
            return _missing(group, "")
        return (
            "The process is, or would be, outside of the part of the tree that this cgroup namespace shows, and "
            "nothing can be moved over that border."
        )
    if number == EOPNOTSUPP:
        return _threaded(group)
    if number == EAGAIN:
        return "A limit of the group (pids.max, say) refused it."
    return None


def _missing(group: str, file: str) -> str | None:
    if not os.path.isdir(group):
        return f"There is no group {group}: mkdir makes one."
    if file == "":
        return f"There is no group above it to make it in: {os.path.dirname(group)}."
    controller = file.partition(".")[0]
    above = os.path.dirname(group)
    if controller in _words(f"{group}/cgroup.controllers"):
        return f"This kernel has no {file}."
    if controller in _words(f"{above}/cgroup.controllers"):
        return (
            f"This group has no {controller} controller, since the group above does not hand it on: "
            f'write "+{controller}" to {above}/cgroup.subtree_control.'
        )
    if others := " ".join(_words(f"{above}/cgroup.controllers")):
        return f"The {controller} controller is not to be had here: {above} has {others}."
    return None


def _folder(number: int, group: str) -> str | None:
    if number == EBUSY:
        holders = [path for path in ["", *_all_below(group)] if _words(f"{group}/{path}/cgroup.procs")]
        if holders:
            where = "This group" if not holders[0] else f"The group {holders[0]} below it"
            pids = _words(f"{group}/{holders[0]}/cgroup.procs")
            return f"{where} still holds {_some('process', pids)}: kill or move them first."
        below = _groups_below(group)
        return f"There are groups below it: {', '.join(below)}." if below else None
    if number == ENOTDIR:
        return "Groups are removed with rmdir alone: their files cannot be."
    if number == EAGAIN:
        return "A group above limits how many there may be below it: cgroup.max.descendants, cgroup.max.depth."
    if number == EEXIST:
        return "There is a group, or a file of the kernel's, of this name already."
    return None


def _limit(number: int, file: str, text: str | None) -> str | None:
    if number == ENODEV:
        if file == "io.max":
            return "It names no disk of this machine (a partition has no limit of its own: name its disk)."
        return "The group has been removed meanwhile."
    if number == EOPNOTSUPP:
        return "This kernel was built without it, or it is switched off."
    if number in (EINVAL, ERANGE):
        examples = {
            "cpu.max": '"20000 100000" (microseconds in each period) or "max"',
            "cpu.weight": "a number from 1 to 10000",
            "memory.max": 'bytes, with K, M or G behind if you like, or "max"',
            "memory.high": 'bytes, with K, M or G behind if you like, or "max"',
            "pids.max": 'a number, or "max"',
            "cpuset.cpus": 'processors that the group above has, such as "0-2,4"',
            "io.max": '"8:0 wbps=1048576 riops=max"',
            "cgroup.freeze": "0 or 1",
            "cgroup.kill": "1",
        }
        return f"Written is {examples[file]}." if file in examples else None
    return None


def _threaded(group: str) -> str:
    kind = " ".join(_words(f"{group}/cgroup.type")) or "domain"
    if kind == "domain invalid":
        return (
            "A group above it is a tree of threads: this one can hold nothing until it is threaded too (cgroup.type)."
        )
    return (
        f'This group is "{kind}": a tree of threads. A group becomes that when cpu or pids is handed on while it holds '
        "processes, and then none of the controllers that count whole processes, such as memory, is to be had in it. "
        "Make a new group, and keep its processes in groups below."
    )


def _some(what: str, pids: list[str]) -> str:
    shown = ", ".join(pids[:3]) + (" and others" if len(pids) > 3 else "")
    return f"{what} {shown}" if len(pids) == 1 else f"{what}es {shown}"


def _enabled(group: str) -> list[str]:
    return _words(f"{group}/cgroup.subtree_control")


def _groups_below(group: str) -> list[str]:
    with os.scandir(group) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def _all_below(group: str) -> list[str]:
    return sorted(os.path.relpath(folder, group) for folder, _, _ in os.walk(group) if folder != group)


def _owner(path: str) -> int:
    return os.stat(path).st_uid


def _words(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().split()
    except OSError:
        return []
