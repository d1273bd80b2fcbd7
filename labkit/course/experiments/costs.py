"""What a process, a container and a guest cost, measured here and now: their start, their memory, their calls.

    costs = compare.measure(guestos.guest())
    compare.draw(costs)                      # three figures
    compare.keep("lab 04", costs)            # for another notebook, which may
    compare.kept()                           # ask for all that was kept

Figures, never verdicts: a busy machine changes every one of them. A figure that is None could not be measured.
"""

import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

from labkit import container, kvm
from labkit.course.experiments.sharing import sleeper
from labkit.course.framework import measurements
from labkit.errors import LabkitError, Unsupported
from labkit.kvm import measure as kvm_measure
from labkit.process import run_in_child, spawn
from labkit.vm import kernels
from labkit.vm.persistent import Computer

FILE = "costs.json"
Figures = dict[str, float | None]

_CALLS = 100_000  # of dd, which makes two system calls for each byte: read(2) and write(2)


@dataclass(frozen=True)
class Costs:
    """What was measured, by place: "process", "container", "guest"."""

    machine: str  #: in one line
    accelerated: bool  #: whether the guest runs on the processor itself (KVM), or on a program that imitates one
    start_msec: Figures  #: from the order to start until its first program has run (the guest's: until it runs)
    memory_kib: Figures  #: while it does nothing: proportional set size (proc_pid_smaps(5)) of the process on the host
    call_nsec: Figures  #: one system call
    exit_nsec: float | None  #: from a guest to its hypervisor and back, with /dev/kvm


def measure(guest: Computer) -> Costs:
    """Measure all of it; takes some seconds. Raises what starting a container raises."""
    return Costs(
        machine=measurements.machine_line(),
        accelerated=guest.kvm,
        start_msec={
            "process": run_in_child(_start_of_a_process_msec),
            "container": _median_msec(lambda: container.run(["true"], capture=True), times=9),
            "guest": guest.boot_s * 1000,
        },
        memory_kib=_memory(guest),
        call_nsec=_calls(guest),
        exit_nsec=_exit_nsec(),
    )


def draw(costs: Costs) -> None:
    """Three figures, one below the other; in a terminal, their lines."""
    from labkit.course.views import figures

    kind = "on the processor itself, with KVM" if costs.accelerated else "in software, without KVM"
    notes = {"guest": f"runs {kind}"}
    figures.show("How long it takes to start", costs.start_msec, unit="ms", notes=notes)
    figures.show("How much memory it takes while it does nothing", costs.memory_kib, unit="KiB", notes=notes)
    calls: Figures = {f"system call in the {place}": value for place, value in costs.call_nsec.items()}
    calls["exit of a guest"] = costs.exit_nsec
    figures.show(
        "What a call costs",
        calls,
        unit="ns",
        notes={
            "system call in the guest": f"asks the guest's own kernel, {kind}",
            "exit of a guest": "with /dev/kvm" if costs.exit_nsec else "no usable /dev/kvm on this machine",
        },
    )


# Keeping


def keep(name: str, costs: Costs) -> None:
    """Store the costs under `name`; what was kept there before is replaced."""
    measurements.add(FILE, name, asdict(costs))


def kept() -> dict[str, Costs]:
    """All that was kept, by name."""
    found = {}
    for name, data in measurements.read(FILE).items():
        with suppress(TypeError):
            found[name] = Costs(**data)
    return found


# Measuring


def _median_msec(run: Callable[[], object], times: int) -> float:
    run()  # the first time finds nothing in memory, with nobody to blame
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def _start_of_a_process_msec() -> float:
    return _median_msec(lambda: subprocess.run(["true"], check=True), times=15)


def _memory(guest: Computer) -> Figures:
    busybox = str(kernels.busybox())
    with container.start(["sleep", "1000"]) as box, spawn(sleeper, busybox, "sleep", "1000") as parent:
        found: Figures = {
            "process": run_in_child(pss_kib, parent.value),
            "container": run_in_child(pss_kib, box.pid),
        }
    return {**found, "guest": pss_kib(guest.pid)}


def pss_kib(pid: int) -> float | None:
    """A process's memory in KiB, with its share of what it has in common with others; None: it may not be read."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            return next((float(line.split()[1]) for line in rollup if line.startswith("Pss:")), None)
    except OSError:
        return None


def _calls(guest: Computer) -> Figures:
    """The cost of a system call, with the same program everywhere: busybox's dd, which copies single bytes."""
    ways: dict[str, Callable[[int], object]] = {
        "process": lambda count: run_in_child(_dd, str(kernels.busybox()), count),
        "container": lambda count: container.run(_dd_words(count), capture=True),
        "guest": lambda count: guest.run(" ".join(_dd_words(count)), timeout=120),
    }
    return {place: _each_nsec(run) for place, run in ways.items()}


def _each_nsec(run: Callable[[int], object]) -> float | None:
    """What the calls of many bytes take longer than those of one: so what the start takes does not count."""
    few, many = _median_msec(lambda: run(1), times=5), _median_msec(lambda: run(_CALLS), times=5)
    each = (many - few) * 1e6 / (2 * _CALLS)
    return each if each > 0 else None


def _dd_words(count: int) -> list[str]:
    return ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={count}"]


def _dd(busybox: str, count: int) -> None:
    subprocess.run([busybox, *_dd_words(count)], stderr=subprocess.DEVNULL, check=True)


def _exit_nsec() -> float | None:
    try:
        if run_in_child(kvm.unsupported) is None:
            return run_in_child(kvm_measure.exit_usec) * 1000
    except (Unsupported, LabkitError):
        pass
    return None
