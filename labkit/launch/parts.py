"""Small pieces of a process's program: waiting for its parent, a file of /proc, clocks, a loopback interface."""

import os
import struct

from labkit import constants as c
from labkit.kernel import netns
from labkit.program import Block, Program, Value


def receive(program: Program, sync: Value, count: int) -> list[Value]:
    """Wait for a message of one byte on the socket `sync`, with `count` descriptors; return them. recvmsg(2)."""
    received = []
    for number in range(max(1, count)):
        received.append(Value(f"mount_{number}"))
        # struct msghdr: a name, its length, the buffers, how many, control data, its length, flags; cmsg(3): a header
        # of two words, then the descriptor.
        control = Block(0, 0, received[-1])
        program.call("recvmsg", sync, Block(0, 0, Block(Block(0), 1), 1, control, 24, 0), 0x40000000)  # CMSG_CLOEXEC
    return received[:count]


def write_file(program: Program, path: str, text: str, may_fail: bool = False) -> None:
    """Write to a file of the lab host's /proc."""
    program.step(f"writing {text} to {path}")
    how = struct.pack("=3Q", os.O_WRONLY | os.O_CLOEXEC, 0, 0)
    file = Value("file")
    program.call("openat2", c.AT_FDCWD, path, how, len(how), result=file, may_fail=may_fail)
    program.call("write", file, text, len(text), may_fail=may_fail)


def write_time(program: Program, offsets: "tuple[tuple[str, int], ...]") -> None:
    """A time namespace: made for children, given its offsets while nobody is in it, then joined. time_namespaces(7)."""
    program.step("making a time namespace")
    program.call("unshare", c.CLONE_NEWTIME)
    write_file(program, "/proc/self/timens_offsets", "".join(f"{clock} {seconds} 0\n" for clock, seconds in offsets))
    program.step("joining the time namespace")
    how = struct.pack("=3Q", os.O_RDONLY | os.O_CLOEXEC, 0, 0)
    path = "/proc/self/ns/time_for_children"
    namespace = program.call("openat2", c.AT_FDCWD, path, how, len(how), returns="time")
    program.call("setns", namespace, c.CLONE_NEWTIME)


def _own_gid_map() -> str:
    with open("/proc/self/gid_map") as file:
        return file.read()


def write_network(program: Program, gid_map: str) -> None:
    """What a new network namespace is given: see `kernel.netns`. Without a `gid_map`: on the lab host's groups."""
    program.step("bringing up the loopback interface")
    fd = program.call("socket", 2, 2 | os.O_CLOEXEC, 0, returns="socket")  # AF_INET, SOCK_DGRAM
    program.call("ioctl", fd, 0x8914, struct.pack("=16sh22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
    for name, value in netns.settings(gid_map or _own_gid_map()).items():
        write_file(program, f"/proc/{netns.SETTINGS}/{name}", value, may_fail=True)
