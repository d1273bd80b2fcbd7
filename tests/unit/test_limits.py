"""Limits that make no sense are refused before anything is made, each in one sentence."""

from typing import Any

import pytest

from labkit.cgroups.limits import MAX, IoMax, Limits
from labkit.errors import InvalidConfig


def test_limits_are_what_is_written_to_the_files() -> None:
    limits = Limits(
        cpus=0.2,
        cpu_weight=50,
        cpuset_cpus="0-2,4",
        memory_max_bytes=32 << 20,
        memory_high_bytes=MAX,
        memory_low_bytes=0,
        memory_swap_max_bytes=0,
        io_max={"8:0": IoMax(rbps=1000, wiops=MAX), "8:16": IoMax(wbps=5)},
        pids_max=20,
    )
    assert limits.files() == {
        "cpu.max": "20000 100000",
        "cpu.weight": "50",
        "cpuset.cpus": "0-2,4",
        "memory.low": "0",
        "memory.high": "max",
        "memory.max": "33554432",
        "memory.swap.max": "0",
        "pids.max": "20",
        "io.max": "8:0 rbps=1000 wiops=max\n8:16 wbps=5",
    }
    assert Limits(cpu_max=(MAX, 50_000)).files() == {"cpu.max": "max 50000"}
    assert Limits().files() == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpus": -1},
        {"cpus": 0},
        {"cpus": float("nan")},
        {"cpus": float("inf")},
        {"cpus": True},
        {"cpus": "1"},
        {"cpus": 100_000},
        {"cpus": 1, "cpu_max": (1000, 1000)},
        {"cpu_max": 20_000},
        {"cpu_max": (20_000,)},
        {"cpu_max": (999, 100_000)},
        {"cpu_max": (20_000, "max")},
        {"cpu_max": (20_000, 1_000_001)},
        {"cpu_weight": 0},
        {"cpu_weight": 10_001},
        {"cpu_weight": "max"},
        {"cpuset_cpus": ""},
        {"cpuset_cpus": "0 1"},
        {"cpuset_cpus": "3-1"},
        {"cpuset_cpus": "99999"},
        {"cpuset_cpus": 0},
        {"memory_max_bytes": -1},
        {"memory_max_bytes": 0},
        {"memory_max_bytes": 1.5e9},
        {"memory_max_bytes": "1G"},
        {"memory_max_bytes": True},
        {"memory_max_bytes": 1 << 63},
        {"memory_high_bytes": -5},
        {"memory_low_bytes": -1},
        {"memory_swap_max_bytes": -1},
        {"pids_max": 0},
        {"pids_max": -2},
        {"pids_max": 10**9},
        {"pids_max": "all"},
        {"io_max": "8:0 rbps=1"},
        {"io_max": {"/dev/sda": IoMax(rbps=1)}},
        {"io_max": {"8:0\n8:1": IoMax(rbps=1)}},
        {"io_max": {"8:0": {"rbps": 1}}},
    ],
    ids=repr,
)
def test_nonsense_is_refused_in_one_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig) as refused:
        Limits(**wrong)
    assert "\n" not in str(refused.value)
    assert next(iter(wrong)).split("_", 1)[0] in str(refused.value)


@pytest.mark.parametrize("wrong", [{"rbps": 0}, {"wbps": -1}, {"riops": 1.0}, {"wiops": "fast"}], ids=repr)
def test_nonsense_for_a_disk_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match="io_max"):
        IoMax(**wrong)
