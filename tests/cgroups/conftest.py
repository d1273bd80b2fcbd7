"""Tests that need cgroup v2 controllers: run on this machine where it has them, and in a virtual machine in any case.

See `tests/vm/test_cgroups.py`. Besides what every kernel test must leave as it was, no group may be left.
"""

import os
from collections.abc import Iterator

import pytest

from labkit import cgroups
from labkit.cgroups import Cgroup
from labkit.errors import Unsupported
from labkit.host import cgroup
from tests.kernel.conftest import busybox as busybox  # noqa: PLC0414  (a fixture)
from tests.kernel.conftest import held
from tests.requirements import machine_cannot


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test that leaves a group, or anything that `tests.kernel` looks for; skip it without controllers."""
    try:
        cgroup.find()
    except Unsupported as lack:
        machine_cannot(f"make control groups: {lack.what}")
    before = held(), groups()
    yield
    assert (held(), groups()) == before


def groups() -> list[str]:
    """Every control group of the machine that can be seen from here."""
    _, top = cgroup.own_group()
    return sorted(folder for folder, _, _ in os.walk(top))


@pytest.fixture
def group() -> Iterator[Cgroup]:
    """An empty group without limits."""
    with cgroups.create("box") as made:
        yield made


def need_controller(name: str) -> None:
    """Skip where groups do not have the controller `name`."""
    if name not in cgroups.controllers():
        machine_cannot(f"limit with the {name} controller, which its kernel lacks")
