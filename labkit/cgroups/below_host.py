"""The control groups of the lab host: those that labs and containers make, all below the lab host's own.

They end with the lab host at the latest. The calling process makes them, whether it is the notebook, which sees the lab
host's group somewhere in the machine's tree, or a child on the lab host, which sees it as the root at /sys/fs/cgroup.
Where the machine has no controllers to delegate, `Unsupported` says why.
"""

import os
from typing import Any

from labkit import host
from labkit.cgroups.cgroup import Cgroup, check_name
from labkit.cgroups.limits import Limits
from labkit.errors import InvalidConfig, Unsupported
from labkit.host import cgroup as host_cgroup
from labkit.kernel import cgroupfs


def controllers() -> tuple[str, ...]:
    """The controllers that groups on the lab host have, such as `("cpu", "memory", "pids", "io")`; () if none."""
    top, _ = _lab_host()
    found = cgroupfs.words(f"{top}/cgroup.subtree_control") if top else ()
    return tuple(name for name in host_cgroup.CONTROLLERS if name in found)


def unsupported() -> Unsupported | None:
    """Why there can be no groups on the lab host; None if there can."""
    try:
        top, lack = _lab_host()
    except Unsupported as error:
        return error
    return None if top else Unsupported(*lack)


def create(name: str, limits: Limits | None = None) -> Cgroup:
    """Make the group `name` below the lab host's, with `limits`.

    `InvalidConfig`: the name is none, or taken. `Unsupported`: no groups here, or not this limit. Then nothing is left.
    """
    check_name(name)
    return HostCgroup.make(_top(), name, limits)


def find(name: str) -> Cgroup:
    """The group at the path `name` ("a/b") below the lab host's that is there already, whoever has made it."""
    for part in name.split("/"):
        check_name(part)
    group = HostCgroup(_top(), name)
    if not os.path.isdir(group.path):
        raise InvalidConfig(f"there is no control group {name[:80]!r} on the lab host")
    return group


class HostCgroup(Cgroup):
    """A group below the lab host's: sent to a child, it is the same group, which lies elsewhere for the child."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _here, (self.name,)


def _lab_host() -> tuple[str, tuple[str, str]]:
    """The folder of the lab host's group as this process sees it; or "" and what is lacking."""
    if host_cgroup.on_lab_host:  # we are a child of the zygote
        return (host_cgroup.MOUNT if host_cgroup.current else ""), host_cgroup.lack
    current = host.current()
    return current.group, current.without_group


def _top() -> str:
    top, lack = _lab_host()
    if not top:
        raise Unsupported(*lack)
    return top


def _here(name: str) -> Cgroup:
    return HostCgroup(_top(), name)
