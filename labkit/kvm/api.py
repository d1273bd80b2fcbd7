"""What <linux/kvm.h> says: the requests that /dev/kvm takes, and the structures that go with them.

KVM is a small interface: a descriptor each for the kernel module, a virtual machine and a processor, ioctl(2) requests
on them, and one shared page per processor. Source: Documentation/virt/kvm/api.rst of the kernel.

    /dev/kvm  --KVM_CREATE_VM-->  machine  --KVM_CREATE_VCPU-->  processor  --mmap-->  the page `kvm_run`
"""

import ctypes
import os
from ctypes import c_uint8, c_uint16, c_uint32, c_uint64

DEVICE = os.environ.get("LABKIT_KVM", "/dev/kvm")  # LABKIT_KVM=/none: as on a machine without it
API_VERSION = 12  # since 2007, and never to change again: api.rst, 4.1

# Requests of /dev/kvm itself.
KVM_GET_API_VERSION = 0xAE00
KVM_CREATE_VM = 0xAE01
KVM_GET_VCPU_MMAP_SIZE = 0xAE04
# Requests of a machine.
KVM_CREATE_VCPU = 0xAE41
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_SET_TSS_ADDR = 0xAE47
# Requests of a processor, a "virtual CPU", or vCPU.
KVM_RUN = 0xAE80
KVM_GET_REGS, KVM_SET_REGS = 0x8090AE81, 0x4090AE82
KVM_GET_SREGS, KVM_SET_SREGS = 0x8138AE83, 0x4138AE84
KVM_SET_SIGNAL_MASK = 0x4004AE8B

# Why KVM_RUN came back: `exit_reason`.
KVM_EXIT_IO = 2
KVM_EXIT_HLT = 5
KVM_EXIT_MMIO = 6
KVM_EXIT_SHUTDOWN = 8
KVM_EXIT_FAIL_ENTRY = 9
KVM_EXIT_INTR = 10
KVM_EXIT_INTERNAL_ERROR = 17
KVM_EXIT_IO_IN, KVM_EXIT_IO_OUT = 0, 1  # `io.direction`
KVM_INTERNAL_ERROR_EMULATION = 1


_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp")
_OF_64_BITS = ("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
_CONTROL = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")
_BITS = ("type", "present", "dpl", "db", "s", "l", "g", "avl", "unusable", "padding")  # of a segment, a byte each


class KvmUserspaceMemoryRegion(ctypes.Structure):
    """`struct kvm_userspace_memory_region`: bytes of ours that are the guest's memory from an address of its own on."""

    _fields_ = (
        ("slot", c_uint32),
        ("flags", c_uint32),
        ("guest_phys_addr", c_uint64),
        ("memory_size", c_uint64),
        ("userspace_addr", c_uint64),
    )


class KvmRegs(ctypes.Structure):
    """`struct kvm_regs`: the registers a program works with; `rip` is the address of the next instruction."""

    _fields_ = tuple((name, c_uint64) for name in (*_GENERAL, *_OF_64_BITS, "rip", "rflags"))


class KvmSegment(ctypes.Structure):
    """`struct kvm_segment`: which part of the memory a segment register stands for, and who may use it."""

    _fields_ = (
        ("base", c_uint64),
        ("limit", c_uint32),
        ("selector", c_uint16),
        *((name, c_uint8) for name in _BITS),
    )


class KvmDtable(ctypes.Structure):
    """`struct kvm_dtable`: where a table of descriptors lies in the guest's memory. `limit` is its last byte."""

    _fields_ = (("base", c_uint64), ("limit", c_uint16), ("padding", c_uint16 * 3))


class KvmSregs(ctypes.Structure):
    """`struct kvm_sregs`: the registers a kernel works with: segments, tables, the processor's mode."""

    _fields_ = (
        *((name, KvmSegment) for name in _SEGMENTS),
        ("gdt", KvmDtable),
        ("idt", KvmDtable),
        *((name, c_uint64) for name in _CONTROL),
        ("interrupt_bitmap", c_uint64 * 4),
    )


class KvmIo(ctypes.Structure):
    """`kvm_run.io`: the guest reads or writes a port, `count` times `size` bytes. They lie in the page, not in here."""

    _fields_ = (
        ("direction", c_uint8),
        ("size", c_uint8),
        ("port", c_uint16),
        ("count", c_uint32),
        ("data_offset", c_uint64),  # from the beginning of the page
    )


class KvmMmio(ctypes.Structure):
    """`kvm_run.mmio`: the guest reads or writes an address at which it has no memory."""

    _fields_ = (("phys_addr", c_uint64), ("data", c_uint8 * 8), ("len", c_uint32), ("is_write", c_uint8))


class KvmFailEntry(ctypes.Structure):
    """`kvm_run.fail_entry`: the processor refused to enter the guest."""

    _fields_ = (("hardware_entry_failure_reason", c_uint64), ("cpu", c_uint32))


class KvmInternalError(ctypes.Structure):
    """`kvm_run.internal`: KVM gave up; with suberror 1 it met an instruction that it cannot imitate."""

    _fields_ = (("suberror", c_uint32), ("ndata", c_uint32), ("data", c_uint64 * 16))


class _Why(ctypes.Union):
    _fields_ = (
        ("io", KvmIo),
        ("mmio", KvmMmio),
        ("fail_entry", KvmFailEntry),
        ("internal", KvmInternalError),
        ("padding", c_uint8 * 256),
    )


class KvmRun(ctypes.Structure):
    """`struct kvm_run`, the beginning of the shared page: what we ask of KVM_RUN, and why it came back."""

    _anonymous_ = ("why",)
    _fields_ = (
        ("request_interrupt_window", c_uint8),
        ("immediate_exit", c_uint8),  # ours to set: come back at once
        ("padding1", c_uint8 * 6),
        ("exit_reason", c_uint32),
        ("ready_for_interrupt_injection", c_uint8),
        ("if_flag", c_uint8),
        ("flags", c_uint16),
        ("cr8", c_uint64),
        ("apic_base", c_uint64),
        ("why", _Why),  # which member counts depends on exit_reason
    )
