"""What a user can do in a group: tried by a process of that user, for lab 09's last exercise."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from labkit import host
from labkit.course.exercises.lab09.cgroup_stand_in import MOUNT, Quarter
from labkit.errors import Unsupported
from labkit.process import run_in_child, spawn_closed

NEXT_DOOR = "next-door"  # a group beside the one that is handed over


@dataclass(frozen=True)
class Attempts:
    """What worked: make a group, move into it, hand a controller on, lift the limit, leave for a group next door."""

    make: bool
    move: bool
    hand_on: bool
    lift: bool
    leave: bool


def try_as(quarter: Quarter, name: str, uid: int) -> Attempts:
    """Put a process of user `uid` into the group `name` and let it try; what it has made is removed again.

    `Unsupported`: the lab host has one user only.
    """
    if not _has_user(uid):
        raise Unsupported(
            "the lab host has no other user than root here",
            "give yourself subordinate ids: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER",
        )
    # By root of the lab host: the group may be somebody else's by now.
    with spawn_closed(_become, uid) as child:
        run_in_child(quarter.joined(name).add, child.pid)
        tried = child.call(_try_all, f"{quarter.path}/{name}", quarter.path)
    with suppress(OSError):
        run_in_child(os.rmdir, f"{quarter.path}/{name}/mine")
    return tried


def _has_user(uid: int) -> bool:
    lines = Path(f"/proc/{host.pid()}/uid_map").read_text().splitlines()
    return any(int(first) <= uid < int(first) + int(length) for first, _, length in (line.split() for line in lines))


def _become(uid: int) -> None:
    with suppress(PermissionError):  # where setgroups is denied there are none to drop
        os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def _try_all(group: str, above: str) -> Attempts:
    lift = _works(f"{group}/pids.max", "max")
    leave = _works(f"{above}/{NEXT_DOOR}/cgroup.procs", "0") or _works(f"{MOUNT}/host/cgroup.procs", "0")
    if leave:
        return Attempts(True, True, True, lift, True)
    mine = f"{group}/mine"
    try:
        os.mkdir(mine)
    except OSError:
        return Attempts(False, False, False, lift, False)
    move = _works(f"{mine}/cgroup.procs", "0")
    # A group that holds a process hands nothing on, so where the move was refused only the permission can be seen.
    control = f"{group}/cgroup.subtree_control"
    hand_on = _works(control, "+pids") if move else os.access(control, os.W_OK)
    with suppress(OSError):
        if hand_on and move:
            _works(control, "-pids")
    return Attempts(True, move, hand_on, lift, False)


def _works(file: str, text: str) -> bool:
    try:
        with open(file, "w") as opened:
            opened.write(text)
    except OSError:
        return False
    return True
