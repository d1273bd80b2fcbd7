"""The peers, each told to do the very same: new mount, UTS, IPC, PID, network and cgroup namespaces, the same root
filesystem, the same mounts in it, the same capabilities and seccomp filter, the command executed and waited for."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit import capabilities, rootfs, seccomp

TRUE = ("/bin/true",)
IDLE = ("/bin/sh", "-c", "echo; exec sleep 1000000")  # says when it is there


@dataclass(frozen=True)
class Peer:
    """A command to compare with. `run` and `idle` give the arguments for container number n; `end` those that end an
    idle one whose command does not stay with it; `stdin` is what it reads. `reason` says why it cannot run here."""

    name: str
    run: Callable[[int], Sequence[str]]
    idle: Callable[[int], Sequence[str]]
    end: Callable[[int], Sequence[str]] | None = None
    stdin: str = os.devnull  # a file
    reason: str | None = None


def peers(root: Path, work: Path, command: Sequence[str] = TRUE) -> list[Peer]:
    """crun, runc and bubblewrap, ready to run `command` in `root`; `work` is a folder for their bundles and state."""
    crun = ("crun", "--cgroup-manager=disabled", "--root", str(work / "crun"))
    runc = ("runc", "--root", str(work / "runc"))
    for folder, args in (("bundle", command), ("idle", IDLE)):
        (work / folder).mkdir()
        (work / folder / "config.json").write_text(json.dumps(oci_config(root, args)))
    return [
        _oci_peer("crun", crun, work),
        _oci_peer("runc", runc, work),
        Peer(
            "bubblewrap",
            lambda _: _bubblewrap(root, command),
            lambda _: _bubblewrap(root, IDLE),
            stdin=str(filter_file(work)),
            reason=_missing("bwrap"),
        ),
    ]


def _oci_peer(name: str, program: Sequence[str], work: Path) -> Peer:
    def container(number: int) -> str:
        return f"labkit-bench-{os.getpid()}-{number}"

    def run(folder: str, *options: str) -> Callable[[int], Sequence[str]]:
        arguments = (*program, "run", "--no-new-keyring", *options, "--bundle", str(work / folder))
        return lambda number: (*arguments, container(number))

    not_root = "needs root to be measured with the same namespaces" if os.geteuid() != 0 else None
    return Peer(
        name,
        run("bundle"),
        run("idle", "--detach"),
        lambda number: (*program, "delete", "--force", container(number)),
        reason=_missing(name) or not_root,
    )


def filter_file(work: Path) -> Path:
    """The seccomp filter that labkit's containers have by default, as a program in BPF; empty where there is none."""
    file = work / "filter.bpf"
    if not file.exists():
        file.write_bytes(seccomp.compile_profile(_profile()) if seccomp.available() else b"")
    return file


def _profile() -> seccomp.Profile:
    return seccomp.default_profile(capabilities.DEFAULT)


def _missing(command: str) -> str | None:
    return None if shutil.which(command) else f"{command} is not installed"


def _bubblewrap(root: Path, command: Sequence[str]) -> Sequence[str]:
    arguments = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup"]
    if os.geteuid() == 0:
        arguments += ["--cap-drop", "ALL", *(f for cap in capabilities.DEFAULT for f in ("--cap-add", f"CAP_{cap}"))]
    else:
        arguments += ["--unshare-user", "--uid", "0", "--gid", "0"]
    # It has no sysfs of its own, and makes parts read-only by binding the caller's: the same number of mounts.
    arguments += [
        "--bind",
        str(root),
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--mqueue",
        "/dev/mqueue",
        "--ro-bind",
        "/sys",
        "/sys",
    ]
    for path in (f"/{path}" for path in rootfs.READONLY):
        arguments += ["--ro-bind-try", path, path]
    for path in (f"/{path}" for path in rootfs.MASKED):
        if os.path.isdir(path):
            arguments += ["--tmpfs", path, "--remount-ro", path]
        elif os.path.exists(path):
            arguments += ["--ro-bind", "/dev/null", path]
    arguments += ["--seccomp", "0"]  # the filter, as its standard input
    return (*arguments, "--hostname", "container", "--die-with-parent", "--", *command)


def oci_config(root: Path, args: Sequence[str]) -> dict[str, object]:
    caps = [f"CAP_{name}" for name in capabilities.DEFAULT]
    kinds = ("mount", "uts", "ipc", "pid", "network", "cgroup")

    def mount(step: Any) -> dict[str, object]:
        _, fstype, target, attributes, options = step
        return {"destination": f"/{target}", "type": fstype, "source": fstype, "options": [*attributes, *options]}

    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), caps),
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": False},
        "hostname": "container",
        "mounts": [mount(step) for step in rootfs.DEFAULT_PLAN if step[0] == "filesystem"],
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "readonlyPaths": [f"/{path}" for path in rootfs.READONLY],
            "maskedPaths": [f"/{path}" for path in rootfs.MASKED],
            "seccomp": _oci_seccomp(_profile()),
        },
    }


def _oci_seccomp(profile: seccomp.Profile) -> dict[str, object]:
    """A profile as config-linux.md has it."""
    return {
        "defaultAction": profile.default_action,
        "defaultErrnoRet": profile.default_errno_ret,
        "architectures": list(profile.architectures),
        "syscalls": [
            {
                "names": list(rule.names),
                "action": rule.action,
                **({} if rule.errno_ret is None else {"errnoRet": rule.errno_ret}),
                "args": [
                    {"index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op}
                    for arg in rule.args
                ],
            }
            for rule in profile.syscalls
        ],
    }
