"""The peers, each told to do the very same: new mount, UTS, IPC, PID, network and cgroup namespaces, the same root
filesystem, the same mounts in it, the same capabilities, `true` executed and waited for."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit import capabilities, rootfs


@dataclass(frozen=True)
class Peer:
    """A command to compare with; `reason` says why it cannot run here."""

    name: str
    argv: Callable[[int], Sequence[str]]
    reason: str | None = None


def peers(root: Path, work: Path) -> list[Peer]:
    """crun, runc and bubblewrap, ready to run `true` in `root`; `work` is a folder for their bundles and state."""
    bundle = work / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps(_oci_config(root)))
    not_root = "needs root to be measured with the same namespaces" if os.geteuid() != 0 else None
    oci = ("run", "--bundle", str(bundle))
    crun = ("crun", "--cgroup-manager=disabled", "--root", str(work / "crun"))
    runc = ("runc", "--root", str(work / "runc"))
    return [
        Peer("crun", lambda n: (*crun, *oci, f"labkit-bench-{os.getpid()}-{n}"), _missing("crun") or not_root),
        Peer("runc", lambda n: (*runc, *oci, f"labkit-bench-{os.getpid()}-{n}"), _missing("runc") or not_root),
        Peer("bubblewrap", lambda n: _bubblewrap(root), _missing("bwrap")),
    ]


def _missing(command: str) -> str | None:
    return None if shutil.which(command) else f"{command} is not installed"


def _bubblewrap(root: Path) -> Sequence[str]:
    arguments = [
        "bwrap",
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
        "--unshare-cgroup",
    ]
    if os.geteuid() == 0:
        arguments += [
            "--cap-drop",
            "ALL",
            *(f for cap in capabilities.DEFAULT for f in ("--cap-add", f"CAP_{cap}")),
        ]
    else:
        arguments += ["--unshare-user", "--uid", "0", "--gid", "0"]
    arguments += ["--bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", "--hostname", "container"]
    return (*arguments, "--die-with-parent", "--", "/bin/true")


def _oci_config(root: Path) -> dict[str, object]:
    caps = [f"CAP_{name}" for name in capabilities.DEFAULT]
    kinds = ("mount", "uts", "ipc", "pid", "network", "cgroup")

    def mount(fstype: str, destination: str, *options: str) -> dict[str, object]:
        return {"destination": destination, "type": fstype, "source": fstype, "options": list(options)}

    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), caps),
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": False},
        "hostname": "container",
        "mounts": [
            mount("proc", "/proc", "nosuid", "nodev", "noexec"),
            mount("tmpfs", "/dev", "nosuid", "noexec", "mode=755", "size=64k"),
            mount("devpts", "/dev/pts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
            mount("tmpfs", "/dev/shm", "nosuid", "nodev", "noexec", "mode=1777", "size=64m"),
            mount("sysfs", "/sys", "nosuid", "nodev", "noexec", "ro"),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "readonlyPaths": [f"/{path}" for path in rootfs.READONLY],
            "maskedPaths": [f"/{path}" for path in rootfs.MASKED],
        },
    }
