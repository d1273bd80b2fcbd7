"""The control groups of a room, where this machine hands any on: the judge apart from what it looks at.

::

    the room's group           its limits are the room's; root of the room may divide it
    ├── judge                  this process
    └── hosts                  handed over to LEARNER, with a limit of its own: it never takes the judge along
        ├── start              where a lab host begins; this process is there while it starts one
        └── labkit-4711        the lab host's, and below it what labs make

A group that holds processes hands no controllers on, so the judge leaves the room's own. cgroup-v2.rst: "No Internal
Process Constraint", "Delegation".
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.course.grading.sandbox_ids import LEARNER
from labkit.host.cgroup import CONTROLLERS, MOUNT
from labkit.kernel import cgroupfs

_TOP = Path(MOUNT)
_JUDGE, _HOSTS = _TOP / "judge", _TOP / "hosts"
_START = _HOSTS / "start"
JUDGES_BYTES = 192 << 20  # of the room's memory, which nobody else gets


def divide() -> None:
    """Divide the room's group, once, while this process is alone in the room. Nothing is done where there is none."""
    found = set(cgroupfs.words(f"{_TOP}/cgroup.controllers")) & set(CONTROLLERS)
    if not found or not os.access(_TOP / "cgroup.subtree_control", os.W_OK):
        return
    for folder in (_JUDGE, _HOSTS):
        folder.mkdir()
    _move_to(_JUDGE)
    top = os.open(_TOP, cgroupfs.DIRECTORY)
    try:
        cgroupfs.enable(top, tuple(found))
    finally:
        os.close(top)
    most = cgroupfs.words(f"{_TOP}/memory.max")
    if most and most[0].isdigit():
        cgroupfs.write(f"{_HOSTS}/memory.max", str(max(int(most[0]) - JUDGES_BYTES, JUDGES_BYTES)))
    _START.mkdir()
    for folder in (_HOSTS, _START):
        for name in ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
            os.chown(folder / name, LEARNER, LEARNER)


@contextmanager
def at_the_start() -> Iterator[None]:
    """Be where a lab host begins while the body starts one."""
    divided = _START.is_dir()
    if divided:
        _move_to(_START)
    try:
        yield
    finally:
        if divided:
            _move_to(_JUDGE)


def _move_to(folder: Path) -> None:
    cgroupfs.write(f"{folder}/cgroup.procs", "0")
