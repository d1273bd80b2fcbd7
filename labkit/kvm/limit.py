"""How a guest that never stops is stopped: a clock of ours, and a signal that only KVM_RUN can feel.

While a guest runs, our thread is inside ioctl(2) and can do nothing. Only a signal gets it out. The signal is blocked
all the time, except within KVM_RUN (KVM_SET_SIGNAL_MASK): so it can neither be lost in the moment before the call, nor
strike anything else. `immediate_exit` makes the calls after that return at once, too. api.rst, 4.21 and 5; signal(7).
"""

import fcntl
import mmap
import signal
import struct
import threading
from collections import Counter
from types import TracebackType

from labkit.kvm import api

KICK = signal.SIGURG  # a signal that nobody here has another use for
_KERNEL_SIGSET_BYTES = 8
_limits_of: Counter[int] = Counter()  # by thread: it has KICK blocked as long as it has a machine


class Limit:
    """Within `with`: after `seconds`, KVM_RUN of this thread on `vcpu_fd` ends with EINTR, and `reached` is True."""

    def __init__(self, seconds: float, page: mmap.mmap, vcpu_fd: int) -> None:
        self.reached = False
        self._page = page
        self._vcpu_fd = vcpu_fd
        self._thread = threading.get_ident()
        self._clock = threading.Timer(seconds, self._kick)
        self._clock.daemon = True

    def __enter__(self) -> "Limit":
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {KICK})
        _limits_of[self._thread] += 1
        _unblock_within_run(self._vcpu_fd, blocked - {KICK})
        self._clock.start()
        return self

    def _kick(self) -> None:
        self.reached = True
        self._page[api.KvmRun.immediate_exit.offset] = 1
        signal.pthread_kill(self._thread, KICK)

    def calm(self) -> None:
        """Take a signal back that was meant for another machine of this thread, which has been stopped by it."""
        signal.sigtimedwait({KICK}, 0)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._clock.cancel()
        self._clock.join()
        _limits_of[self._thread] -= 1
        if threading.get_ident() == self._thread and not _limits_of[self._thread]:
            self.calm()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {KICK})


def _unblock_within_run(vcpu_fd: int, blocked: set[int]) -> None:
    """KVM_SET_SIGNAL_MASK: the signals that are blocked while the guest runs, one bit each, instead of the thread's."""
    bits = sum(1 << (number - 1) for number in blocked)
    mask = struct.pack("=IQ", _KERNEL_SIGSET_BYTES, bits)
    fcntl.ioctl(vcpu_fd, api.KVM_SET_SIGNAL_MASK, mask)
