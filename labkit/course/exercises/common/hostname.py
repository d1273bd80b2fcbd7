"""Hostnames as checks look at them: from outside the learner's process, for labs 00 and 05."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from labkit import host, namespaces, process, procfs, syscalls
from labkit.course.framework import pace
from labkit.course.framework.outcomes import NotYet
from labkit.errors import LabkitError

_POLL_SECONDS = 0.02


def own() -> str:
    """The hostname of the process that calls this."""
    return os.uname().nodename


def of(pid: int) -> str:
    """The hostname that process `pid` sees: read by a child that joins its UTS namespace for a moment."""
    return namespaces.inside(pid, ("uts",), own)


def uts(pid: int | str) -> int:
    """The inode of the UTS namespace of `pid`."""
    return procfs.namespace_inode(pid, "uts")


def label(inode: int) -> str:
    """A UTS namespace as the kernel writes it, for a verdict."""
    return f"`uts:[{inode}]`"


@contextmanager
def lab_host_restored() -> Iterator[str]:
    """Give the lab host's hostname, and set it again at the end: a wrong answer often changes it for everybody."""
    before = of(host.pid())
    try:
        yield before
    finally:
        with suppress(LabkitError):
            if of(host.pid()) != before:
                process.run_in_child(syscalls.sethostname, before)


def until(condition: Callable[[], bool], seconds: float = 2.0) -> bool:
    """Whether `condition` becomes true within `seconds`; what it looks at may vanish meanwhile."""
    deadline = time.monotonic() + pace.scaled(seconds)
    while True:
        with suppress(OSError, LabkitError):
            if condition():
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)


def is_another_program(child: process.Child) -> bool:
    """Whether the function has executed a program: then nobody tells us when it has done its work."""
    with suppress(ProcessLookupError):
        return procfs.cmdline(child.pid) != procfs.cmdline(host.pid())
    return True


def settle(child: process.Child, condition: Callable[[], bool]) -> None:
    """Where the function has executed a program, wait for `condition`; a function that returned has done its work."""
    if is_another_program(child):
        until(lambda: not child.alive or condition())


def ended(child: process.Child) -> NotYet | None:
    """The verdict where the process to be looked at has ended; None while it is alive."""
    if child.alive:
        return None
    return NotYet(
        f"The process ended with exit code {child.wait()} before the check could look at it.",
        "A process that has ended is in no namespace any more. If your function executes a program, choose one that "
        "stays, such as `sleep 60`. Or does it call `os._exit`?",
    )


def threads_elsewhere(pid: int | str) -> list[int]:
    """The namespaces of those threads of `pid` that are not where its first thread is."""
    first, found = uts(pid), set()
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(OSError):
            found.add(uts(f"{pid}/task/{thread}"))
    return sorted(found - {first})


def forked_elsewhere(pid: int) -> list[tuple[int, int]]:
    """(PID, namespace) of those descendants of `pid` that are not where it is."""
    first, found = uts(pid), []
    for descendant in procfs.descendants(pid):
        with suppress(OSError):
            if (inode := uts(descendant)) != first:
                found.append((descendant, inode))
    return found


def own_name(child: process.Child, wanted: str, host_before: str) -> NotYet | None:
    """Whether `child` has a UTS namespace and the hostname `wanted` for itself; None where it has."""
    settle(child, lambda: uts(child.pid) != uts(host.pid()) and of(child.pid) == wanted)
    if verdict := ended(child):
        return verdict
    inside, outside = uts(child.pid), uts(host.pid())
    name, host_name = of(child.pid), of(host.pid())
    if inside == outside:
        return _not_moved(child.pid, inside, wanted, host_name, host_before)
    if host_name == wanted:
        return NotYet(
            f"The child is in {label(inside)}, a namespace of its own, and is called `{name}`. But the lab host in "
            f"{label(outside)} is called `{host_name}` too: the name was set before the child had left.",
            "A new namespace begins as a copy of the old one, names included, so the right name inside proves little. "
            "`sethostname` changes the namespace the caller is in at that moment. Which call comes first?",
        )
    if host_name != host_before:
        return NotYet(
            f"The child is called `{name}` in {label(inside)}, but the lab host's name is now `{host_name}`; it was "
            f"`{host_before}`.",
            "The lab host's name must stay as it was. Which of your calls was made before the child had left?",
        )
    if name != wanted:
        return NotYet(
            f"The child is in {label(inside)}, a namespace of its own, but its name there is `{name}`, not `{wanted}`.",
            "A new UTS namespace begins with a copy of the old name. Which call changes it, and was it given the "
            "`hostname` that the function was called with?",
        )
    return None


def _not_moved(pid: int, inode: int, wanted: str, host_name: str, host_before: str) -> NotYet:
    """The child is still where the lab host is: what was done instead?"""
    renamed = f" And the lab host is now called `{host_name}`." if host_name != host_before else ""
    if forked := forked_elsewhere(pid):
        other, elsewhere = forked[0]
        return NotYet(
            f"Your function forked: process {other} is in {label(elsewhere)}, but its parent, process {pid}, which ran "
            f"your function, is still in {label(inode)} with the lab host.{renamed}",
            "`unshare` moves the process that calls it, and nobody else: neither its parent nor a child it already "
            "has. On which side of the fork was each call made? Is a fork needed at all?",
        )
    if elsewhere_threads := threads_elsewhere(pid):
        return NotYet(
            f"A thread of process {pid} is in {label(elsewhere_threads[0])}, but the process's first thread is still "
            f"in {label(inode)} with the lab host.{renamed}",
            "`unshare` moves the thread that calls it. `/proc/PID/ns` shows the first thread. Which thread calls it?",
        )
    if host_name == wanted and (moved := threads_elsewhere("self")):
        return NotYet(
            f"The child's hostname is `{wanted}`, and so is the lab host's: both are in {label(inode)}. And the "
            f"notebook itself is split: its first thread is in {label(uts('self'))}, the others in {label(moved[0])}.",
            "`unshare` was called in the notebook's own process, where cells run, and not by the child: perhaps "
            "outside of the function, perhaps by calling the function in a cell. Which process should make the call? "
            "(Restart the kernel to mend the notebook.)",
        )
    if host_name != host_before:
        return NotYet(
            f"The child's hostname is now `{host_name}`, and so is the lab host's: both are in {label(inode)}. "
            f"Everything on the lab host was renamed.",
            "The name was changed while the child had no UTS namespace of its own. Which call makes one, and does it "
            "come before or after?",
        )
    return NotYet(
        f"The child is still in {label(inode)}, as the lab host is, and both are called `{host_name}`.",
        "Nothing has moved the process and nothing has renamed it. Which call gives a process a namespace of its own? "
        "And was it made by the process itself?",
    )
