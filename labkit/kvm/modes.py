"""Which guests /dev/kvm can run here, found out by trying; and a machine for each guest, of whichever kind can run it.

That /dev/kvm is there proves little. Inside other virtual machines it may run one of the processor's modes and not
another, and no list of features says so.
"""

import functools

from labkit.errors import LabkitError, Unsupported
from labkit.kvm.console import DebugPort, serve
from labkit.kvm.guests import TRIALS
from labkit.kvm.hardware import KvmMachine
from labkit.kvm.listing import Guest
from labkit.kvm.machine import MEMORY_BYTES, SECONDS, Machine
from labkit.kvm.software import SoftwareMachine

TRIAL_SECONDS = 1.0


@functools.cache
def modes() -> dict[str, Unsupported | None]:
    """For the modes real, protected and long: None where a small guest has run in it on /dev/kvm, or what came instead.

    Takes a few milliseconds; three seconds at most, on a machine where all three hang.
    """
    return {mode: _try(guest) for mode, guest in TRIALS.items()}


def _try(guest: Guest) -> Unsupported | None:
    printer = DebugPort(pass_on=lambda text: None)
    elsewhere = "use a machine whose /dev/kvm can; here the course's guests run in software"
    try:
        with KvmMachine(guest, seconds=TRIAL_SECONDS) as machine:
            serve(machine, printer)
    except Unsupported as lack:
        return lack
    except LabkitError as error:
        return Unsupported(f"/dev/kvm does not run guests in {guest.mode} mode here ({error})", elsewhere)
    if printer.output != b"\x07":
        return Unsupported(f"/dev/kvm runs guests in {guest.mode} mode wrongly here ({printer.output!r})", elsewhere)
    return None


def unsupported() -> Unsupported | None:
    """What keeps /dev/kvm from running the guests of lab 04 here; None where it runs them."""
    return modes()["real"] or modes()["protected"]


def machine_for(guest: Guest, *, memory_bytes: int = MEMORY_BYTES, seconds: float = SECONDS) -> Machine:
    """A machine with `guest` in it: on /dev/kvm where that runs such guests here, else in software."""
    kind = SoftwareMachine if modes()[guest.mode] else KvmMachine
    return kind(guest, memory_bytes=memory_bytes, seconds=seconds)
