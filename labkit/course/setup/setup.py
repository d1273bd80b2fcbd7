"""Set-up: what `./lab` does on its first start, and again whenever what it depends on has changed.

Run by path with any Python >= 3.11, before the virtual environment exists, so it uses the standard library only.
It may be stopped at any point and run again: the environment counts only once its stamp is written, which is the
last thing done; the root filesystem is built aside and renamed; a lock keeps two set-ups apart.
"""

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from labkit.arguments import Parser
from labkit.course.setup import rootfs
from labkit.course.setup.debian import PACKAGES, missing_packages, system_packages, test_packages, venv_package
from labkit.course.setup.environment import install, make_venv, quiet_jupyter
from labkit.course.setup.log import CHECKOUT, Log, SetupError

SPACE_BYTES = 500_000_000


def check_writable(folder: Path) -> None:
    """Raises SetupError unless `folder` can be written to."""
    if not os.access(folder, os.W_OK):
        user = "root" if os.getuid() == 0 else os.environ.get("USER") or f"user {os.getuid()}"
        raise SetupError(
            f"{folder} cannot be written to by {user}. Make a copy in a folder of your own and start that: "
            f"cp -r {CHECKOUT} ~/labkit && ~/labkit/lab"
        )


def check_folder(folder: Path) -> None:
    """Raises SetupError unless `folder` can be written to and has room."""
    check_writable(folder)
    free = shutil.disk_usage(folder).free
    if free < SPACE_BYTES:
        raise SetupError(
            f"{folder} has {free // 1_000_000} MB free; set-up needs about {SPACE_BYTES // 1_000_000} MB. "
            "Free some, then run ./lab again."
        )


def take_lock(state: Path) -> int:
    """One set-up at a time. The lock is the kernel's: it goes with the last process that holds it."""
    fd = os.open(state / "setup.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another ./lab is setting this checkout up; waiting for it.", flush=True)
        fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def set_up(state: Path, stamp: str) -> None:
    """Everything an ordinary start needs. `stamp` is what `./lab` will compare at the next start.

    Raises:
        SetupError: it cannot be done; the text says why and what to do.
    """
    venv = CHECKOUT / ".venv"
    check_folder(CHECKOUT)
    state.mkdir(parents=True, exist_ok=True)
    check_folder(state)
    lock_fd = take_lock(state)
    done = venv / "labkit-stamp"
    root_is_built = not rootfs.lack(state)
    if done.exists() and done.read_text() == stamp + "\n" and root_is_built and (venv / "bin/python").exists():
        return  # the one we waited for did it
    log = Log(state / "log/setup.log")
    started = time.monotonic()
    log.say("Setting up labkit: about a minute, and 300 MB here. Later starts skip this.")
    module = venv_package()
    log.step("system packages", lambda: system_packages(PACKAGES, log, needed=[module] if module else []))
    if not (done.exists() and done.read_text() == stamp + "\n" and (venv / "bin/python").exists()):
        log.step("virtual environment", lambda: make_venv(venv, log, lock_fd))
        log.step("Python packages", lambda: install(venv, "", log, lock_fd))
        quiet_jupyter(venv)
    log.step("root filesystem", lambda: rootfs.make(state, log, lock_fd))
    # The stamp last, and whole: what was not finished is begun again.
    (venv / "labkit-unfinished").write_text(stamp + "\n")
    (venv / "labkit-unfinished").rename(done)
    log.say(f"Set up in {time.monotonic() - started:.0f} s.")


def repair_rootfs(state: Path) -> None:
    """Build the root filesystem anew if somebody has changed it, and say so. `SetupError`, `OSError`."""
    if not rootfs.lack(state):
        return
    check_folder(state)
    lock_fd = take_lock(state)
    try:
        log = Log(state / "log/setup.log")
        log.step("root filesystem", lambda: rootfs.make(state, log, lock_fd))
    finally:
        os.close(lock_fd)


def set_up_system(state: Path, command: str, owner: str) -> None:
    """The part of set-up that needs root, when root will hand over to an ordinary user (`owner`, as UID:GID)."""
    check_folder(CHECKOUT)
    wanted = dict(PACKAGES)
    if command == "test":
        wanted |= test_packages()
    module = venv_package()
    if not module and not missing_packages(wanted):
        return
    uid, gid = (int(part) for part in owner.split(":"))
    made = [folder for folder in (state, state / "log", state / "log/setup.log") if not folder.exists()]
    log = Log(state / "log/setup.log")
    try:
        log.step("system packages", lambda: system_packages(wanted, log, needed=[module] if module else []))
    finally:
        for path in made:
            os.chown(path, uid, gid, follow_symlinks=False)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="./lab setup", description="Called by ./lab.")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--stamp", default="")
    parser.add_argument("--system", metavar="COMMAND")
    parser.add_argument("--owner", default="0:0")
    parser.add_argument("--rootfs", action="store_true")
    arguments = parser.parse_args(argv)
    try:
        if arguments.system is not None:
            set_up_system(arguments.state, arguments.system, arguments.owner)
        elif arguments.rootfs:
            repair_rootfs(arguments.state)
        else:
            set_up(arguments.state, arguments.stamp)
    except SetupError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nlab: interrupted. Run ./lab again to go on from here.", file=sys.stderr)
        return 130
    except OSError as error:
        # A full disk, a folder that vanished, a read-only mount: the kernel's word and the file are what is known.
        what = f" ({error.filename})" if error.filename else ""
        print(f"lab: {error.strerror or error}{what}. Mend that, then run ./lab again.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
