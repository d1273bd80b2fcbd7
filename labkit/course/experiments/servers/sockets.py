"""Who listens on a port of the lab host. These functions run in a child there: /proc/net shows the caller's network.

/proc/net/tcp has a line for each socket, with its inode; /proc/PID/fd has a link `socket:[INODE]` for each process that
holds it. Several may hold one: it is inherited over fork(2). Source: proc_pid_net(5).
"""

import os
from contextlib import suppress

from labkit import procfs

LISTEN = "0A"  # the state, in hexadecimal
LOOPBACK = "0100007F"  # 127.0.0.1, its bytes from right to left


def listening(port: int) -> dict[str, int]:
    """The sockets that listen on a TCP port: address as /proc/net/tcp writes it, to inode."""
    found = {}
    for name in ("tcp", "tcp6"):
        with suppress(FileNotFoundError), open(f"/proc/net/{name}") as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                address, _, its_port = fields[1].rpartition(":")
                if fields[3] == LISTEN and int(its_port, 16) == port:
                    found[address] = int(fields[9])
    return found


def holders(port: int) -> list[int]:
    """The processes that hold a socket which listens on `port`, the one first from which the others have it."""
    wanted = {f"socket:[{inode}]" for inode in listening(port).values()}
    found = [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and wanted & _open_in(entry)]
    return sorted(found, key=lambda pid: (_parent(pid) in found, pid))


def held_by(port: int, pids: list[int]) -> bool:
    """Whether every socket that listens on `port` is held by one of `pids`."""
    open_ = set().union(*(_open_in(str(pid)) for pid in pids))
    return {f"socket:[{inode}]" for inode in listening(port).values()} <= open_


def owner(port: int) -> str | None:
    """Who listens on `port`, in words; None where nobody does."""
    if not listening(port):
        return None
    for pid in holders(port):
        with suppress(OSError):
            return f"process {pid} ({procfs.stat(pid)[1]})"
    return "somebody"


def _open_in(pid: str) -> set[str]:
    links = set()
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                links.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return links


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(procfs.stat(pid)[3])
    return 0
