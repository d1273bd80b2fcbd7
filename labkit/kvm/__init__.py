"""A virtual machine monitor on /dev/kvm in plain Python: the computer inside a process of lab 04.

To read in this order: `guest` (code as data), `exits` (why a guest stops), `machine` and `hardware` (make one and run
it), `console` (be its devices), `guests` (what runs in it). `api` is the kernel's header. `software` and `instructions`
stand in where there is no /dev/kvm. amd64 only.
"""

from labkit.kvm.console import DebugPort, Device, GuestFailed, Serial, serve
from labkit.kvm.exits import (
    Exit,
    FailEntry,
    Halt,
    InternalError,
    MmioRead,
    MmioWrite,
    NeverHalted,
    NotImitated,
    Other,
    PortIn,
    PortOut,
    Shutdown,
)
from labkit.kvm.hardware import KvmMachine
from labkit.kvm.listing import Code, Guest, code
from labkit.kvm.machine import Machine
from labkit.kvm.measure import exit_usec, life_usec
from labkit.kvm.modes import machine_for, modes, unsupported
from labkit.kvm.software import SoftwareMachine

__all__ = [
    "Code",
    "DebugPort",
    "Device",
    "Exit",
    "FailEntry",
    "Guest",
    "GuestFailed",
    "Halt",
    "InternalError",
    "KvmMachine",
    "Machine",
    "MmioRead",
    "MmioWrite",
    "NeverHalted",
    "NotImitated",
    "Other",
    "PortIn",
    "PortOut",
    "Serial",
    "Shutdown",
    "SoftwareMachine",
    "code",
    "exit_usec",
    "life_usec",
    "machine_for",
    "modes",
    "serve",
    "unsupported",
]
