"""Functions run in a child process on the lab host: `run_in_child(fn)`, `spawn(fn)`."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from labkit.process.child import Child, run_in_child, spawn, spawn_closed

__all__ = ["Child", "run_in_child", "spawn", "spawn_closed"]


def __getattr__(name: str) -> "Any":
    # The zygote imports labkit.process.worker, and each page that it has is one that a child's first moment copies.
    if name in __all__:
        from labkit.process import child

        return getattr(child, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
