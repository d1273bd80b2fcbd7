"""MicroVMs: another kernel in seconds, with this machine's own files in it.

    from labkit import vm
    vm.run(["uname", "-r"])                     # boots, prints the guest's kernel, ends the machine
    vm.run(["sh", "-c", "cat /sys/fs/cgroup/cgroup.controllers"], kind="qemu", capture=True).stdout
    with vm.start(memory_mib=256) as guest:     # a computer of its own, with nothing of this one's in it, that stays
        guest.run("uname -r").output
    vm.kinds()                                  # {"uml": None, "qemu": Unsupported(...)}: None is "can run here"

Read in this order: `command` (what a caller asks for), `machine` (one machine, seen from the host), `guest` and `root`
(the same, from inside), `streams` (the line between them), `uml` and `qemu` (the two kinds), `kernels` and `vmlinux`
(where theirs come from), `keeper` (why nothing is left behind), `confine` (why the host's files stay as they are).
The computer that stays: `computer`, `ownroot` (what is in it), `serial` (its console).
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from labkit.vm.boot import MachineDied, TimedOut
    from labkit.vm.cli import main
    from labkit.vm.persistent import Computer, Finished, end_all, start
    from labkit.vm.run_command import Completed, kinds, offer, run

__all__ = [
    "Completed",
    "Computer",
    "Finished",
    "MachineDied",
    "TimedOut",
    "end_all",
    "kinds",
    "main",
    "offer",
    "run",
    "start",
]

_HOME = {
    "main": "cli", "Completed": "run_command", "kinds": "run_command", "offer": "run_command", "run": "run_command",
    "Computer": "persistent", "Finished": "persistent", "end_all": "persistent", "start": "persistent",
    "MachineDied": "boot", "TimedOut": "boot",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the guest imports this package too, and pays for every import."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
