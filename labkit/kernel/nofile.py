"""The limit on a process's open descriptors (RLIMIT_NOFILE), out of the way of whoever holds many children.

The soft limit is often 1024, so that programs with select(2) stay within what that can count to; the hard one is where
the machine draws the line. Each container takes four descriptors of its caller and two of the zygote. So the zygote
raises its soft limit to the hard one at its start, the caller when it comes near, and every child gets the limit that
the caller had at first. getrlimit(2).
"""

import errno
import resource
from contextlib import contextmanager

from labkit import syscalls
from labkit.errors import LabkitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RLIMIT_NOFILE = resource.RLIMIT_NOFILE
RESERVE = 20  # what is left free, for what a start itself opens in a caller

_first: tuple[int, int] | None = None


def limit() -> tuple[int, int]:
    """This process's limit, (soft, hard), as it was before it was raised here."""
    return _first or resource.getrlimit(RLIMIT_NOFILE)


def raise_limit(first: tuple[int, int] | None = None) -> None:
    """Raise the soft limit to the hard one. `first` is what `limit` shall say from now on."""
    global _first
    _first = first or limit()
    hard = resource.getrlimit(RLIMIT_NOFILE)[1]
    resource.setrlimit(RLIMIT_NOFILE, (hard, hard))


def restore() -> None:
    """Give this process the limit that it, or the process it was forked from, had at first."""
    resource.setrlimit(RLIMIT_NOFILE, limit())


def make_room(fd: int, reserve: int = RESERVE) -> None:
    """Raise the limit if fewer than `reserve` descriptors are left: `fd`, opened just now, is the lowest that was free.

    `LabkitError`: the hard limit itself is near.
    """
    soft, hard = resource.getrlimit(RLIMIT_NOFILE)
    if fd < soft - reserve:
        return
    if fd >= hard - reserve:
        raise LabkitError(_used_up(hard))
    raise_limit()


def close_but(kept: "Iterable[int]") -> None:
    """Close all descriptors of this process from 3 on, except those `kept`."""
    first = 3
    for fd in sorted({fd for fd in kept if fd >= first}):
        if fd > first:
            syscalls.close_range(first, fd - 1)
        first = fd + 1
    syscalls.close_range(first)


@contextmanager
def plainly(doing: str) -> "Iterator[None]":
    """Raise as a `LabkitError` what the kernel refuses meanwhile; where no descriptor was left it says what to do.

    `doing` is the beginning of that sentence, "starting the container". Not for a learner's own code, whose errors are
    theirs to see; and a `TimeoutError` is an answer, not a refusal.
    """
    try:
        yield
    except TimeoutError:
        raise
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise LabkitError(_used_up(resource.getrlimit(RLIMIT_NOFILE)[1])) from None
        what = f": {error.filename}" if error.filename else ""
        raise LabkitError(f"{doing} failed: {error.strerror or error}{what}") from None


def _used_up(hard: int) -> str:
    return (
        f"nearly all of the {hard} descriptors that a process may open here are in use (ulimit -Hn), and each "
        "running container or child takes some: end those that are no longer needed"
    )
