"""The files and folders of control groups: read, written, waited for, and whole trees of them emptied and removed.

A group is a folder; mkdir makes it, rmdir removes it, and its files are the kernel's. Everything here works on
descriptors of folders, so that it does not matter what is mounted where meanwhile. cgroup-v2.rst.
"""

import os
import select
import time
from contextlib import suppress

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def words(path: str, dir_fd: int | None = None) -> tuple[str, ...]:
    """What a file of a group lists; empty where there is no such file, or none that may be read."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)) as file:
            return tuple(file.read().split())
    except OSError:
        return ()


def write(path: str, text: str, dir_fd: int | None = None) -> None:
    """Write `text` to a group's file in one write(2), which is how the kernel wants it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def enable(fd: int, controllers: tuple[str, ...]) -> None:
    """Hand `controllers` on to the groups below the one whose directory is `fd`; those that cannot be stay off."""
    enabled = words("cgroup.subtree_control", fd)
    for name in controllers:
        if name not in enabled:
            with suppress(OSError):
                write("cgroup.subtree_control", f"+{name}", fd)


def below(fd: int) -> list[str]:
    """The paths of all groups below the one whose directory is `fd`, each after the one it lies in."""
    found = [""]
    for path in found:
        with suppress(FileNotFoundError):
            folder = os.open(path or ".", DIRECTORY, dir_fd=fd)
            try:
                with os.scandir(folder) as entries:
                    found += [
                        os.path.join(path, entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)
                    ]
            finally:
                os.close(folder)
    return found[1:]


def kill(fd: int) -> None:
    """Kill every process below the group whose directory is `fd`, those that fork and those that are frozen included.

    Not by its own `cgroup.kill`: at the root of a cgroup namespace that file is out of bounds. Before Linux 5.14 there
    is none.
    """
    for path in below(fd):
        try:
            write(f"{path}/cgroup.kill", "1", fd)
        except FileNotFoundError:
            for pid in words(f"{path}/cgroup.procs", fd):
                with suppress(ProcessLookupError):
                    os.kill(int(pid), 9)


def wait_until_empty(fd: int, timeout: float) -> bool:
    """Wait until no process is in or below the group whose directory is `fd`; False after `timeout` seconds."""
    return wait_for_event(fd, "populated 0", timeout)


def wait_for_event(fd: int, line: str, timeout: float) -> bool:
    """Wait until `cgroup.events` of the group whose directory is `fd` has `line`; False after `timeout` seconds."""
    with open(os.open("cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)) as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)  # what a change gives; to have read the file is what it is measured from
        deadline = time.monotonic() + timeout
        while line not in events.read().splitlines():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000)
            events.seek(0)
    return True


def remove(parent_fd: int, name: str) -> None:
    """Remove the group `name` in the directory `parent_fd`, and all below it. EBUSY: a process is in one of them."""
    fd = os.open(name, DIRECTORY, dir_fd=parent_fd)
    try:
        for path in reversed(below(fd)):
            with suppress(FileNotFoundError):
                os.rmdir(path, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent_fd)
