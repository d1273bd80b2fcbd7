"""The labs on another kernel: each solved notebook gives in a virtual machine what it gave where it was made."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from labkit import rootfs, vm
from labkit.course.authoring import release
from labkit.course.source import lab_source
from labkit.errors import Unsupported
from labkit.files import state_folder
from tests.vm.conftest import require
from tests.vm.inside import asked_for

pytestmark = pytest.mark.timeout(1200)

TESTS = Path(__file__).parent.parent
# Not 03: User Mode Linux has ptrace, but cannot say which system call it is about.
LABS = ("05", "06", "07", "08", "11", "12")
SOLVED = sorted(path for path in (TESTS / "notebooks" / "solved").glob("*.ipynb") if path.name[:2] in LABS)
# Labs that need what not every machine has: they are replayed here, as the others are on this machine itself.
DEMANDING = [release.solved_path(md) for md in lab_source.all_paths() if lab_source.needs(md)]
MEMORY_MIB = 1536
AT_ONCE = 2  # User Mode Linux has one processor, and a notebook takes half a minute of it

REPLAY = """
import sys
from pathlib import Path
from labkit.course.authoring.replay import replay
notebook, folder, sanitize = map(Path, sys.argv[1:])
done = replay(notebook, folder=folder, sanitize=sanitize, seconds_per_cell=120)
print(done.text)
sys.exit(done.exit_code)
"""


@dataclass(frozen=True)
class Case:
    """One run of a solved notebook in a machine of its own."""

    notebook: Path
    user: str | None = None
    time: int = 1

    def __str__(self) -> str:
        return f"{self.notebook.stem} as {self.user or 'root'}{' again' if self.time > 1 else ''}"


# Once as root, as the course runs in a machine, and lab 05 also as a user who is not.
CASES = [
    *map(Case, SOLVED),
    *(Case(path, "nobody") for path in SOLVED if path.name.startswith("05")),
    *(Case(path) for path in DEMANDING),
]
AGAIN = [pytest.param(Case(path, time=2), marks=pytest.mark.long) for path in DEMANDING]


def run(case: Case) -> vm.Completed:
    notebook, user = case.notebook, case.user
    folder, sanitize = state_folder.checkout() / "labs", TESTS / "notebooks" / "sanitize.cfg"
    return vm.run(
        [sys.executable, "-c", REPLAY, str(notebook), str(folder), str(sanitize)],
        kind="uml",
        cwd=folder,
        env={"PYTHONPATH": str(state_folder.checkout()), "LABKIT_STATE": str(state_folder.state()), "HOME": "/tmp"},
        user=user,
        memory_mib=MEMORY_MIB,
        capture=True,
        timeout=900,
    )


def others_may_read(*places: Path) -> bool:
    """Whether a user of no group may, too: a checkout in root's own home is no place to read from."""
    return all(folder.stat().st_mode & 0o5 == 0o5 for place in places for folder in (place, *place.parents))


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[dict[Case, Future[vm.Completed]]]:
    """All of them, under way side by side."""
    require("uml")
    try:
        root = rootfs.find("busybox")
    except Unsupported as lack:
        pytest.skip(str(lack))
    readable = others_may_read(root, state_folder.checkout(), Path(sys.prefix))
    with ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1)) as pool:
        wanted = asked_for(request, "case")
        yield {case: pool.submit(run, case) for case in wanted if case.user is None or readable}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("case", [*CASES, *AGAIN], ids=str)
def test_a_solved_notebook_gives_what_it_gave(case: Case, runs: dict[Case, Future[vm.Completed]]) -> None:
    if case not in runs:
        pytest.skip("other users cannot read this checkout, or its Python")
    done = runs[case].result()
    assert done.exit_code == 0, done.stdout + done.stderr
