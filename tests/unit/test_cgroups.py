"""What makes no sense for a control group is refused before there is a lab host."""

import subprocess
import sys
from typing import Any

import pytest

from labkit import cgroups
from labkit.cgroups.events import Pressure
from labkit.errors import InvalidConfig
from labkit.files import state_folder


def test_a_module_of_the_kernels_files_starts_nothing() -> None:
    """In a new interpreter: what ran before this test may have started a lab host."""
    program = "import labkit.cgroups; from labkit.host import lab_host; assert lab_host._current is None"
    subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": str(state_folder.checkout())}, check=True)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/", "-x", ".x", "a\0b", "a\nb", "x" * 300, "memory.max", "cgroup.x", 7]
)
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    with pytest.raises(InvalidConfig, match="no name for a control group") as refused:
        cgroups.create(name)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("name", ["", "..", "/etc", "a/../b", "a//b", "a\0b"])
def test_a_path_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(InvalidConfig, match="no name for a control group"):
        cgroups.find(name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resource": "disk", "stall_usec": 1},
        {"resource": "io", "stall_usec": 0},
        {"resource": "io", "stall_usec": 1.5},
        {"resource": "io", "stall_usec": 600_000, "window_usec": 500_000},
        {"resource": "io", "stall_usec": 1, "window_usec": 100},
    ],
    ids=repr,
)
def test_a_threshold_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match="pressure"):
        Pressure(**wrong)
