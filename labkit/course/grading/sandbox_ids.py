"""The users of a room: a range of ids that no other room has, for as long as it is there.

The kernel counts much of what a process can use up by user, whatever namespaces it is in: descriptors in flight,
locked memory, keys, watched files. Rooms with the same ids would share that. Ranges are taken by flock(2) on files, so
that graders beside each other on one machine take different ones, and the end of a process gives back what it had.

Source: user_namespaces(7), "Interaction of user namespaces and other types of namespaces"; flock(2).
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from labkit import host, idmap
from labkit.errors import Unsupported
from labkit.files import state_folder
from labkit.idmap import IdMap

IDS = 65536  #: how many users a room has, where there are enough
LEARNER = 1000  #: who root of a lab host in a room is, as the room counts
_FIRST = 0x70000000  # above what systemd and useradd hand out, where root has all ids to choose from
_LAST = 0x7FFFFFFF
_FEWER = (IDS - 1, 32768, 4096, LEARNER + 1000)
_LOOK_SECONDS = 0.1

Maps = tuple[IdMap, IdMap]


def ranges() -> list[Maps]:
    """The maps of users and groups that rooms can have, as the lab host counts.

    Root of a room is never somebody on the lab host whose files matter: root there, or the caller. `Unsupported`: this
    user has no ids to give away.
    """
    (uids, ucount), (gids, gcount) = (_ranges(map_) for map_ in idmap.of(host.pid()))
    return [(IdMap([(0, u, ucount)]), IdMap([(0, g, gcount)])) for u, g in zip(uids, gids, strict=False)]


def _ranges(map_: IdMap) -> tuple[range, int]:
    """Where ranges begin, and how many ids each has."""
    if any(first <= _FIRST and first + count > _LAST for first, _, count in map_):
        return range(_FIRST, _LAST, IDS), IDS
    # Of an ordinary user: 0 is that user, and from 1 on there are the subordinate ids, in a row.
    whole = 1
    while all(map_.outside(inside) is not None for inside in (whole, whole + IDS - 1)):
        whole += IDS
    if whole > 1:
        return range(1, whole, IDS), IDS
    for count in _FEWER:
        if map_.outside(1) is not None and map_.outside(count) is not None:
            return range(1, 2), count
    raise Unsupported(
        "submissions are graded as users of their own, and no subordinate ids are set apart for you",
        "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 YOU, and install uidmap",
    )


@contextmanager
def taken(alone: bool = False) -> Iterator[Maps]:
    """A range, for as long as the body runs. Where all are taken it waits for one.

    With `alone` no other room of this user's is there meanwhile, and none begins.
    """
    here = ranges()
    with ExitStack() as stack:
        how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        # Who wants to be alone waits for those who are there, and lets nobody pass meanwhile.
        with _locked("turn", how):
            stack.enter_context(_locked("rooms", how))
        while True:
            for uids, gids in here:
                try:
                    stack.enter_context(_locked(f"{uids[0][1]}", fcntl.LOCK_EX | fcntl.LOCK_NB))
                except BlockingIOError:
                    continue
                yield uids, gids
                return
            time.sleep(_LOOK_SECONDS)


@contextmanager
def _locked(name: str, how: int) -> Iterator[None]:
    fd = os.open(_folder() / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)


def _folder() -> Path:
    """The same for all graders of this user on this machine, and nobody else's to write to."""
    runtime = Path("/run") if os.geteuid() == 0 else Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent")
    folder = runtime / "labkit-rooms"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        folder = state_folder.state() / "rooms"
        folder.mkdir(parents=True, exist_ok=True)
    return folder
