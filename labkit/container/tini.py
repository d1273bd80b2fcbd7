"""A small program as PID 1 that passes signals on to the command and reaps orphans.

PID 1 of a PID namespace inherits every orphan in it, and no signal without a handler reaches it. A command that was
not written for that leaves zombies, and cannot be asked to end: a plain `sleep` as PID 1 does not heed SIGTERM. The
programs below were written for just that, and are static, so that they run in any root.
"""

import os
import shutil

from labkit.errors import Unsupported

PROGRAMS = ("docker-init", "tini-static", "catatonit")


def find() -> str:
    """The path of an init program of this machine. `Unsupported`: there is none."""
    for name in PROGRAMS:
        if found := shutil.which(
            name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/libexec/podman:/usr/libexec/docker"
        ):
            return os.path.realpath(found)
    raise Unsupported("no program to be a container's init is installed", "install the package tini")
