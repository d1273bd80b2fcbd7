"""The facts about this machine that decide which labs can run on it. Looked at and tried, never guessed."""

import json
import os
import platform
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from labkit import idmap, procfs
from labkit.errors import Unsupported
from labkit.files import manifest, state_folder


@dataclass(frozen=True)
class Cgroups:
    """`version` is v2, hybrid (v1 with an empty v2 tree beside it), v1 or none."""

    version: str
    available: tuple[str, ...] = ()  # v2 controllers that the kernel has
    delegated: tuple[str, ...] = ()  # those of them that the lab host's own group would have, below `group`
    group: str = ""
    lack: str = ""  # why it could have none, and what to do about it
    mend: str = ""


@dataclass(frozen=True)
class Machine:
    """What was found. `trials` has a line per thing tried: empty, or why the kernel refused."""

    system: str
    kernel: str
    architecture: str
    python: str
    user: str
    uid: int
    container: str  # docker, podman, lxc, ... or empty
    trials: dict[str, str]
    sysctls: dict[str, str]
    seccomp: bool  # a seccomp filter is on this process, as in a container
    subordinate_ids: int
    newuidmap: bool
    cgroups: Cgroups
    kvm_device: bool
    vm_kinds: dict[str, str]  # kind: empty if it can run here, else what it lacks
    disk_free_bytes: int
    memory_bytes: int
    memory_available_bytes: int
    rootfs: dict[str, str]  # name: empty if it is as it was built, or what was changed in it
    lab_hosts: tuple[int, ...] = field(default=())
    left_over: tuple[str, ...] = field(default=())  # of labs whose notebook was killed
    kvm_modes: dict[str, str] = field(default_factory=dict)  # mode: empty if guests run in it on /dev/kvm, or why not


def examine() -> Machine:
    """Looks at everything; about a tenth of a second."""
    meminfo = _table("/proc/meminfo")
    here = state_folder.checkout()
    root_folder = state_folder.state() / "rootfs"
    return Machine(
        system=_system(),
        kernel=platform.release(),
        architecture=platform.machine(),
        python=platform.python_version(),
        user=_user(os.getuid()),
        uid=os.getuid(),
        container=_container(),
        trials=_trials(),
        sysctls=_sysctls(),
        seccomp=procfs.status("self").get("Seccomp", "0") == "2",
        subordinate_ids=min(_subordinate_ids("/etc/subuid"), _subordinate_ids("/etc/subgid")),
        newuidmap=shutil.which("newuidmap") is not None,
        cgroups=_cgroups(),
        kvm_device=Path("/dev/kvm").exists(),
        vm_kinds=_vm_kinds(),
        disk_free_bytes=shutil.disk_usage(here).free,
        memory_bytes=_kib(meminfo.get("MemTotal", "0")),
        memory_available_bytes=_kib(meminfo.get("MemAvailable", "0")),
        rootfs={path.name: "; ".join(manifest.changes(path)[:1]) for path in sorted(root_folder.glob("[!.]*/"))},
        lab_hosts=_lab_hosts(),
        left_over=_left_over(),
        kvm_modes=_kvm_modes(),
    )


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return platform.system()


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # such as in `docker run --user 1234`
        return str(uid)


def _container() -> str:
    if Path("/.dockerenv").exists():
        return "docker"
    for path in (Path("/run/.containerenv"), Path("/run/systemd/container")):
        if path.exists():
            return "podman" if path.name == ".containerenv" else path.read_text().strip()
    return ""


def _trials() -> dict[str, str]:
    probe = Path(__file__).with_name("probe.py")
    run = subprocess.run([sys.executable, "-I", probe], capture_output=True, text=True, timeout=60)
    if run.returncode != 0:
        last = (run.stderr.strip().splitlines() or ["no output"])[-1]
        return {"probe": f"the trials could not be made: {last}"}
    found: dict[str, str] = json.loads(run.stdout)
    return found


def _sysctls() -> dict[str, str]:
    """The settings that restrict user namespaces, where the kernel has them. user_namespaces(7)."""
    names = (
        "kernel/unprivileged_userns_clone",
        "kernel/apparmor_restrict_unprivileged_userns",
        "user/max_user_namespaces",
    )
    found = {}
    for name in names:
        try:
            found[name.replace("/", ".")] = Path("/proc/sys", name).read_text().strip()
        except OSError:
            continue
    return found


def _subordinate_ids(file: str) -> int:
    """How many ids this user may map besides their own. subuid(5)."""
    return sum(count for _, count in idmap.subordinate(file, os.getuid(), _user(os.getuid())))


def _cgroups() -> Cgroups:
    from labkit.host import cgroup
    from labkit.kernel import cgroupfs

    kinds = {mount.filesystem for mount in procfs.mountinfo()} & {"cgroup", "cgroup2"}
    version = {2: "hybrid", 0: "none"}.get(len(kinds), "v2" if "cgroup2" in kinds else "v1")
    try:
        own, top = cgroup.own_group()
        available = cgroupfs.words(f"{top}/cgroup.controllers")
    except Unsupported as lack:
        return Cgroups(version, lack=lack.what, mend=lack.mend)
    try:
        place = cgroup.find()
    except Unsupported as lack:
        return Cgroups(version, available, (), own, lack.what, lack.mend)
    return Cgroups(version, available, place.controllers, place.folder)


def _vm_kinds() -> dict[str, str]:
    from labkit import vm

    return {name: "" if lack is None else str(lack) for name, lack in vm.kinds(boot=False).items()}


def _kvm_modes() -> dict[str, str]:
    from labkit import kvm

    return {mode: "" if lack is None else lack.what for mode, lack in kvm.modes().items()}


def _lab_hosts() -> tuple[int, ...]:
    from labkit import host

    return tuple(host.running())


def _left_over() -> tuple[str, ...]:
    from labkit.course.doctor import leftovers

    return tuple(leftovers.find())


def _table(path: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in Path(path).read_text().splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _kib(text: str) -> int:
    return int(text.split(maxsplit=1)[0]) * 1024
