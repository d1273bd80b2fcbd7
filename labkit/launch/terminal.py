"""A terminal of the process's own, from the container's devpts, and its other end handed to the caller.

The two ends of a pseudoterminal are the *master*, which the caller reads and writes, and the *slave*, which is the
process's input and output. The slave is opened through the master's descriptor (TIOCGPTPEER) and not by its name in
/dev/pts, under which an image could have put something else (CVE-2025-52565).

Sources: pty(7), ioctl_tty(2), cmsg(3); OCI config.md ("terminal": /dev/console is the process's terminal).
"""

import os
import stat
import struct

from labkit import constants as c
from labkit.program import Block, Program, Value

_TIOCSPTLCK, _TIOCGPTPEER, _TIOCSCTTY = 0x40045431, 0x5441, 0x540E
TIOCSWINSZ = 0x5414
_SOL_SOCKET, _SCM_RIGHTS = 1, 1


def winsize(size: tuple[int, int]) -> bytes:
    """The kernel's struct winsize of (columns, lines). ioctl_tty(2)."""
    columns, lines = size
    return struct.pack("=4H", lines, columns, 0, 0)


def write(program: Program, console: Value, uid: int, node: str, size: tuple[int, int] | None = None) -> None:
    """Add the calls that open a terminal, make it input and output, and send its master on the socket `console`.

    For a process that has entered its root and begun a session. `node` is where it shall be seen besides, or None:
    "/dev/console" for a container's first process. `size` is (columns, lines).
    """
    program.step("opening a terminal")
    how = struct.pack("=3Q", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, 0, c.RESOLVE_NO_SYMLINKS | c.RESOLVE_NO_MAGICLINKS)
    master = Value("master")
    program.call("openat2", c.AT_FDCWD, "/dev/pts/ptmx", how, len(how), result=master)
    program.call("ioctl", master, _TIOCSPTLCK, struct.pack("=i", 0))
    if size:
        program.call("ioctl", master, TIOCSWINSZ, winsize(size))
    slave = program.call("ioctl", master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY, returns="slave")
    program.call("fchown", slave, uid, -1)
    if node:
        program.step(f"showing the terminal at {node}")
        program.call("mknodat", c.AT_FDCWD, node, stat.S_IFREG | 0o600, 0, may_fail=True)
        place = struct.pack("=3Q", os.O_PATH | os.O_CLOEXEC, 0, c.RESOLVE_NO_SYMLINKS)
        target = program.call("openat2", c.AT_FDCWD, node, place, len(place), returns="place")
        flags = c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC | c.AT_EMPTY_PATH
        copy = program.call("open_tree", slave, "", flags, returns="copy")
        both = c.MOVE_MOUNT_F_EMPTY_PATH | c.MOVE_MOUNT_T_EMPTY_PATH
        program.call("move_mount", copy, "", target, "", both)
    program.step("handing on the terminal")
    # cmsg(3): its length, then level and type in one word, then the descriptor.
    control = Block(20, _SOL_SOCKET | _SCM_RIGHTS << 32, master)
    program.call("sendmsg", console, Block(0, 0, Block("t", 1), 1, control, 24, 0), 0)
    for number in range(3):
        program.call("dup3", slave, number, 0)
    program.call("ioctl", 0, _TIOCSCTTY, 0)
