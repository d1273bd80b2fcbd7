"""The checks of labs that need more than every machine has, and the four servers, on another kernel."""

import pytest

from labkit.course.source import lab_source
from tests.requirements import need_servers
from tests.vm.conftest import require
from tests.vm.inside import pytest_inside

pytestmark = pytest.mark.timeout(1200)

CHECKS = [path for md in lab_source.all_paths() if lab_source.needs(md) for path in [f"test_lab{md.stem[:2]}.py"]]


@pytest.mark.parametrize("file", CHECKS)
def test_the_checks_of_a_lab_that_needs_more_than_every_machine_has(file: str) -> None:
    """Its mistakes, its other right ways and its solutions, in a machine that has it."""
    require("uml")
    number = file.removeprefix("test_lab").removesuffix(".py")
    done = pytest_inside(
        "tests/notebooks/" + file,
        "tests/notebooks/test_exercises.py",
        "-k",
        f"lab{number} or ({number}- and not two and not three)",
    )
    assert done.exit_code == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and " failed" not in done.stdout


def test_the_four_servers_work_in_a_machine() -> None:
    """All of lab 01 gives there what it gave, too, but takes four minutes; this is what of it could be otherwise."""
    require("uml")
    need_servers()
    done = pytest_inside("tests/kernel/test_servers.py", "-k", "four_servers")
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
