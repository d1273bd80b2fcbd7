"""The lab's guest: one computer for a whole notebook, booted when it is first needed, and again if it has ended.

It ends with the notebook (`labkit.vm.guardian` sees to that), or before with `end()`.
"""

import atexit
import threading
from collections.abc import Callable

from labkit import vm
from labkit.errors import Unsupported
from labkit.vm.persistent import Computer

_one_at_a_time = threading.Lock()
_running: list[Computer] = []


def guest(memory_mib: int = 256, watch: Callable[[Computer], object] | None = None) -> Computer:
    """The lab's guest: booted when it is first asked for or when it has ended, and else the one that runs.

    `watch` is given it in both cases, to show its console. Raises what `vm.start` raises.
    """
    with _one_at_a_time:
        for old in list(_running):
            if old.alive and old.memory_mib == memory_mib:
                if watch is not None:
                    watch(old)
                return old
            old.close()
            _running.remove(old)
        _running.append(vm.start(memory_mib=memory_mib, watch=watch))
        return _running[0]


def kvm() -> bool:
    """Whether the lab's guest runs on the processor itself. False: QEMU imitates one, or no guest can be booted."""
    try:
        return guest().kvm
    except Unsupported:
        return False


@atexit.register
def end() -> None:
    """End it, if there is one. Twice is as good as once."""
    while _running:
        _running.pop().close()
