"""Rooms where control groups are to be had: the exercises that need them are judged there, too."""

import pytest

from tests.vm.conftest import require
from tests.vm.inside import pytest_inside

pytestmark = pytest.mark.timeout(1200)


def test_exercises_that_need_control_groups_are_judged() -> None:
    require("uml")
    done = pytest_inside("tests/notebooks/test_in_rooms.py", "-k", "solution and (09 or 12) or memory")
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout
