"""A machine on /dev/kvm: the guest's instructions run on the processor itself, with ours and the kernel's kept out.

That is all there is to it: three descriptors, two mappings, and an ioctl that returns whenever the guest needs
something. Source: Documentation/virt/kvm/api.rst, 4.1 to 4.13 and 4.35; ioctl(2), mmap(2).
"""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
from contextlib import ExitStack
from typing import ClassVar

from labkit.errors import LabkitError, Unsupported
from labkit.kvm import api
from labkit.kvm.api import KvmRegs, KvmSregs, KvmUserspaceMemoryRegion
from labkit.kvm.exits import NeverHalted
from labkit.kvm.limit import Limit
from labkit.kvm.machine import Machine

# Three pages that Intel's KVM needs for itself, at an address where no guest of ours has memory. api.rst, 4.35
TSS_ADDRESS = 0x7FFFD000


def open_device() -> int:
    """Open /dev/kvm; a descriptor. `Unsupported`: there is none, it is not yours to open, or not as it should be."""
    if platform.machine() != "x86_64":
        raise Unsupported(
            f"the course's guests are written for x86-64, and this processor is {platform.machine()}",
            "use a machine with an Intel or AMD processor",
        )
    try:
        kvm_fd = os.open(api.DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        mend = "switch virtualisation on in the firmware; in a virtual machine, nested virtualisation"
        raise Unsupported(f"there is no {api.DEVICE} here", mend) from None
    except PermissionError:
        mend = "sudo usermod -aG kvm $USER, then log in again"
        raise Unsupported(f"{api.DEVICE} is not yours to open", mend) from None
    except OSError as error:
        mend = "look for lines about kvm in the kernel's log: sudo dmesg"
        raise Unsupported(f"{api.DEVICE} cannot be opened ({error.strerror})", mend) from None
    try:
        version = str(fcntl.ioctl(kvm_fd, api.KVM_GET_API_VERSION))
    except OSError as error:
        version = f"{error.strerror}"
    if version != str(api.API_VERSION):
        os.close(kvm_fd)
        raise Unsupported(f"{api.DEVICE} says `{version}` when asked for its version", "use a newer kernel")
    return kvm_fd


class KvmMachine(Machine):
    """A machine whose guest runs on the processor itself. `Unsupported`: /dev/kvm cannot be used here."""

    kind: ClassVar[str] = "this machine's processor, through /dev/kvm"

    def _open(self, memory_bytes: int) -> None:
        with ExitStack() as held:  # whatever goes wrong, what was opened until then is closed

            def keep(fd: int) -> int:
                held.callback(os.close, fd)
                return fd

            # A machine is a descriptor. It has neither memory nor processors yet.
            kvm_fd = keep(open_device())
            vm_fd = keep(_ioctl(kvm_fd, api.KVM_CREATE_VM))
            _ioctl(vm_fd, api.KVM_SET_TSS_ADDR, TSS_ADDRESS)
            # Its memory is memory of ours: what we write there, the guest reads, and the other way round.
            self.memory = held.enter_context(mmap.mmap(-1, memory_bytes))
            start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
            region = KvmUserspaceMemoryRegion(guest_phys_addr=0, memory_size=memory_bytes, userspace_addr=start)
            _ioctl(vm_fd, api.KVM_SET_USER_MEMORY_REGION, region)
            # A processor is a descriptor too, with a page that it shares with us.
            self._vcpu_fd = keep(_ioctl(vm_fd, api.KVM_CREATE_VCPU))
            page_bytes = _ioctl(kvm_fd, api.KVM_GET_VCPU_MMAP_SIZE)
            self.page = held.enter_context(mmap.mmap(self._vcpu_fd, page_bytes))
            self._limit = held.enter_context(Limit(self.seconds, self.page, self._vcpu_fd))
            self._held = held.pop_all()

    def resume(self) -> None:
        """Let the guest run on until it exits. This is the call in which it runs."""
        while True:
            try:
                # Python lets other threads run meanwhile. A signal ends the call with EINTR, and Python then runs the
                # signal's handler: Ctrl-C raises KeyboardInterrupt here.
                fcntl.ioctl(self._vcpu_fd, api.KVM_RUN, 0)
                return
            except InterruptedError:
                if self._limit.reached:
                    raise NeverHalted(self.seconds) from None
                self._limit.calm()

    def get_regs(self) -> KvmRegs:
        """KVM_GET_REGS."""
        _ioctl(self._vcpu_fd, api.KVM_GET_REGS, regs := KvmRegs())
        return regs

    def set_regs(self, regs: KvmRegs) -> None:
        """KVM_SET_REGS."""
        _ioctl(self._vcpu_fd, api.KVM_SET_REGS, regs)

    def get_sregs(self) -> KvmSregs:
        """KVM_GET_SREGS."""
        _ioctl(self._vcpu_fd, api.KVM_GET_SREGS, sregs := KvmSregs())
        return sregs

    def set_sregs(self, sregs: KvmSregs) -> None:
        """KVM_SET_SREGS. The kernel refuses what no processor could hold."""
        _ioctl(self._vcpu_fd, api.KVM_SET_SREGS, sregs)

    def close(self) -> None:
        """Close the descriptors, last opened first: that ends the machine."""
        self._held.close()


def _ioctl(fd: int, request: int, argument: int | ctypes.Structure = 0) -> int:
    """ioctl(2), with a sentence for the errors that a machine may meet."""
    try:
        return fcntl.ioctl(fd, request, argument)
    except OSError as error:
        name = next(name for name, value in vars(api).items() if name.startswith("KVM_") and value == request)
        if error.errno in (errno.EBUSY, errno.ENODEV):  # another hypervisor has the processor
            mend = "end the other hypervisor (VirtualBox, VMware) that uses the processor"
            raise Unsupported(f"{name} is refused ({error.strerror})", mend) from None
        raise LabkitError(f"{name} failed: {error.strerror}") from error
