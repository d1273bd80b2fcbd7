"""The hypervisor's side of a guest's devices: a serial port, a debug port, and the loop that serves them.

To a guest a device is nothing but numbers: ports that it reads and writes. Whatever answers there *is* the device.
"""

import sys
from collections.abc import Callable
from typing import Protocol

from labkit.errors import LabkitError
from labkit.kvm.exits import Exit, Halt, PortIn, PortOut
from labkit.kvm.machine import Machine

THR, LSR = 0, 5  # registers of a 16550: what is sent (Transmitter Holding), Line Status
LSR_THRE = 0x20  # the transmitter holding register is empty: it can take another byte
LSR_TEMT = 0x40  # everything has been sent


class Device(Protocol):
    """What the loop needs of a device."""

    ports: range

    def write(self, port: int, data: bytes) -> None:
        """The guest has written `data`, one item, to `port`."""

    def read(self, port: int, size: int) -> bytes:
        """The guest reads one item of `size` bytes from `port`."""


class DebugPort:
    """A port whose bytes are characters. `output` keeps them, and `pass_on` gets them at once."""

    def __init__(self, port: int = 0xE9, pass_on: Callable[[str], object] = sys.stdout.write) -> None:
        self.ports = range(port, port + 1)
        self.output = b""
        self._pass_on = pass_on

    def write(self, port: int, data: bytes) -> None:
        """Keep the bytes and pass them on."""
        self.output += data
        self._pass_on(data.decode("latin-1"))

    def read(self, port: int, size: int) -> bytes:
        """What Bochs answers, so that a guest can tell that there is such a port."""
        return b"\xe9" * size


class Serial(DebugPort):
    """As much of a 16550 serial port as a guest needs that only sends: it is always ready."""

    def __init__(self, port: int = 0x3F8, pass_on: Callable[[str], object] = sys.stdout.write) -> None:
        super().__init__(port, pass_on)
        self.ports = range(port, port + 8)

    def write(self, port: int, data: bytes) -> None:
        """Send what is written to the first register; settings (speed, interrupts) make no difference here."""
        if port - self.ports.start == THR:
            super().write(port, data)

    def read(self, port: int, size: int) -> bytes:
        """The line status says "ready"; the other registers hold nothing."""
        value = LSR_THRE | LSR_TEMT if port - self.ports.start == LSR else 0
        return value.to_bytes(size, "little")


class GuestFailed(LabkitError):
    """The guest came to an end that is none: `stop` says which."""

    def __init__(self, stop: Exit) -> None:
        super().__init__(stop)
        self.stop = stop

    def __str__(self) -> str:
        return f"the guest did not end by halting: {self.stop}"


def serve(machine: Machine, *devices: Device) -> None:
    """Run the guest until it halts, and serve its ports; where nobody is, all bits are 1, and what is written is lost.

    `NeverHalted`: its time was up. `GuestFailed`: it crashed, or did what the processor or KVM will not do.
    """
    while not isinstance(stop := machine.run(), Halt):
        match stop:
            case PortOut(port, size, count, data):
                if device := _at(port, devices):
                    for item in range(count):
                        device.write(port, data[item * size : (item + 1) * size])
            case PortIn(port, size, count):
                device = _at(port, devices)
                machine.answer(b"".join(device.read(port, size) if device else b"\xff" * size for _ in range(count)))
            case _:
                raise GuestFailed(stop)


def _at(port: int, devices: tuple[Device, ...]) -> Device | None:
    return next((device for device in devices if port in device.ports), None)
