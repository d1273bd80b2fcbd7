"""What makes no sense in a configuration, each found before anything is started and said in one sentence."""

import os
import re
import resource
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from labkit import namespaces as kinds_of
from labkit.errors import InvalidConfig, LabkitError
from labkit.idmap import ID_MAX, IdMap
from labkit.mounts import bind

_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")  # all that an endpoint may be called, too
_SYSCTL = re.compile(r"[A-Za-z0-9_*-]+([./][A-Za-z0-9_.*-]+)+")
REQUEST_BYTES = 64 * 1024  # of arguments and environment together: they travel in one message
INFINITY = (1 << 64) - 1
#: The kernel parameters that a namespace has of its own, so that setting them changes nothing outside: by what their
#: name begins with, and the kind. namespaces(7); Docker and runc allow the same.
_SYSCTLS = {
    "kernel.msgmax": "ipc",
    "kernel.msgmnb": "ipc",
    "kernel.msgmni": "ipc",
    "kernel.sem": "ipc",
    "kernel.shmall": "ipc",
    "kernel.shmmax": "ipc",
    "kernel.shmmni": "ipc",
    "kernel.shm_rmid_forced": "ipc",
    "fs.mqueue.": "ipc",
    "net.": "net",
    "user.": "user",
}
#: What a container can do without having of its own. Its mounts it always has.
_SHAREABLE = ("uts", "ipc", "pid", "net", "cgroup")


def command(args: object) -> None:
    """A command is a list of strings, the first of them not empty."""
    if isinstance(args, str) or not isinstance(args, Sequence) or not args or not all(isinstance(a, str) for a in args):
        raise InvalidConfig('the command is a list of strings, such as ["ls", "-l"]')
    if not args[0]:
        raise InvalidConfig("the command's name is empty")


def texts(values: Iterable[str]) -> None:
    """What a system call can carry, and a message to the zygote."""
    size = 0
    for value in values:
        if "\0" in value:
            raise InvalidConfig("an argument, path or variable holds a NUL byte, which no system call can carry")
        size += len(os.fsencode(value))
    if size > REQUEST_BYTES:
        raise InvalidConfig(f"arguments and environment are larger than {REQUEST_BYTES // 1024} KiB together")


def environment(env: Mapping[str, str]) -> None:
    """Variables have names."""
    if any("=" in name or not name for name in env):
        raise InvalidConfig("a variable's name is empty or holds an equals sign")


def hostname(name: str, domain: str) -> None:
    """sethostname(2) takes anything of 64 bytes; what uses it expects a name."""
    if not _HOSTNAME.fullmatch(name):
        raise InvalidConfig(
            f"{name[:80]!r} is no host name: 1 to 64 letters, digits, dots, hyphens and underscores, "
            "the first and last a letter or digit"
        )
    if domain and not _HOSTNAME.fullmatch(domain):
        raise InvalidConfig(f"{domain[:80]!r} is no domain name")


