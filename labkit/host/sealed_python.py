"""A copy in memory of the Python that runs us, which nobody can write to.

The zygote executes it. A container's first program can be told to execute /proc/self/exe, which until that moment is
the zygote's program, and later to write to that file (CVE-2019-5736): it finds this copy, not the machine's own.

Sources: memfd_create(2), fcntl(2) ("File Sealing").
"""

import errno
import fcntl
import os
import sys

from labkit.errors import LabkitError, Unsupported

_MFD_EXEC = 0x10  # known since Linux 6.3
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
#: The kernel itself waits for a sixth of a second each time.
_TRIES = 20


def python() -> int:
    """A descriptor of the copy. `Unsupported`: this machine allows no executable file in memory."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        try:
            fd = os.memfd_create("labkit-python", flags | _MFD_EXEC)
        except OSError:
            fd = os.memfd_create("labkit-python", flags)
    except OSError as error:
        mend = "allow executable memory files: sysctl vm.memfd_noexec=1"
        raise Unsupported(f"no executable file can be made in memory ({error.strerror})", mend) from None
    try:
        with open(sys.executable, "rb") as program:
            while os.sendfile(fd, program.fileno(), None, 1 << 24):
                pass
        _seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _seal(fd: int) -> None:
    """Forbid writing. EBUSY: somebody holds a page of it, as the kernel does now and then that moves pages about."""
    for _ in range(_TRIES):
        try:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        else:
            return
    raise LabkitError("the lab host's program cannot be sealed: the kernel says it is busy; try once more")
