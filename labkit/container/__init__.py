"""Containers: a command in namespaces and a root filesystem of its own.

`run(["echo", "hello"])` runs one to its end; `start([...])` gives it back while it runs. Both take what `Config` takes,
and work as root and as an ordinary user alike, since they happen on the lab host, where either is root.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from labkit.container.container import Completed, Container

# The imports are inside the functions because the zygote imports this package too, for `container.launch`, and every
# page it has is a page that each container's first moment copies.


def start(
    args: list[str], *, root: str | os.PathLike[str] | None = None, capture: bool = False, **config: "Any"
) -> "Container":
    """Start `args` in a new container; return once the command has been executed.

    `root` is a folder with a root filesystem (the course's busybox by default); for the rest see `Config`. With
    `capture` its output is kept, else it appears where the caller prints. Raises `InvalidConfig`; `CommandNotFound`,
    `CommandNotRunnable` or another `StartError`, and then nothing is left.
    """
    from labkit import rootfs
    from labkit.container.config import Config
    from labkit.container.container import Container

    return Container(Config(args, rootfs.find("busybox") if root is None else root, **config), capture=capture)


def run(
    args: list[str],
    *,
    root: str | os.PathLike[str] | None = None,
    capture: bool = False,
    timeout: float | None = None,
    **config: "Any",
) -> "Completed":
    """Run `args` in a new container to its end, as `start` does; return its exit code and, with `capture`, its output.

    After `timeout` seconds the container is killed and `TimeoutError` raised.
    """
    with start(args, root=root, capture=capture, **config) as container:
        return container.finish(timeout)
