"""A few of the faults of `tests.sweep`; `python -m tests.sweep` has them all."""

import random

import pytest

from tests import sweep
from tests.requirements import need_command, need_root

TRIALS = 24


@pytest.mark.timeout(600)
def test_faults_at_system_calls_cost_nobody_else_anything() -> None:
    need_root()  # to attach to processes, and to the lab host's
    need_command("strace")
    faults = sweep.faults(["run", "function"], ["caller", "zygote", "keeper"])
    assert len(faults) > 100
    found = sweep.sweep(random.Random(1).sample(faults, TRIALS))
    assert found == {}
