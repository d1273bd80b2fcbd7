"""The lab host: namespaces of the course's own, in which every lab and container runs."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from labkit.host.lab_host import (
        Handler,
        LabHost,
        Started,
        absolute_import_path,
        current,
        map_ids,
        namespaces,
        pid,
        reset,
        reset_all,
        running,
    )

__all__ = [
    "Handler",
    "LabHost",
    "Started",
    "absolute_import_path",
    "current",
    "map_ids",
    "namespaces",
    "pid",
    "reset",
    "reset_all",
    "running",
]


def __getattr__(name: str) -> "Any":
    # The zygote is in this room, too, and must not load what its callers need.
    if name in __all__:
        from labkit.host import lab_host

        return getattr(lab_host, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
