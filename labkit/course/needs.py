"""What a lab may need of a machine, beyond what every lab needs, and whether this machine has it.

A lab's source says it in its front matter: `needs: [cgroup-v2]`. Such a lab runs everywhere, and says in its cells what
is missing; but its solved notebook is made, and its checks are tested, where the machine has it: in a virtual machine,
if not here.
"""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from labkit.errors import InvalidConfig, LabkitError, Unsupported


def _cgroup_v2() -> Unsupported | None:
    from labkit import cgroups

    return cgroups.unsupported()


def _nat() -> Unsupported | None:
    from labkit.network import nftables
    from labkit.process import run_in_child

    return run_in_child(nftables.unsupported)


def lxc() -> Unsupported | None:
    """What this machine lacks for LXC to run a container on the lab host; None where nothing is lacking."""
    from labkit import host

    if shutil.which("lxc-execute") is None:
        return Unsupported("LXC is not installed", "as root, type: apt-get install lxc")
    # lxc-execute gives up its supplementary groups, and ends where it may not.
    if Path(f"/proc/{host.pid()}/setgroups").read_text().strip() == "deny":
        return Unsupported(
            "LXC needs a user namespace with more than one group, and yours has one",
            "set subordinate ids apart for yourself (subgid(5)), or use a virtual machine: ./lab --vm",
        )
    return None


def _kvm() -> Unsupported | None:
    from labkit import kvm
    from labkit.process import run_in_child

    return run_in_child(kvm.unsupported)


def _guest() -> Unsupported | None:
    from labkit.vm import kernels, qemu

    try:
        qemu.check()
        kernels.busybox()
        kernels.linux(fetch=True)  # once: then it is among the course's files
    except Unsupported as lack:
        return lack
    except LabkitError as error:
        return Unsupported(
            f"there is no kernel for a guest to boot ({error})", "connect to the Internet, and try again"
        )
    return None


KNOWN: dict[str, Callable[[], Unsupported | None]] = {
    "cgroup-v2": _cgroup_v2,
    "guest": _guest,
    "kvm": _kvm,
    "lxc": lxc,
    "nat": _nat,
}


def lacking(needs: Iterable[str]) -> Unsupported | None:
    """The first of `needs` that this machine lacks, and how to mend it; None where it has them all.

    `InvalidConfig`: a word that is none of `KNOWN`.
    """
    for need in needs:
        if need not in KNOWN:
            raise InvalidConfig(f"there is no need called {need!r}, only: {', '.join(KNOWN)}")
        if lack := KNOWN[need]():
            return lack
    return None
