"""The plan of a container's root as it can be carried out: here and there another way leads to the same."""

from labkit.mounts import plan as mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from labkit.launch.spec import ContainerSpec

_filesystems: "set[str] | None" = None


def plan_of(spec: "ContainerSpec", *, owns_network: bool, mapped: bool, has_group: bool) -> "tuple[mounts.Step, ...]":
    """The plan as it can be carried out: in a user namespace some things are done another way."""
    plan: list[mounts.Step] = []
    steps: tuple[tuple[Any, ...], ...] = spec.plan
    own_groups = any(step[:2] == ("filesystem", "cgroup2") for step in steps)
    for step in steps:
        if step[0] == "filesystem" and step[1] == "mqueue" and not _kernel_has("mqueue"):
            continue
        if mapped and step[0] == "device":
            step = mounts.bound_device(step[1])
        if step[:2] == ("filesystem", "sysfs"):
            if mapped and not owns_network:
                # A sysfs shows a network namespace, and only who is root over that one may mount it.
                step = ("bind", "/sys", "sys", ("rro", "rnosuid", "rnodev", "rnoexec"))
            plan.append(step)
            if has_group and not own_groups:
                plan.append(("filesystem", "cgroup2", "sys/fs/cgroup", ("nosuid", "nodev", "noexec", "ro"), ()))
            continue
        plan.append(step)
    if spec.process.init:
        plan.append(("bind", spec.process.init, "dev/init", ("ro", "nosuid", "nodev")))
    if spec.sysctl:
        # It takes a procfs of its own for that, since the container's is read-only there by now.
        plan.append(("sysctls", spec.sysctl))
    return tuple(plan)


def _kernel_has(filesystem: str) -> bool:
    global _filesystems
    if _filesystems is None:
        with open("/proc/filesystems") as file:
            _filesystems = {line.split()[-1] for line in file}
    return filesystem in _filesystems
