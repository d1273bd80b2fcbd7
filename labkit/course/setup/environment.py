"""The virtual environment `.venv` of the checkout, and pip in it."""

import os
import shutil
import sys
import time
from pathlib import Path

from labkit.course.setup.log import CHECKOUT, Log, SetupError

# What pip writes when something outside it is wrong, and the line that says what to do.
FULL_BYTES = 5_000_000
FAILURES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("No space left on device", "Errno 28"),
        "The disk is full. Free about 500 MB, then run ./lab again.",
    ),
    (
        ("Disk quota exceeded", "Errno 122"),
        "Your disk quota is used up. Free about 500 MB, then run ./lab again.",
    ),
    (
        (
            "Temporary failure in name resolution",
            "Name or service not known",
            "Failed to establish a new connection",
            "NewConnectionError",
            "NameResolutionError",
            "Network is unreachable",
            "ConnectTimeoutError",
            "ReadTimeoutError",
            "Read timed out",
            "Connection reset by peer",
            "ProxyError",
            "(from versions: none)",
        ),
        "The Python package index cannot be reached. Check the network (or the proxy), then run ./lab again.",
    ),
)


def failure(what: str, log: Log, start: int) -> SetupError:
    """Why a step failed: what its output, the log from byte `start`, is a sign of, or else its last lines."""
    output = log.path.read_bytes()[start:].decode(errors="replace")
    if shutil.disk_usage(log.path.parent).free < FULL_BYTES:
        output += "No space left on device"  # the programs we call do not always say so
    for signs, line in FAILURES:
        if any(sign in output for sign in signs):
            return SetupError(line)
    return SetupError(f"{what}; the last lines of {log.path}:\n{log.tail(start)}")


def make_venv(venv: Path, log: Log, lock_fd: int) -> str:
    """Makes an empty virtual environment, unless a finished one of this checkout is there to be brought up to date."""
    version = ".".join(map(str, sys.version_info[:3]))
    unfinished = venv / "labkit-unfinished"
    stamp = venv / "labkit-stamp"
    of_this_place = stamp.exists() and stamp.read_text().splitlines()[-1:] == [str(CHECKOUT)]
    if of_this_place and (venv / "bin/python").exists():
        stamp.rename(unfinished)
        return "there already"
    if venv.is_symlink() or (venv.exists() and not stamp.exists() and not unfinished.exists()):
        venv.rename(venv.with_name(f".venv.before-labkit-{int(time.time())}"))
    # Unfinished, of another place, or of a Python that has gone: begin again. What pip downloaded, pip has kept.
    # Renamed before it is deleted, and marked before it is named, so that no stop in between leaves one of no origin.
    old, new = venv.with_name(".venv.old"), venv.with_name(".venv.new")
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    (new / unfinished.name).touch()
    if venv.exists():
        venv.rename(old)
    new.rename(venv)
    shutil.rmtree(old, ignore_errors=True)
    start = log.size()
    # The real path, not a link such as python3: when the system's Python changes, this breaks visibly and is rebuilt.
    if log.run([os.path.realpath(sys.executable), "-I", "-m", "venv", venv], keep_fd=lock_fd) != 0:
        raise failure("The virtual environment could not be made", log, start)
    return f".venv, Python {version}"


def install(venv: Path, extra: str, log: Log, lock_fd: int = -1, name: str = "Python packages") -> str:
    """Installs labkit from the checkout, editable, with the dependencies of `extra` (such as "[test]")."""
    installed = 0

    def tick(line: str) -> None:
        nonlocal installed
        first, *rest = line.split() or [""]
        if first in ("Collecting", "Downloading"):
            log.tick(name, f"{first.lower()} {rest[0] if rest else ''}")
        elif line.startswith("Installing collected"):
            log.tick(name, f"unpacking {len(rest) - 2}")
        elif line.startswith("Successfully installed"):
            installed = len(rest) - 1

    start = log.size()
    pip: list[str | Path] = [venv / "bin/python", "-I", "-m", "pip", "--no-input", "install", "--progress-bar", "off"]
    code = log.run([*pip, "--retries", "2", "-e", f"{CHECKOUT}{extra}"], tick=tick, keep_fd=lock_fd)
    if code != 0:
        raise failure("pip could not install the Python packages", log, start)
    return f"{installed} installed" if installed > 1 else "there already"  # labkit itself is always put in anew


def quiet_jupyter(venv: Path) -> None:
    """JupyterLab's own settings for the course: no question about news, no look for updates: it works offline."""
    folder = venv / "share/jupyter/lab/settings"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "overrides.json").write_text(
        '{"@jupyterlab/apputils-extension:notification": '
        '{"fetchNews": "false", "checkForUpdates": false, "doNotDisturbMode": false}}\n'
    )
