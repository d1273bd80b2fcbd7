"""What virtual machines cost: the time of an exit, and of a machine's whole life. Figures, never verdicts."""

import statistics
import time

from labkit.kvm.guests import CHATTER, HALT
from labkit.kvm.hardware import KvmMachine
from labkit.kvm.machine import Machine


def exit_usec(kind: type[Machine] = KvmMachine, *, exits: int = 2000, rounds: int = 5) -> float:
    """Microseconds from resuming a guest to its next exit, the median of `rounds` of `exits` each."""
    with kind(CHATTER, seconds=60) as machine:
        return statistics.median(_usec_each(machine, exits) for _ in range(rounds))


def _usec_each(machine: Machine, exits: int) -> float:
    began = time.perf_counter_ns()
    for _ in range(exits):
        machine.resume()
    return (time.perf_counter_ns() - began) / 1000 / exits


def life_usec(kind: type[Machine] = KvmMachine, *, machines: int = 50) -> float:
    """Microseconds to make a machine, have its guest halt at once, and close it; the median of `machines`."""
    lives = []
    for _ in range(machines):
        began = time.perf_counter_ns()
        with kind(HALT) as machine:
            machine.run()
        lives.append((time.perf_counter_ns() - began) / 1000)
    return statistics.median(lives)
