"""`python -m labkit.vm.fetch`: the kernels that virtual machines boot, fetched while there is a network.

A machine fetches its own at its first start. `./lab setup` does it beforehand, so that the guest of lab 04 and
`./lab vm` work offline too: 156 MB for QEMU's kernel, nothing where one is installed. Set-up fails without the first,
which a lab needs, and not without the second.
"""

import sys
from collections.abc import Callable

from labkit.errors import LabkitError, Unsupported
from labkit.vm import kernels, qemu, uml
from labkit.vm.run_command import kinds

Fetch = Callable[[], object]


def _for_qemu() -> None:
    qemu.check()
    kernels.busybox()
    kernels.linux(fetch=True)


def _for_uml() -> None:
    uml.check()
    kernels.uml(fetch=True)


WANTED: dict[str, Fetch] = {"the guest of lab 04": _for_qemu, "./lab vm": _for_uml}


NEEDED = ("the guest of lab 04",)


def fetch() -> dict[str, str]:
    """Fetches what can be fetched; returns a line for each failure. What this machine cannot boot is passed over."""
    failures = {}
    for what, get in WANTED.items():
        try:
            get()
        except Unsupported:
            continue  # the doctor says so, and how to mend it
        except LabkitError as error:
            failures[what] = f"{what} will need the network once more: {error}"
    return failures


def main() -> int:
    failures = fetch()
    for line in failures.values():
        print(f"lab: {line}", file=sys.stderr)
    if not failures:
        print("booting a virtual machine of each kind, once, to see which runs here", flush=True)
        kinds()
    return 1 if any(what in failures for what in NEEDED) else 0


if __name__ == "__main__":
    sys.exit(main())
