"""Containers: a command in namespaces and a root filesystem of its own.

`run(["echo", "hello"])` runs one to its end; `start([...])` gives it back while it runs. Both take what `Config` takes,
and work as root and as an ordinary user alike, since they happen on the lab host, where either is root.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from labkit.container.container import Container
    from labkit.container.process import Completed
    from labkit.overlay import Overlay

# The imports are inside the functions because the zygote imports this package too, for `container.launch`, and every
# page it has is a page that each container's first moment copies.


def start(
    args: list[str],
    *,
    root: "str | os.PathLike[str] | Overlay | None" = None,
    capture: bool | int = False,
    stdin: int | bytes | None = None,
    **config: "Any",
) -> "Container":
    """Start `args` in a new container; return once the command has been executed.

    `root` is a folder with a root filesystem, or an `Overlay`; by default the course's busybox, of which each container
    has a view of its own: what it changes is kept in memory, and forgotten with it. For the rest see `Config`.

    With `capture` its output is kept (a number: so many bytes of it at most), else it appears where the caller prints;
    `stdin` is a descriptor, or bytes. Raises `InvalidConfig`; `CommandNotFound`, `CommandNotRunnable` or another
    `StartError`, and then nothing is left.
    """
    return _container(args, root, config, capture=capture, stdin=stdin)


def create(
    args: list[str],
    *,
    root: "str | os.PathLike[str] | Overlay | None" = None,
    capture: bool | int = False,
    stdin: int | bytes | None = None,
    **config: "Any",
) -> "Container":
    """As `start`, but the command is not executed yet: all is set up, and waits for the container's `start()`."""
    return _container(args, root, config, capture=capture, stdin=stdin, create=True)


def run(
    args: list[str],
    *,
    root: "str | os.PathLike[str] | Overlay | None" = None,
    capture: bool | int = False,
    stdin: int | bytes | None = None,
    timeout: float | None = None,
    **config: "Any",
) -> "Completed":
    """Run `args` in a new container to its end, as `start` does; return its exit code and, with `capture`, its output.

    After `timeout` seconds the container is killed and `TimeoutError` raised.
    """
    with start(args, root=root, capture=capture, stdin=stdin, **config) as container:
        return container.finish(timeout)


def _container(
    args: list[str], root: "str | os.PathLike[str] | Overlay | None", config: "dict[str, Any]", **how: "Any"
) -> "Container":
    from labkit import rootfs
    from labkit.container.config import Config
    from labkit.container.container import Container
    from labkit.kernel.nofile import plainly
    from labkit.overlay import Overlay

    with plainly("starting the container"):
        chosen = Overlay.scratch(rootfs.find("busybox")) if root is None else root
        return Container(Config(args, chosen, **config), **how)
