"""What the facts about a machine mean for the labs, and how to mend what is missing. Nothing is looked at here."""

from dataclasses import dataclass
from typing import Literal

from labkit.course.doctor.facts import Machine

Status = Literal["yes", "partly", "no", "-"]
DISK_BYTES = 1_000_000_000
MEMORY_BYTES = 1_000_000_000
LIMITS = ("cpu", "memory", "pids")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table. `mend` is what to do, in one line, where the status is not "yes"."""

    topic: str
    status: Status
    seen: str
    mend: str = ""


def findings(machine: Machine) -> list[Finding]:
    """What the facts mean, topic by topic."""
    return [
        Finding("machine", "-", f"{machine.system}, Linux {machine.kernel}, {machine.architecture}{_inside(machine)}"),
        Finding("Python", "yes", f"{machine.python}, as {machine.user}"),
        *_namespaces(machine),
        _user_namespaces(machine),
        _subordinate(machine),
        _trial(machine, "proc", "new /proc", "for a PID namespace of one's own"),
        _trial(machine, "overlay", "overlay", "mounted and written to"),
        *_cgroups(machine),
        _kvm(machine),
        _vm(machine),
        _disk(machine),
        _memory(machine),
        _rootfs(machine),
        _lab_hosts(machine),
        _left_over(machine),
    ]


def _verdict(topic: str, good: bool, seen: str, mend: str, otherwise: Status = "no") -> Finding:
    return Finding(topic, "yes", seen) if good else Finding(topic, otherwise, seen, mend)


def _inside(machine: Machine) -> str:
    return f", inside {machine.container}" if machine.container else ""


def _why_namespaces(machine: Machine) -> str:
    """What most likely keeps this user from making namespaces, and the line that changes it."""
    if machine.container:
        return f"{machine.container} forbids it: start the container with --privileged, or use the machine itself"
    if machine.sysctls.get("kernel.unprivileged_userns_clone") == "0":
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if machine.sysctls.get("user.max_user_namespaces") == "0":
        return "sudo sysctl -w user.max_user_namespaces=15000"
    if machine.sysctls.get("kernel.apparmor_restrict_unprivileged_userns") == "1":
        return "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    return "use a virtual machine: ./lab --vm"


def _namespaces(machine: Machine) -> list[Finding]:
    kinds = ("mnt", "uts", "ipc", "pid", "net", "cgroup", "time")
    refused = {kind: why for kind in kinds if (why := machine.trials.get(kind, "not tried"))}
    needed: list[str] = [kind for kind in ("mnt", "uts", "ipc", "pid") if kind in refused]
    if not needed and machine.trials.get("mount", "not tried"):
        needed = ["mnt (made, but nothing can be mounted in it)"]
    mend = _why_namespaces(machine)
    how = "as root" if machine.uid == 0 else "through a user namespace"
    seen = f"refused: {', '.join(needed)}" if needed else f"mounts, names, IPC and PIDs, {how}"
    return [
        _verdict("namespaces", not needed, seen, mend),
        *(_verdict(f"  {kind}", kind not in refused, refused.get(kind, "made one"), "") for kind in kinds),
    ]


def _user_namespaces(machine: Machine) -> Finding:
    why = machine.trials.get("user", "not tried")
    # Ubuntu's AppArmor lets the namespace be made, but takes every capability in it away.
    inside = machine.trials.get("mount", "")
    if not why and inside and machine.uid != 0:
        why = f"one can be made, but no mount in it: {inside}"
    limit = machine.sysctls.get("user.max_user_namespaces", "?")
    return _verdict("user namespaces", not why, why or f"made one (at most {limit})", _why_namespaces(machine))


def _subordinate(machine: Machine) -> Finding:
    topic = "subordinate ids"
    if machine.uid == 0:
        return Finding(topic, "yes", "root may map any")
    if machine.subordinate_ids == 0:
        mend = f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {machine.user}"
        return Finding(topic, "partly", "none: containers have one user only", mend)
    if not machine.newuidmap:
        return Finding(topic, "partly", "newuidmap is missing", "sudo apt-get install uidmap")
    return Finding(topic, "yes", f"{machine.subordinate_ids} uids")


def _trial(machine: Machine, trial: str, topic: str, seen: str) -> Finding:
    why = machine.trials.get(trial, "not tried")
    mend = "sudo modprobe overlay" if trial == "overlay" and why == "No such device" else _why_namespaces(machine)
    return _verdict(topic, not why, why or seen, mend)


def _cgroups(machine: Machine) -> list[Finding]:
    groups = machine.cgroups
    mend = groups.mend or "limits need cgroup v2: ./lab --vm"
    version = _verdict("cgroups", groups.version == "v2", groups.version, mend)
    lacking = [name for name in LIMITS if name not in groups.delegated]
    handed = " ".join(groups.delegated)
    if not lacking:
        return [version, Finding("cgroup controllers", "yes", f"{handed} in {groups.group}")]
    seen = f"{handed or groups.lack or 'none'}; lacking: {' '.join(lacking)}"
    return [version, Finding("cgroup controllers", "no", seen, mend)]


def _kvm(machine: Machine) -> Finding:
    why = machine.trials.get("kvm", "not tried")
    if not why:
        return _kvm_modes(machine)
    if not machine.kvm_device:
        mend = "switch virtualisation on in the firmware; in a VM, nested virtualisation"
        return Finding("KVM", "no", "there is no /dev/kvm", mend)
    if why == "Permission denied":
        mend = f"sudo usermod -aG kvm {machine.user}, then log in again"
        return Finding("KVM", "no", "/dev/kvm is not yours to open", mend)
    return Finding("KVM", "no", f"/dev/kvm: {why}")


def _kvm_modes(machine: Machine) -> Finding:
    refused = [why for why in machine.kvm_modes.values() if why]
    modes = ", ".join(mode for mode, why in machine.kvm_modes.items() if not why)
    seen = f"small guests run: {modes} mode" if modes else "a machine can be made, but runs nothing"
    mend = f"{refused[0]}; lab 04 runs such guests in software" if refused else ""
    return _verdict("KVM", not refused, seen, mend, "partly")


def _vm(machine: Machine) -> Finding:
    ready = [kind for kind, lack in machine.vm_kinds.items() if not lack]
    lacks = "; ".join(f"{kind}: {lack}" for kind, lack in machine.vm_kinds.items())
    seen = f"{' and '.join(ready)} (./lab vm)" if ready else lacks or "none"
    return _verdict(
        "virtual machines", bool(ready), seen, "sudo apt-get install user-mode-linux qemu-system-x86", "partly"
    )


def _disk(machine: Machine) -> Finding:
    free = machine.disk_free_bytes
    return _verdict("disk", free >= DISK_BYTES, f"{free / 1e9:.1f} GB free", "free 1 GB or more", "partly")


def _memory(machine: Machine) -> Finding:
    free = machine.memory_available_bytes
    seen = f"{free / 1e9:.1f} of {machine.memory_bytes / 1e9:.1f} GB available"
    return _verdict("memory", free >= MEMORY_BYTES, seen, "close other programs", "partly")


def _rootfs(machine: Machine) -> Finding:
    seen = "; ".join(f"{name}: {change}" for name, change in machine.rootfs.items() if change)
    otherwise: Status = "no" if machine.rootfs.get("busybox", "none") else "partly"  # the others are the servers'
    good = "busybox" in machine.rootfs and not seen
    return _verdict("root filesystems", good, seen or " ".join(machine.rootfs) or "none", "./lab setup", otherwise)


def _lab_hosts(machine: Machine) -> Finding:
    pids = ", ".join(map(str, machine.lab_hosts))
    return Finding("lab hosts", "-", f"running: {pids}" if pids else "none running", "./lab reset" if pids else "")


def _left_over(machine: Machine) -> Finding:
    seen = ", ".join(machine.left_over) or "nothing"
    return _verdict("left over", not machine.left_over, seen, "./lab reset", "partly")
