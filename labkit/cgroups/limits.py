"""Limits of a control group: what a group and all groups below it may use together. Plain, validated data.

Names are the files' of cgroup-v2.rst with a unit (`memory.max` is `memory_max_bytes`), and None leaves a file as it is.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from labkit.errors import InvalidConfig, Unsupported

MAX: Final = "max"  #: no limit
Bytes = int | Literal["max"]

_PAGE_BYTES = 4096
_BYTES_MAX = 1 << 60  # more than any machine has; the kernel itself stops at 2**63
_PIDS_MAX = 4 * 1024 * 1024  # PID_MAX_LIMIT
_CPUS_MAX = 8192  # the largest NR_CPUS that a kernel can be built with
_DEVICE = re.compile(r"[0-9]{1,4}:[0-9]{1,7}")
_CPUS = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")


@dataclass(frozen=True)
class IoMax:
    """Limits of one disk: bytes and operations per second, read and written. cgroup-v2.rst: "io.max"."""

    rbps: int | Literal["max"] | None = None
    wbps: int | Literal["max"] | None = None
    riops: int | Literal["max"] | None = None
    wiops: int | Literal["max"] | None = None

    def __post_init__(self) -> None:
        for name in ("rbps", "wbps", "riops", "wiops"):
            _check_count(f"io_max {name}", getattr(self, name), 1, _BYTES_MAX, "a second")

    def __str__(self) -> str:
        values = {name: getattr(self, name) for name in ("rbps", "wbps", "riops", "wiops")}
        return " ".join(f"{name}={value}" for name, value in values.items() if value is not None)


@dataclass(frozen=True)
class Limits:
    """What a group may use. `InvalidConfig` for what makes no sense; whether a kernel can do it shows when it is set.

    cpus:     of processor time, 0.5 being half a processor's; in short for `cpu_max`, and not to be had beside it
    cpu_max:  (quota_usec, period_usec): so many microseconds in each period; ("max", period_usec) for no limit
    cpu_weight:  1 to 10000 (the kernel's own is 100): the share when others want the processor too
    cpuset_cpus: the processors it may run on, such as "0-2,4"
    memory_max_bytes:  beyond it the kernel reclaims, and kills when that does not help
    memory_high_bytes: beyond it the group is slowed down and reclaimed from, and never killed
    memory_low_bytes:  up to here memory is not taken away while others have some to give
    memory_swap_max_bytes: how much may be swapped out
    io_max:   by disk, named by its numbers: {"8:0": IoMax(wbps=1_000_000)}; see `device`
    pids_max: processes and threads
    """

    cpus: float | None = None
    cpu_max: tuple[int | Literal["max"], int] | None = None
    cpu_weight: int | None = None
    cpuset_cpus: str | None = None
    memory_max_bytes: Bytes | None = None
    memory_high_bytes: Bytes | None = None
    memory_low_bytes: Bytes | None = None
    memory_swap_max_bytes: Bytes | None = None
    io_max: Mapping[str, IoMax] | None = None
    pids_max: int | Literal["max"] | None = None

    def __post_init__(self) -> None:
        self._check_cpu()
        for name, least in (("max", _PAGE_BYTES), ("high", _PAGE_BYTES), ("low", 0), ("swap_max", 0)):
            name = f"memory_{name}_bytes"
            _check_count(name, getattr(self, name), least, _BYTES_MAX, "bytes")
        _check_count("pids_max", self.pids_max, 1, _PIDS_MAX, "processes")
        if self.io_max is not None:
            if not isinstance(self.io_max, Mapping):
                raise InvalidConfig('io_max is a mapping such as {"8:0": IoMax(wbps=1_000_000)}')
            for device, limit in self.io_max.items():
                if not isinstance(device, str) or not _DEVICE.fullmatch(device):
                    raise InvalidConfig(f'io_max names a disk by its two numbers, such as "8:0", not {device!r}')
                if not isinstance(limit, IoMax):
                    raise InvalidConfig(f"io_max of {device} is an IoMax, not {limit!r}")
            object.__setattr__(self, "io_max", dict(self.io_max))

    def _check_cpu(self) -> None:
        _check_count("cpu_weight", self.cpu_weight, 1, 10_000, "", unlimited=False)
        if self.cpus is not None:
            if self.cpu_max is not None:
                raise InvalidConfig("cpus and cpu_max say the same thing; give one of them")
            # NaN compares false with everything, and so is refused as well.
            if not _is_number(self.cpus) or not 0.01 <= self.cpus <= _CPUS_MAX:
                raise InvalidConfig(f"cpus is a number from 0.01 to {_CPUS_MAX}, not {self.cpus!r}")
        if self.cpu_max is not None:
            if not isinstance(self.cpu_max, tuple) or len(self.cpu_max) != 2:
                raise InvalidConfig(f"cpu_max is a pair (quota_usec, period_usec), not {self.cpu_max!r}")
            quota, period = self.cpu_max
            _check_count("cpu_max's quota", quota, 1_000, 1_000_000 * _CPUS_MAX, "µs")
            _check_count("cpu_max's period", period, 1_000, 1_000_000, "µs", unlimited=False)
        if self.cpuset_cpus is not None:
            self._check_cpuset(self.cpuset_cpus)

    def _check_cpuset(self, text: Any) -> None:
        if not isinstance(text, str) or not _CPUS.fullmatch(text):
            raise InvalidConfig(f'cpuset_cpus is a list of processors such as "0-2,4", not {text!r}')
        for part in text.split(","):
            first, _, last = part.partition("-")
            if int(last or first) < int(first) or int(last or first) >= _CPUS_MAX:
                raise InvalidConfig(f"cpuset_cpus names processors {part!r}, and there are none such")

    def files(self) -> dict[str, str]:
        """What to write to which file of a group: `{"memory.max": "33554432", ...}`."""
        cpu_max = self.cpu_max
        if self.cpus is not None:
            cpu_max = (round(self.cpus * 100_000), 100_000)  # the kernel's own period
        found = {
            "cpu.max": None if cpu_max is None else f"{cpu_max[0]} {cpu_max[1]}",
            "cpu.weight": self.cpu_weight,
            "cpuset.cpus": self.cpuset_cpus,
            "memory.low": self.memory_low_bytes,
            "memory.high": self.memory_high_bytes,
            "memory.max": self.memory_max_bytes,
            "memory.swap.max": self.memory_swap_max_bytes,
            "pids.max": self.pids_max,
        }
        files = {name: str(value) for name, value in found.items() if value is not None}
        lines = [f"{device} {limit}" for device, limit in (self.io_max or {}).items() if str(limit)]
        return files | ({"io.max": "\n".join(lines)} if lines else {})


def device(path: str | os.PathLike[str]) -> str:
    """The disk that `path` lies on, as `io_max` names it: "8:0". `Unsupported`: it lies on no one disk.

    Limits belong to whole disks: a partition's requests are counted by the disk that it is a part of.
    """
    number = os.stat(path).st_dev
    folder = os.path.realpath(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if os.path.exists(f"{folder}/partition"):
        folder = os.path.dirname(folder)
    try:
        with open(f"{folder}/dev") as file:
            return file.read().strip()
    except OSError:
        mend = "name the disk's numbers yourself: lsblk shows them"
        raise Unsupported(f"{os.fspath(path)} lies on a file system that is not one disk's", mend) from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_count(name: str, value: object, least: int, most: int, unit: str, *, unlimited: bool = True) -> None:
    """`value` is None, a whole number from `least` to `most`, or "max" where that is allowed."""
    if value is None or (unlimited and value == MAX):
        return
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        span = f"{least} to {most} {unit}".rstrip() + (' or "max"' if unlimited else "")
        raise InvalidConfig(f"{name} is a whole number from {span}, not {_shown(value)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
