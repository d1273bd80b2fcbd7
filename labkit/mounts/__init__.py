"""Mounts: the plan of a mount tree as data, and the calls that make it."""

from labkit.mounts.plan import (
    bind_of,
    bound_device,
    describe,
    device,
    directory,
    filesystem,
    mask,
    may_make_devices,
    nodev,
    open_sources,
    readonly,
    symlink,
    sysctls,
    write,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from labkit.mounts.plan import Sources, Step

__all__ = [
    "Sources",
    "Step",
    "bind_of",
    "bound_device",
    "describe",
    "device",
    "directory",
    "filesystem",
    "mask",
    "may_make_devices",
    "nodev",
    "open_sources",
    "readonly",
    "symlink",
    "sysctls",
    "write",
]