def whole(name: str, value: object, low: int, high: int) -> None:
    """A whole number in a range, or None."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high):
        raise InvalidConfig(f"{name} is a whole number from {low} to {high}, not {value!r}")


def user(name: str | int, groups: Sequence[int], umask: int) -> tuple[int, int, tuple[int, ...], int]:
    """(uid, gid, further groups, umask) of "uid" or "uid:gid"."""
    uid, colon, gid = str(name).partition(":")
    if not uid.isdecimal() or (colon and not gid.isdecimal()):
        raise InvalidConfig(f'the user is "uid" or "uid:gid" in numbers, such as "1000:1000", not {name!r}')
    numbers = (int(uid), int(gid or uid if colon else 0))
    for number in (*numbers, *groups):
        whole("a user or group id", number, 0, ID_MAX)
    whole("umask", umask, 0, 0o777)
    return (*numbers, tuple(groups), umask)


def rlimits(limits: Mapping[str, tuple[int | None, int | None]]) -> tuple[tuple[int, int, int], ...]:
    """(number, soft, hard) of each."""
    found = []
    for name, pair in limits.items():
        number = getattr(resource, f"RLIMIT_{name.upper().removeprefix('RLIMIT_')}", None)
        if not isinstance(number, int):
            raise InvalidConfig(f"there is no resource limit called {name!r}; getrlimit(2) lists them")
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InvalidConfig(f"the limit {name!r} is a pair (soft, hard), not {pair!r}")
        soft, hard = (INFINITY if value is None else value for value in pair)
        whole(f"the limit {name!r}", soft, 0, INFINITY)
        whole(f"the limit {name!r}", hard, 0, INFINITY)
        if soft > hard:
            raise InvalidConfig(f"the limit {name!r} has a soft value, {soft}, above its hard one, {hard}")
        found.append((number, soft, hard))
    return tuple(found)


def steps(plan: Iterable[tuple[Any, ...]], *, mapped: bool) -> None:
    """Bind mounts whose source is there, whose target is a place in the root, with attributes that exist."""
    for step in plan:
        if not isinstance(step, tuple) or not step or not all(isinstance(part, str | tuple) for part in step):
            raise InvalidConfig(f"a mount is a step such as ('bind', '/srv', 'data', ('ro',)), not {step!r}")
        if step[0] != "bind":
            continue
        try:
            _, source, target, attributes = step
            bind.split_attributes(attributes)
        except ValueError as error:
            raise InvalidConfig(f"the bind mount {step!r} makes no sense: {error}") from None
        texts([source, target])
        if not os.path.isabs(source) or not os.path.exists(source):
            raise InvalidConfig(f"there is nothing at {source} to be bound at /{target.lstrip('/')}")
        if not target.strip("/.") or ".." in target.split("/"):
            raise InvalidConfig(f"a mount needs a place in the root, and {target!r} is none")
        if "idmap" in attributes and not mapped:
            raise InvalidConfig(
                "a bind mount with idmap shifts owners by the container's user namespace; give mappings"
            )


def namespaces(chosen: Mapping[str, str | int], network: object, mapped: object) -> None:
    """Kinds that exist and can be shared, and namespaces that are there to be joined."""
    for kind, how in chosen.items():
        if kind not in kinds_of.FLAGS:
            raise InvalidConfig(f"there is no kind of namespace called {kind!r}; there are {', '.join(kinds_of.KINDS)}")
        if kind not in _SHAREABLE:
            raise InvalidConfig(f"a container's {kind} namespace is its own; {', '.join(_SHAREABLE)} can be shared")
        if how == "host":
            continue
        try:
            with kinds_of.opened(kind, how):
                pass
        except LabkitError as error:
            raise InvalidConfig(f"no namespace can be joined: {error}") from None
    if not isinstance(network, str) and not hasattr(network, "netns_fd"):
        raise InvalidConfig(f'the network is "none", "host" or an endpoint of a Network, not {network!r}')
    if isinstance(network, str) and network not in ("none", "host"):
        raise InvalidConfig(f'the network is "none", "host" or an endpoint of a Network, not {network!r}')
    if "net" in chosen and network != "none":
        raise InvalidConfig("the network namespace is said twice, by network and by namespaces; leave one out")


def sysctls(settings: Mapping[str, str], shared: Mapping[str, object], network: object, mapped: bool) -> None:
    """Only those that belong to a namespace of the container's own."""
    for name, value in settings.items():
        plain = name.replace("/", ".")
        kind = next((kind for start, kind in _SYSCTLS.items() if plain == start or plain.startswith(start)), None)
        if not _SYSCTL.fullmatch(name) or ".." in name or kind is None:
            raise InvalidConfig(f"the kernel parameter {name!r} is not one that a container can have of its own")
        if shared.get(kind) == "host" or (kind == "net" and network == "host") or (kind == "user" and not mapped):
            raise InvalidConfig(f"the kernel parameter {name} would be the lab host's: the {kind} namespace is shared")
        if not isinstance(value, str) or not value.isprintable():
            raise InvalidConfig(f"the kernel parameter {name} takes a text, not {value!r}")


def terminal_size(size: object, terminal: bool) -> None:
    """(columns, lines) of a terminal: two numbers of 16 bits. ioctl_tty(2), "struct winsize"."""
    if size is None:
        return
    if not terminal:
        raise InvalidConfig("terminal_size is the size of a terminal; give terminal=True")
    if not isinstance(size, tuple) or len(size) != 2:
        raise InvalidConfig(f"terminal_size is (columns, lines), such as (80, 24), not {size!r}")
    for name, number in zip(("columns", "lines"), size, strict=True):
        whole(f"the terminal's number of {name}", number, 0, 0xFFFF)


def mapped_root(uids: IdMap, gids: IdMap, user_name: str | int) -> None:
    """Root and the user must be somebody in the user namespace."""
    uid, gid, *_ = user(user_name, (), 0)
    for map_, number, what in ((uids, 0, "uid"), (gids, 0, "gid"), (uids, uid, "uid"), (gids, gid, "gid")):
        if map_.outside(number) is None:
            raise InvalidConfig(f"the {what} {number} is nobody in this user namespace: no range maps it")


def time_offsets(offsets: Mapping[str, int]) -> None:
    """time_namespaces(7)."""
    for clock, seconds in offsets.items():
        if clock not in ("monotonic", "boottime"):
            raise InvalidConfig(f'a time namespace has the clocks "monotonic" and "boottime", not {clock!r}')
        whole(f"the offset of {clock} in seconds", seconds, -(1 << 62) // 10**9, (1 << 62) // 10**9)


def root(path: str) -> None:
    """A folder with something in it, which is not the machine's own root."""
    texts([path])
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            raise InvalidConfig(f"the root filesystem {path} is a symbolic link; name the folder it points to")
        if not stat.S_ISDIR(found.st_mode):
            raise InvalidConfig(f"the root filesystem {path} is not a folder")
        if os.path.samestat(found, os.stat("/")):
            raise InvalidConfig("the root filesystem is this machine's own root; a container needs a folder of its own")
        with os.scandir(path) as entries:
            empty = next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidConfig(f"the root filesystem {path} does not exist") from None
    except PermissionError:
        raise InvalidConfig(f"the root filesystem {path} may not be read by you") from None
    if empty:
        raise InvalidConfig(f"the root filesystem {path} is empty: there is no command in it to run")
