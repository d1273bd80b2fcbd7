"""What the checks of lab 11 look at: maps, capability sets, and a small web server that needs two of them."""

import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

from labkit import capabilities, host, idmap, namespaces, procfs, syscalls
from labkit.capabilities import Sets
from labkit.constants import CLONE_NEWUSER, CLONE_NEWUTS, PR_SET_DUMPABLE
from labkit.course.exercises.common.mount_stand_in import InFork
from labkit.course.framework.outcomes import NotYet
from labkit.errors import Unsupported
from labkit.process import Child, run_in_child

#: What the web server of the lab needs.
NEEDED = ("NET_BIND_SERVICE", "SYS_CHROOT")


def tried(fn: Callable[..., Any], *args: Any) -> InFork:
    """In a child: call `fn(*args)`, and keep what it raised, so that the child can be looked at all the same."""
    try:
        return InFork(os.getpid(), fn(*args), None, [])
    except Exception as error:
        where = [(frame.filename, frame.lineno or 0, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return InFork(os.getpid(), None, error, where)


# User namespaces


def require_user_namespaces() -> None:
    """Raise `Unsupported` where nobody may make a user namespace on the lab host."""
    try:
        run_in_child(syscalls.unshare, CLONE_NEWUSER)
    except OSError as error:
        raise Unsupported(
            f"user namespaces cannot be made here ({error.strerror})", "`./lab doctor` says what restricts them"
        ) from None


def ordinary_ids(uid: int, gid: int) -> tuple[int, int]:
    """Those ids where the lab host has them; where it has root alone, root's."""
    maps: tuple[idmap.IdMap, idmap.IdMap] = run_in_child(idmap.of, "self")
    return (uid, gid) if maps[0].outside(uid) is not None and maps[1].outside(gid) is not None else (0, 0)


def become_ordinary(uid: int, gid: int) -> None:
    """In a child: be that user, without a single capability.

    Root, where there is nobody else, keeps one: mapping root again takes SETFCAP. user_namespaces(7)
    """
    if uid:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    kept = 0 if uid else capabilities.mask("SETFCAP")
    syscalls.capset(kept, kept, 0)
    # Who changes users is not "dumpable" any more, and the files in /proc/self belong to root then.
    syscalls.prctl(PR_SET_DUMPABLE, 1)


def not_root(child: Child, uid: int, gid: int, done: InFork, before: int) -> NotYet | None:
    """What `child`, which was in the user namespace `before`, still lacks to be root in one of its own."""
    refused = isinstance(done.error, PermissionError)
    if namespaces.inode(child.pid, "user") == before:
        if refused:
            return NotYet(
                "A file in `/proc/self` refused what you wrote, and the process is still in the user namespace in "
                "which it began.",
                "That namespace's map was written long ago. First comes a namespace of your own, whose maps are still "
                "empty: which call makes one?",
            )
        return NotYet(
            f"Process {child.pid} is in the user namespace that it began in, user {uid} as before.",
            "One flag of `unshare` makes a new one, and it is the only one that needs no privilege.",
        )
    uids, gids = (run_in_child(_map, child.pid, name) for name in ("uid_map", "gid_map"))
    if not uids:
        return _no_users(child, uid, refused)
    if not gids:
        return _no_groups(child, gid, refused)
    if uids.outside(0) is None or gids.outside(0) is None:
        return NotYet(
            f"The maps are written: inside you are user {uids[0][0]} and group {gids[0][0]}.",
            "Root is 0. The first number of a line says what an id is called inside.",
        )
    return None


def _no_users(child: Child, uid: int, refused: bool) -> NotYet:
    if refused:
        return NotYet(
            "The process has a user namespace of its own, and the kernel refused what you wrote to `uid_map`.",
            f"A line is `inside outside count`, in this order. Without privilege outside you may map one id: your own, "
            f"which is {uid} here. What is it to be called inside?",
        )
    return NotYet(
        f"Process {child.pid} has a user namespace of its own, but its `uid_map` is empty: it is nobody (65534) there.",
        "Who it is inside is said by one line, written to `/proc/self/uid_map` after `unshare`.",
    )


def _no_groups(child: Child, gid: int, refused: bool) -> NotYet:
    if not refused:
        return NotYet(
            "The user is mapped, and the group is not: `gid_map` is empty.",
            "Groups have a map of their own, with a line of the same form, and one condition.",
        )
    with open(f"/proc/{child.pid}/setgroups") as file:
        allowed = file.read().strip() == "allow"
    if allowed:
        return NotYet(
            "The user is mapped; the kernel refused what you wrote to `gid_map`, and `setgroups` still says `allow`.",
            "A file can be closed to one group and open to the rest. Who could drop that group at will would get in. "
            "So an ordinary user gives up setgroups(2) first: one word, in a third file.",
        )
    return NotYet(
        "The user is mapped, `setgroups` says `deny`, and the kernel refused what you wrote to `gid_map`.",
        f"The line is `inside outside count`, and outside your group is {gid}. Is a number other than that in it?",
    )


def _map(pid: int, name: str) -> idmap.IdMap | None:
    with open(f"/proc/{pid}/{name}") as file:
        text = file.read()
    return idmap.IdMap.parse(text) if text else None


def powers_inside(child: Child, name: str) -> str | None:
    """What `child`, root in its own user namespace, should be able to do and cannot, or should not and can."""
    shared = namespaces.inode(child.pid, "uts") == namespaces.inode(host.pid(), "uts")
    if shared and child.call(tried, syscalls.sethostname, name).error is None:
        return "it could change the lab host's own name"
    if child.call(tried, _rename_own, name).error is not None:
        return "it could not even rename a UTS namespace of its own"
    if namespaces.inode(child.pid, "uts") == namespaces.inode(host.pid(), "uts"):
        return "its UTS namespace is still the lab host's"
    return None


def _rename_own(name: str) -> None:
    syscalls.unshare(CLONE_NEWUTS)
    syscalls.sethostname(name)


# Capabilities


def wrong_sets(sets: Sets, before: Sets, no_new_privs: bool, done: InFork) -> NotYet | None:
    """What is too much in the sets of a process that was to keep NEEDED."""
    if isinstance(done.error, PermissionError) and "SETPCAP" not in sets.effective and sets.bounding == before.bounding:
        return NotYet(
            "The process has given up its capabilities, and then the bounding set would not be trimmed any more.",
            "Trimming it takes a capability itself: SETPCAP. So it comes first, and `capset` after it.",
        )
    done.value_or_raise()
    if sets == before:
        return NotYet(
            f"The process still has all {len(before.permitted)} capabilities that it began with.",
            "`capset(effective, permitted, inheritable)` sets three of the five sets at once, each as a mask.",
        )
    aside = [name for name in sets.permitted if name not in sets.effective and name not in NEEDED]
    if aside:
        return NotYet(
            f"{_listed(aside)} {_is(aside)} not effective, but still permitted.",
            "What is permitted can be made effective again at any time, by whoever takes over the server. Giving up "
            "means: out of the permitted set.",
        )
    surplus = [name for name in sets.permitted if name not in NEEDED]
    if surplus:
        return NotYet(
            f"The process still has {_listed(surplus)}, and the server does nothing that takes {_it(surplus)}.",
            "Which calls does the server make that a program of yours could not? Each takes one capability.",
        )
    if set(sets.inheritable) or set(sets.ambient):
        return NotYet(
            f"{_listed(sets.inheritable or sets.ambient)} {_is(sets.inheritable or sets.ambient)} inheritable.",
            "A program that the server executes could keep it. The server executes none: the inheritable set can be "
            "empty. (Docker forgot this once: CVE-2022-24769.)",
        )
    bounding = [name for name in sets.bounding if name not in NEEDED]
    if bounding:
        return NotYet(
            f"The server itself has no more than it needs. But its bounding set holds {len(bounding)} more, "
            f"{bounding[0]} among them.",
            "It is root, and a program that root executes gets all of the bounding set: you have seen it above. "
            "PR_CAPBSET_DROP takes one out.",
        )
    if not no_new_privs:
        return NotYet(
            "The sets are right. NoNewPrivs is still 0.",
            "One prctl sees to it that no program executed from here on can gain anything by being setuid.",
        )
    return None


def _listed(names: Any) -> str:
    shown = [f"{name}" for name in list(names)[:3]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _is(names: Any) -> str:
    return "is" if len(names) == 1 else "are"


def _it(names: Any) -> str:
    return "it" if len(names) == 1 else "them"


_listener: socket.socket
_connection: socket.socket


def serve_from(folder: str, port: int) -> None:
    """The web server of the lab, its first half: listen on `port`, and go where there is nothing but `folder`."""
    global _listener
    _listener = socket.create_server(("127.0.0.1", port))
    os.chroot(folder)
    os.chdir("/")


def answer_one() -> None:
    """Its second half: answer one request with index.html."""
    connection, _ = _listener.accept()
    with connection, open("/index.html", "rb") as page:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + page.read())


def ask(port: int) -> None:
    """A client: send the request. The answer is read by `hear`."""
    global _connection
    _connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    _connection.sendall(b"GET / HTTP/1.0\r\n\r\n")


def hear() -> str:
    """What came back, without its header."""
    with _connection:
        data = b""
        while more := _connection.recv(4096):
            data += more
    return data.partition(b"\r\n\r\n")[2].decode()


def no_new_privs(pid: int) -> bool:
    """Whether process `pid` has set no_new_privs."""
    return procfs.status(pid)["NoNewPrivs"] == "1"


def all_of_them() -> Sets:
    """The five sets of a process that has just begun on the lab host."""
    return run_in_child(capabilities.of, "self")
