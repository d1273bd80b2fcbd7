"""What set-up shows: few lines to the user, everything to a log file; and the one kind of error it ends with."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SILENCE_SECONDS = 4.0  #: after which a step that goes on says so
CHECKOUT = Path(__file__).resolve().parents[3]


class SetupError(Exception):
    """Set-up cannot go on. The text is one line for the user: what is wrong and what to do."""


class Log:
    """The set-up's log file, and the few lines of progress the user sees."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.file = open(path, "ab", buffering=0)  # noqa: SIM115  # open as long as this process sets up
        self.live = sys.stdout.isatty()

    def say(self, text: str) -> None:
        print(text, flush=True)
        self.file.write(f"# {text}\n".encode())

    def step(self, name: str, work: Callable[[], str]) -> None:
        """Runs one step; shows its name while it runs, and its result and seconds afterwards."""
        started = time.monotonic()
        self.file.write(f"# {name}\n".encode())
        if self.live:
            print(f"  {name:<20} ...", end="", flush=True)
        ended = threading.Event()
        clock = threading.Thread(target=self._say_that_it_goes_on, args=(name, started, ended), daemon=True)
        clock.start()
        try:
            result = work()
        except BaseException:
            if self.live:
                print()
            raise
        finally:
            ended.set()
            clock.join()
        start = "\r\033[K" if self.live else ""
        print(f"{start}  {name:<20} {result:<44} {time.monotonic() - started:4.0f} s", flush=True)

    def _say_that_it_goes_on(self, name: str, started: float, ended: threading.Event) -> None:
        """A word now and then: nobody is to wonder whether it hangs."""
        while not ended.wait(SILENCE_SECONDS):
            seconds = time.monotonic() - started
            if self.live:
                print(f"\r  {name:<20} {seconds:3.0f} s", end="", flush=True)
            else:
                print(f"  {name:<20} ... {seconds:.0f} s", flush=True)

    def tick(self, name: str, text: str) -> None:
        if self.live:
            width = shutil.get_terminal_size().columns - 26
            print(f"\r\033[K  {name:<20} {text[:width]}", end="", flush=True)

    def run(self, argv: Sequence[str | Path], *, tick: Callable[[str], None] | None = None, keep_fd: int = -1) -> int:
        """Runs a program with its output in the log. `keep_fd` stays open in it (the lock: it outlives us)."""
        self.file.write(("$ " + " ".join(map(str, argv)) + "\n").encode())
        process = subprocess.Popen(
            [str(arg) for arg in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
            cwd=CHECKOUT,
            pass_fds=(keep_fd,) if keep_fd >= 0 else (),
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                self.file.write(line)
                if tick is not None:
                    tick(line.decode(errors="replace").strip())
            return process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise

    def tail(self, start: int, lines: int = 12) -> str:
        """The last lines written after byte `start`."""
        text = self.path.read_bytes()[start:].decode(errors="replace")
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])

    def size(self) -> int:
        return self.path.stat().st_size


def clean_environment() -> dict[str, str]:
    """The environment for pip and apt: the user's, less what would make pip install somewhere else."""
    unwanted = {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_QUIET"}
    kept = {key: value for key, value in os.environ.items() if key not in unwanted}
    return kept | {"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "DEBIAN_FRONTEND": "noninteractive"}
