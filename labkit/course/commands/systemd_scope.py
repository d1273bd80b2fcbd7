"""A place with control groups to begin in, where the user's systemd has one to give.

The group of a user's terminal belongs to root as a rule. systemd hands over a part of its tree to who asks for a scope
with `Delegate=yes`: so a command that wants groups asks, and executes itself again in there. In that scope it moves
into a leaf, since a group that holds processes hands no controllers on.

Sources: systemd-run(1), systemd.resource-control(5) ("Delegate="), cgroups(7).
"""

import os
import shutil
import subprocess
import sys
from contextlib import suppress

from labkit.errors import Unsupported
from labkit.host import cgroup
from labkit.kernel import cgroupfs

ASKED = "LABKIT_SCOPE"  # in the environment of what systemd-run has begun: it is not asked twice
LEAF = "lab"
SYSTEMD = "/run/systemd/system"  # is there where systemd is process 1: sd_booted(3)
TRIAL_SECONDS = 10


def enter() -> None:
    """Have this process where the lab host finds control groups, if there is a way; else leave all as it is.

    May execute this very command again, in a scope. For the first process of a command, before it has begun anything.
    """
    asked = os.environ.pop(ASKED, "")
    if os.geteuid() == 0 or _found():
        return
    own, _ = cgroup.own_group()
    if asked or cgroup.handed_over(own):
        _settle(own)
    elif command := _systemd_run():
        sys.stdout.flush()
        os.environ[ASKED] = "1"
        os.execv(command[0], [*command, sys.executable, *sys.orig_argv[1:]])


def _found() -> bool:
    """Whether there is a place for the lab host's group already, or none on this machine whatever systemd does."""
    try:
        place = cgroup.find()
    except Unsupported:
        with suppress(Unsupported):
            _, top = cgroup.own_group()
            return not set(cgroupfs.words(f"{top}/cgroup.controllers")) & set(cgroup.CONTROLLERS)
        return True
    # Where systemd is at work, a group that it has not handed over may be written to, and yet is its own.
    return cgroup.handed_over(place.folder) or not os.path.isdir(SYSTEMD)


def _settle(own: str) -> None:
    """Move from the scope `own` into a leaf of it, and mark it as handed over: not every version of systemd does."""
    with suppress(OSError):
        os.setxattr(own, cgroup.HANDED_OVER[0], b"1")
        os.makedirs(f"{own}/{LEAF}", exist_ok=True)
        cgroupfs.write(f"{own}/{LEAF}/cgroup.procs", "0")


def _systemd_run() -> list[str]:
    """The command that runs another in a delegated scope of this user's; [] where that cannot be."""
    program, runtime = shutil.which("systemd-run"), f"/run/user/{os.getuid()}"
    if program is None:
        return []
    if os.path.isdir(runtime):  # sudo(8) takes it away
        os.environ.setdefault("XDG_RUNTIME_DIR", runtime)
    command = [program, "--user", "--scope", "--quiet", "--collect", "--property=Delegate=yes", "--"]
    with suppress(OSError, subprocess.TimeoutExpired):
        trial = subprocess.run([*command, "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=TRIAL_SECONDS)
        if trial.returncode == 0:
            return command
    return []
