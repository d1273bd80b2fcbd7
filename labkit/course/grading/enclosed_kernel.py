"""In a room: become another user, then a Jupyter kernel, by the CONNECTION_FILE in the arguments.

The kernel is root of a user namespace of its own, as a lab host is: labs run in it as they do for root. To whoever
started it, it is the user LEARNER, and cannot signal or trace it, or write to its files.
"""

import os
import resource
import sys

from labkit import idmap, syscalls
from labkit.constants import CLONE_NEWUSER
from labkit.course.grading.sandbox_ids import LEARNER

_DATA_BYTES = 640 << 20  # of one process: more than a lab needs, less than the room has


def main(connection_file: str) -> None:
    """Run the kernel in this process. Does not return."""
    os.chown(connection_file, LEARNER, LEARNER)
    ids = idmap.IdMap([(0, LEARNER, min(sum(count for _, _, count in map_) for map_ in idmap.of("self")) - LEARNER)])
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # it stays outside, where there are ids to give away
        os.close(writer)
        if os.read(reader, 1):
            idmap.write(os.getppid(), ids, ids)
        os._exit(0)
    syscalls.unshare(CLONE_NEWUSER)
    os.write(writer, b"x")
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)
    os.setresgid(0, 0, 0)
    os.setgroups([])
    os.setresuid(0, 0, 0)
    resource.setrlimit(resource.RLIMIT_DATA, (_DATA_BYTES, _DATA_BYTES))
    os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", "-f", connection_file])


if __name__ == "__main__":
    main(sys.argv[1])
