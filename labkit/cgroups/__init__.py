"""Control groups, version 2: made, limited, measured and removed; cgroup-v2.rst."""

from labkit.cgroups.below_host import controllers, create, find, unsupported
from labkit.cgroups.cgroup import Cgroup, write
from labkit.cgroups.events import Event
from labkit.cgroups.limits import MAX, IoMax, Limits

__all__ = ["MAX", "Cgroup", "Event", "IoMax", "Limits", "controllers", "create", "find", "unsupported", "write"]
