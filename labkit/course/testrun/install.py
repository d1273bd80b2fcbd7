"""What the tests need besides what `./lab` has set up: Debian packages where it may, Python packages, root trees."""

import hashlib
import os
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from labkit.course.experiments.servers import trees
from labkit.course.setup import debian, log, setup
from labkit.course.setup import environment as setup_venv
from labkit.course.testrun.lanes import PROGRAMS
from labkit.errors import LabkitError
from labkit.vm import fetch

_START_SERVERS = {"kernel", "notebooks", "vm", "browser"}  # lanes that need the servers' root filesystems
_BOOT = {"notebooks", "browser", "vm"}  # lanes that boot kernels


class Installation:
    """What the tests of some lanes need, being installed; a context manager, which waits for the end of it.

    The Python packages are there once it has begun, and with them the programs of the lanes `PROGRAMS`. The rest comes
    in a thread of its own: when `ready` is true, the other lanes can begin, and work without the network.

    Raises:
        setup_log.SetupError: the Python packages cannot be installed.
    """

    def __init__(self, checkout: Path, state: Path, lanes: Sequence[str]) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self._state, self._lanes = state, set(lanes)
        self._log = log.Log(state / "log/setup.log")
        self._log.live = False  # two steps at a time
        self._thread = threading.Thread(target=self._install_the_rest, name="labkit-install")
        self._lock_fd = setup.take_lock(state)
        try:
            self._thread.start()
            self._install_packages(checkout)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "Installation":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        os.close(self._lock_fd)

    def ready(self, lane: str) -> bool:
        """Whether what a lane needs is there, as far as it can be had."""
        return lane in PROGRAMS or not self._thread.is_alive()

    def _install_packages(self, checkout: Path) -> None:
        venv = Path(sys.prefix)
        stamp = venv / "labkit-test-stamp"
        wanted = hashlib.sha256((checkout / "pyproject.toml").read_bytes()).hexdigest()
        if not stamp.exists() or stamp.read_text() != wanted:
            install = partial(setup_venv.install, venv, "[test]", self._log, self._lock_fd, "test packages")
            self._log.step("test packages", install)
            stamp.write_text(wanted)

    def _install_the_rest(self) -> None:
        """One after the other, since apt has one lock. Tests that need what fails here say so."""
        packages = debian.test_packages()
        if not self._lanes <= set(PROGRAMS) and debian.missing_packages(packages):
            self._log.step("system packages", partial(debian.system_packages, packages, self._log))
        if self._lanes & _START_SERVERS and trees.missing():
            self._log.step("servers", _build_servers)
        if self._lanes & _BOOT:
            for line in fetch.fetch().values():
                self._log.say(line)


def _build_servers() -> str:
    """Build the servers' root filesystems; return what to show."""
    try:
        trees.build(say=lambda _: None)
    except LabkitError as error:
        return str(error)
    return "built"
