"""The servers' root filesystems: which are there, and building those that are not."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from labkit.errors import LabkitError, Unsupported
from labkit.files import state_folder

NAMES = ("file", "database", "application", "web")
MEGABYTES = (55, 230)  # of what is downloaded, and of the trees

_RECIPE = state_folder.checkout() / "rootfs/debian/build_debian.py"


def folder() -> Path:
    """Where the trees are, or will be."""
    return state_folder.state() / "rootfs"


def missing(names: Iterable[str] = NAMES) -> list[str]:
    """Those that are not built, or by a recipe that has changed since."""
    recipe = _recipe()
    return [name for name in names if not recipe.is_built(folder(), name)]


def find(name: str) -> Path:
    """The tree `name`. `Unsupported`: it has not been built."""
    path = folder() / name
    if not _recipe().is_built(folder(), name):
        raise Unsupported(
            f"the root filesystem of the {name} server has not been built", "run servers.build(), or ./lab setup"
        )
    return path


def build(names: Iterable[str] = NAMES, say: Callable[[str], object] = print) -> None:
    """Build what is missing, from the distribution's packages; `say` each step. `LabkitError`: why it cannot be done.

    It takes about 15 s and needs the network, once. Built in a program of its own, which nobody's threads disturb.
    """
    wanted = missing(names)
    if not wanted:
        return
    say(f"Building the servers {', '.join(wanted)}: at most {MEGABYTES[0]} MB to download, {MEGABYTES[1]} MB on disk.")
    command = [sys.executable, "-I", str(_RECIPE), str(folder()), *wanted]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        assert run.stdout
        try:
            for line in run.stdout:
                last = line.strip()
                if not last.startswith("not built: "):
                    say(f"  {last}")
        except BaseException:
            run.terminate()
            raise
    if run.returncode:
        raise LabkitError(f"the servers' root filesystems could not be built: {last.removeprefix('not built: ')}")


def _recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("labkit_debian_recipe", _RECIPE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
