"""What a container that does its worst costs another one that is started, or entered, beside it.

    forks     starts processes that end at once, as many at a time as it may have
    memory    fills its /dev/shm and empties it, again and again
    links     a start whose command is searched for along a PATH of links to links
    stops     stops whoever enters it, while one is entering

None has limits, which take controllers of control groups that not every machine has. So each takes processors, too, as
an honest program may that computes: what that costs has a row. In each round each of these is
begun, has three starts and three execs beside it, and is ended; ratios are to the same alone in that round.
"""

import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from bench.sampling import Row, quartiles
from labkit import rootfs
from labkit.container import run, start
from labkit.container.container import Container
from labkit.errors import LabkitError

_IDS = ((0, 0x6F000000, 65536),)  # nobody's, so that RLIMIT_NPROC holds for its root, too
_NPROC = 64
_SETTLE_S = 0.2  # until a neighbour does what it is there for
_EACH = 3
_FORKS = "while :; do for number in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do (:) & done; wait; done"
_MEMORY = "while :; do dd if=/dev/zero of=/dev/shm/x bs=1M count=48 2>/dev/null; rm -f /dev/shm/x; done"
_STOPS = "while :; do kill -STOP -1 2>/dev/null; done"
ALONE = "alone"

Neighbour = Callable[[], AbstractContextManager[Any]]


def measure(rounds: int) -> list[Row]:
    """Rows of milliseconds, of a start of `true` and of an exec of it, each to its end."""
    times: dict[tuple[str, str], list[float]] = {}
    order = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="labkit-bench-") as folder, start(["sleep", "1000000"]) as honest:
        neighbours = _neighbours(_with_links(Path(folder, "image")))
        tasks = {"start": _started, "exec": lambda: _entered(honest)}
        for _ in range(rounds):
            for name in order.sample(list(neighbours), len(neighbours)):
                with neighbours[name]():
                    time.sleep(_SETTLE_S)
                    for task, go in tasks.items():
                        taken = [_timed(go) for _ in range(_EACH)]
                        times.setdefault((task, name), []).append(statistics.median(taken) * 1e3)
    return [_row(task, name, taken, times[task, ALONE]) for (task, name), taken in sorted(times.items())]


def _row(task: str, name: str, taken: list[float], alone: list[float]) -> Row:
    low, median, high = quartiles(taken)
    way = f"{task}, alone" if name == ALONE else f"{task}, beside {name}"
    ratio = statistics.median(one / other for one, other in zip(taken, alone, strict=True))
    return Row("beside", way, "ms", median, low, high, note="" if name == ALONE else f"{ratio:.2f} times the one alone")


def _timed(go: Callable[[], None]) -> float:
    begun = time.perf_counter()
    go()
    return time.perf_counter() - begun


def _started() -> None:
    if code := run(["true"]).exit_code:
        raise RuntimeError(f"exit code {code}")


def _entered(container: Container) -> None:
    if code := container.exec(["true"]).wait(60):
        raise RuntimeError(f"exit code {code}")


def _neighbours(image: Path) -> dict[str, Neighbour]:
    return {
        ALONE: lambda: nullcontext(None),
        "an honest loop": lambda: _running("while :; do :; done"),
        "forks": lambda: _running(_FORKS),
        "memory": lambda: _running(_MEMORY),
        "links": lambda: _again_and_again(lambda: run(["true"], root=image, env=_LONG)),
        "stops": _stopping,
    }


@contextmanager
def _running(script: str) -> Iterator[Container]:
    limits = {"nproc": (_NPROC, _NPROC)}
    with start(["sh", "-c", script], uid_mappings=_IDS, gid_mappings=_IDS, rlimits=limits) as container:
        yield container
        container.kill()


@contextmanager
def _stopping() -> Iterator[None]:
    with _running(_STOPS) as container, _again_and_again(lambda: container.exec(["true"]).wait(60)):
        yield
        container.kill()  # so that whoever is stopped in there is let go


@contextmanager
def _again_and_again(action: Callable[[], object]) -> Iterator[None]:
    """Do it in a thread until the body has ended."""
    ended = threading.Event()

    def repeat() -> None:
        with suppress(LabkitError):  # its container has ended
            while not ended.is_set():
                action()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


_LINKS = 30
_LONG = {"PATH": "/link0:" * 100 + "/bin"}


def _with_links(image: Path) -> Path:
    """An image in which a folder is reached by links of 4,000 characters each."""
    shutil.copytree(rootfs.find("busybox"), image, symlinks=True)
    for number in range(_LINKS):
        (image / f"link{number}").symlink_to("./" * 1900 + f"link{number + 1}")
    (image / f"link{_LINKS}").mkdir()
    return image
