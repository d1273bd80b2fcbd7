"""What a computer's firmware does before a kernel starts: put the processor into its mode, with the tables it needs.

Three modes, one for each age of the processor. *Real*: 16 bits, and every program may do everything (1978).
*Protected*: 32 bits, and four rings, of which ring 0 is the kernel's and ring 3 the programs' (1985). *Long*: 64 bits,
and memory by page tables (2003). Source: Intel SDM volume 3, chapters 3 (segments) and 6 (interrupts).
"""

import struct
from typing import Any

from labkit.kvm.api import KvmDtable, KvmSegment, KvmSregs
from labkit.kvm.listing import Guest

GDT, IDT, TSS = 0x500, 0x600, 0x700  # where the tables lie, below the first code
PAGE_TABLES = 0x2000  # and three pages of page tables
KERNEL_STACK = 0x7000
KERNEL_CODE, KERNEL_DATA = 0x08, 0x10  # selectors: the number of a descriptor times 8, and its ring
USER_CODE, USER_DATA = 0x18 | 3, 0x20 | 3
TASK = 0x28
GENERAL_PROTECTION = 13  # the exception for what a ring may not do
CR0_PE, CR0_PG = 1, 1 << 31
CR4_PAE = 1 << 5
EFER_LME, EFER_LMA = 1 << 8, 1 << 10
CODE, DATA, BUSY_TSS = 0xB, 0x3, 0xB  # types of descriptors
ALL = 0xFFFFF  # the limit of a segment, in pages of 4 KiB: all of 4 GiB


def prepare(guest: Guest, sregs: KvmSregs, memory: Any) -> None:
    """Set `sregs`, and write the tables that they point to into `memory`, for the mode that `guest` is written for."""
    sregs.cs.base = sregs.cs.selector = 0  # a real computer starts at 0xfffffff0, in its firmware
    if guest.mode != "real":
        _protected(sregs, memory, guest.label("fault"))
    if guest.mode == "long":
        _long(sregs, memory)


def _protected(sregs: KvmSregs, memory: Any, fault: int | None) -> None:
    """Flat memory: every segment is all of it. `fault`: the kernel's code for what a program may not do."""
    sregs.cr0 |= CR0_PE
    sregs.cs = _segment(KERNEL_CODE, CODE, ring=0)
    sregs.ss = _segment(KERNEL_DATA, DATA, ring=0)
    for name in ("ds", "es", "fs", "gs"):
        setattr(sregs, name, _segment(USER_DATA, DATA, ring=3))  # of use to both rings
    gdt = bytes(8) + b"".join(
        (
            _descriptor(CODE, ring=0),
            _descriptor(DATA, ring=0),
            _descriptor(CODE, ring=3),
            _descriptor(DATA, ring=3),
        )
    )
    sregs.gdt = _table(memory, GDT, gdt)
    # The task state segment says which stack the kernel gets when a program is interrupted.
    tss = bytearray(104)
    struct.pack_into("<II", tss, 4, KERNEL_STACK, KERNEL_DATA)
    struct.pack_into("<H", tss, 102, len(tss))  # ports that ring 3 may use: a list behind its end, so none
    memory[TSS : TSS + len(tss)] = bytes(tss)
    sregs.tr = KvmSegment(base=TSS, limit=len(tss) - 1, selector=TASK, type=BUSY_TSS, present=1)
    # The interrupt table has one entry that counts; without a kernel's answer to faults it has none.
    sregs.idt = _table(memory, IDT, bytes(8 * GENERAL_PROTECTION) + _gate(fault)) if fault else KvmDtable()


def _long(sregs: KvmSregs, memory: Any) -> None:
    """64 bits: three page tables, by which the first 2 MiB of addresses are the first 2 MiB of memory."""
    top, middle, bottom = (PAGE_TABLES + number * 0x1000 for number in range(3))
    present_and_writable, huge = 3, 0x80
    for table, entry in ((top, middle), (middle, bottom), (bottom, huge)):
        memory[table : table + 8] = struct.pack("<Q", entry | present_and_writable)
    sregs.cr3, sregs.cr4 = top, sregs.cr4 | CR4_PAE
    sregs.cr0 |= CR0_PG
    sregs.efer |= EFER_LME | EFER_LMA
    sregs.cs.l, sregs.cs.db = 1, 0


def _segment(selector: int, kind: int, ring: int) -> KvmSegment:
    """A segment register as the processor would have loaded it from the descriptor."""
    return KvmSegment(limit=0xFFFFFFFF, selector=selector, type=kind, present=1, dpl=ring, db=1, s=1, g=1)


def _descriptor(kind: int, ring: int) -> bytes:
    """An entry of the global descriptor table: base 0, limit 4 GiB, in the scattered order of the 80286."""
    present_and_ordinary = 0x90
    pages_and_32_bits = 0xC0
    return struct.pack(
        "<HHBBBB", ALL & 0xFFFF, 0, 0, present_and_ordinary | ring << 5 | kind, pages_and_32_bits | 0xF, 0
    )


def _gate(address: int) -> bytes:
    """An entry of the interrupt table: go on at `address`, in ring 0, with interrupts off."""
    return struct.pack("<HHBBH", address & 0xFFFF, KERNEL_CODE, 0, 0x8E, address >> 16)


def _table(memory: Any, address: int, table: bytes) -> KvmDtable:
    memory[address : address + len(table)] = table
    return KvmDtable(base=address, limit=len(table) - 1)
