"""Where a job of tests runs: namespaces of its own, made by util-linux's unshare(1) and not by the code under test.

- PID: what a job leaves behind ends with it, and it sees nobody's processes but its own;
- mounts: its own /tmp and /dev/shm, and copies of the course's root filesystems, of which tests may damage the default
  one; where the checkout lies in root's home, a way to it for the users that tests become;
- network: a loopback and nothing else, so that no port is taken by another job, and no test needs the Internet;
- IPC and UTS: its own queues and host name.

So several jobs, and several checkouts' test runs, go on beside each other. It takes root: an ordinary user's jobs run
on the machine as it is.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labkit import temporary
from labkit.files import state_folder

_UNSHARE = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
_UNSHARE += ["--ipc", "--uts"]
# The shell stays as the first process of the PID namespace, and reaps what the tests' processes leave to it.
_INIT = """
set -e
tmp=$1 copy=$2 root=$3 loopback=$4 closed=$5 aside=$6
shift 6
[ -z "$tmp" ] || mount --bind "$tmp" /tmp
[ -z "$root" ] || mount --bind "$copy" "$root"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm
# A folder that only root may enter, such as root's home: in its place one that holds just what the tests run from.
if [ -n "$closed" ]; then
    mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$aside"
    while [ "$1" != -- ]; do
        mkdir -p "$aside${1#"$closed"}"
        mount --rbind "$1" "$aside${1#"$closed"}"
        shift
    done
    mount --rbind "$aside" "$closed"
fi
shift
cd "$PWD"
[ -z "$loopback" ] || ip link set lo up
set +e
"$@"
exit $?
"""


@dataclass(frozen=True)
class Place:
    """A place for one job: its folder on disk, and whether it is apart from the machine."""

    folder: Path
    apart: bool
    state: Path  # the course's

    def command(self, argv: Sequence[str], *, network: bool = False) -> list[str]:
        """The command line that runs `argv` here; with `network`, on the machine's own."""
        guarded = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        if not self.apart:
            return [*guarded, *argv]
        copy, root = self.folder / "rootfs", self.state / "rootfs"
        tmp = str(self.folder / "tmp") if _may_hide_tmp(self.state) else ""
        init = [tmp, str(copy), str(root) if copy.is_dir() and root.is_dir() else "", "" if network else "lo"]
        closed = _closed()
        init += [closed, str(self.folder / "aside"), *(_run_from(self.state) if closed else ()), "--"]
        flags = [] if network else ["--net"]
        return [*guarded, *_UNSHARE, *flags, "--", "sh", "-c", _INIT, "sh", *init, *argv]


def unsupported() -> str:
    """Why jobs cannot run apart here; empty where they can. Found by trying."""
    if os.geteuid() != 0:
        return "only root's tests run in namespaces of their own"
    for program in ("unshare", "ip", "mount", "setpriv"):
        if shutil.which(program) is None:
            return f"there is no {program}"
    with temporary.Folder() as folder, place(Path(folder), Path(folder), apart=True) as trial:
        argv = trial.command(["true"])
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        return done.stderr.strip() or (f"unshare ended with exit code {done.returncode}" if done.returncode else "")


@contextmanager
def place(within: Path, state: Path, *, apart: bool) -> Iterator[Place]:
    """A place for one job, below the folder `within`; nothing of it is left afterwards."""
    within.mkdir(parents=True, exist_ok=True)
    with temporary.Folder(str(within)) as name:
        folder = Path(name)
        if apart:
            folder.chmod(0o755)
            (folder / "aside").mkdir()
            (folder / "tmp").mkdir()
            (folder / "tmp").chmod(0o1777)
            _copy(state / "rootfs", folder / "rootfs")
        yield Place(folder, apart, state)


def _copy(root: Path, copy: Path) -> None:
    """Copy the root filesystems: the default one whole, the servers', which nobody writes to, as links to their files.

    What is bound is the folder around them: a root that is a mount point itself would look as if it were mounted.
    """
    if root.is_dir():
        subprocess.run(["cp", "-al", str(root), str(copy)], check=True)
        if (root / "busybox").is_dir():
            shutil.rmtree(copy / "busybox")
            subprocess.run(["cp", "-a", str(root / "busybox"), str(copy / "busybox")], check=True)


def _run_from(state: Path) -> list[str]:
    """The folders that the tests run from: those that no other one of them holds."""
    wanted = [str(state_folder.checkout()), os.path.realpath(state), sys.prefix, sys.base_prefix]
    wanted = list(dict.fromkeys(wanted))
    return [path for path in wanted if not any(path.startswith(f"{other}/") for other in wanted)]


def _may_hide_tmp(state: Path) -> bool:
    """Whether nothing that the tests run from lies below /tmp."""
    return not any(path.startswith("/tmp/") for path in _run_from(state))


def _closed() -> str:
    """The folder above the checkout that others may not enter, such as root's home, if there is one."""
    above = reversed(state_folder.checkout().parents)
    return next((str(folder) for folder in above if folder.stat().st_mode & 0o005 != 0o005), "")
