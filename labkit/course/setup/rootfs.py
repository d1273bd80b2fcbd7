"""The busybox root filesystem: built by set-up, and built anew where somebody has changed it.

Containers have views of their own of it. But who is root on the lab host may write to the folder itself, and what is
broken there is broken for every lab.
"""

import hashlib
import sys
from pathlib import Path

from labkit.course.setup.log import CHECKOUT, Log
from labkit.files import manifest


def folder(state: Path) -> Path:
    return state / "rootfs/busybox"


def lack(state: Path) -> str:
    """What is wrong with the tree, in a few words; empty if it is as its recipe makes it."""
    root = folder(state)
    if not root.is_dir():
        return "not built"
    try:
        if _stamp(state).read_text() != _wanted():
            return "its recipe has changed"
    except OSError:
        return "not built to its end"
    found = manifest.changes(root)
    return found[0] + (f", and {len(found) - 1} more" if len(found) > 1 else "") if found else ""


def make(state: Path, log: Log, lock_fd: int) -> str:
    """Build the tree unless it is whole; return what was done, in a few words."""
    why = lack(state)
    if not why:
        return "there already"
    _stamp(state).unlink(missing_ok=True)
    start = log.size()
    if log.run([sys.executable, "-I", CHECKOUT / "rootfs/busybox/build.py", folder(state)], keep_fd=lock_fd) != 0:
        return f"not built: {log.tail(start, 1).strip()}"
    manifest.save(folder(state))
    _stamp(state).write_text(_wanted())
    return "busybox" if why == "not built" else f"built anew: {why}"


def _stamp(state: Path) -> Path:
    return state / "rootfs/busybox.stamp"


def _wanted() -> str:
    return hashlib.sha256((CHECKOUT / "rootfs/busybox/build.py").read_bytes()).hexdigest()
