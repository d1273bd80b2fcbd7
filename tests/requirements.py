"""Why a test may be skipped, in one vocabulary.

With LABKIT_NO_SKIPS=1 a skip is a failure, except for what the machine itself cannot do: `machine_cannot`.
"""

import functools
import os
import shutil
from typing import NoReturn

import pytest

from labkit.course.experiments.servers import trees
from labkit.course.needs import lacking
from labkit.course.setup import debian
from labkit.errors import Unsupported

MACHINE_CANNOT = "this machine cannot: "
INSTALLED = {"guest", "lxc"}  # what of a lab's needs an installation brings, and so no machine has to do without


def machine_cannot(reason: str) -> NoReturn:
    """Skip, because no installation would make this test run here (another processor, say)."""
    pytest.skip(MACHINE_CANNOT + reason)


def need_root() -> None:
    """Skip unless root runs the tests."""
    if os.geteuid() != 0:
        machine_cannot("be root in a test run of an ordinary user")


def need_command(command: str) -> str:
    """The path of `command`; skip where it is not installed (`./lab test` installs it where it may)."""
    found = shutil.which(command)
    if not found:
        pytest.skip(f"{command} is not installed")
    return found


def need_vagrant() -> None:
    """Skip where there is no Vagrant; not avoidable where this distribution has none."""
    if shutil.which("vagrant") is None and not debian.has_vagrant():
        machine_cannot(f"install Vagrant, which is tested with {' '.join(debian.VAGRANT_RELEASE)} on amd64")
    need_command("vagrant")


def need(*words: str) -> None:
    """Skip unless this machine has what a lab may ask for: words of `labkit.course.needs`."""
    for word in words:
        if lack := lacking_once(word):
            if word in INSTALLED:
                pytest.skip(lack.what)
            machine_cannot(f"{lack.what} (such tests run in a virtual machine, in the lane vm)")


@functools.cache
def lacking_once(word: str) -> Unsupported | None:
    """What this machine lacks of one such word: found once for all tests, since it takes a lab host to find out."""
    return lacking([word])


def need_servers() -> None:
    """Skip where the servers' root filesystems are not built (`./lab test` builds them where it can)."""
    if missing := trees.missing():
        pytest.skip(f"not built: {', '.join(missing)}; run ./lab setup")
