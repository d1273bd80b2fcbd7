"""Whether a kind of machine boots here: found by booting one, and remembered.

That a program is installed proves little. On a processor with AMX, an uncorrected User Mode Linux stops at boot; in
some clouds' machines QEMU with KVM hangs. So each kind is booted once, to the first words of the guest's own program.
What was found holds for this kernel to boot, this machine's kernel, its processor and this user; that something did not
boot, for this boot of the machine only.
"""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError, Unsupported
from labkit.files import state_folder
from labkit.vm.boot import Kind, Machine, MachineDied, TimedOut

MEMORY_MIB = 256


class Trial:
    """What booting one machine of a kind has shown."""

    def __init__(self, seconds: float, why: str = "") -> None:
        self.seconds = seconds  #: until the guest's first program ran
        self.why = why  #: empty, or why none ran

    def lack(self, name: str) -> Unsupported | None:
        """None if the kind can run here."""
        if not self.why:
            return None
        return Unsupported(
            f"a trial boot of {name} failed ({self.why})",
            "another kind may run, or the Vagrant machine: see the README",
        )


def known(kind: Kind) -> Trial | None:
    """What an earlier trial has found; None: there was none, or something is different since."""
    try:
        kept = json.loads(_record().read_text())[kind.NAME]
        if kept["circumstances"] == _circumstances(kind, failed=bool(kept["why"])):
            return Trial(float(kept["seconds"]), str(kept["why"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def of(kind: Kind) -> Trial:
    """What a trial has shown, now or earlier. The kernel to boot must be here."""
    found = known(kind)
    if found is None:
        found = _boot(kind)
        _remember(kind, found)
    return found


def _boot(kind: Kind) -> Trial:
    begun = time.monotonic()
    try:
        with Machine(kind, MEMORY_MIB, []) as machine:
            while not machine.ready:
                machine.step(1)
                if time.monotonic() - begun > kind.BOOT_TIMEOUT_S:
                    raise TimedOut(f"it did not come up within {kind.BOOT_TIMEOUT_S:.0f} seconds")
            return Trial(time.monotonic() - begun)
    except (MachineDied, TimedOut) as error:
        return Trial(time.monotonic() - begun, str(error))
    except LabkitError as error:  # not the machine's fault: no room for its memory, say
        raise Unsupported("no machine could be booted to try it", str(error)) from None


def _circumstances(kind: Kind, failed: bool) -> list[Any]:
    """What a trial's outcome depends on."""
    image = kind.image()
    assert image, "only a kernel that is here is tried"
    found = os.stat(image)
    system = os.uname()
    here = [str(image), found.st_size, found.st_mtime_ns, system.release, system.version, _processor()]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip() if failed else ""
    return [*here, os.access("/dev/kvm", os.R_OK | os.W_OK), boot]


def _processor() -> str:
    """The processor's name and what it can do."""
    lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    wanted = ("model name", "flags", "CPU part", "Features")
    return "; ".join(sorted({line.partition(":")[2].strip() for line in lines if line.startswith(wanted)}))


def _record() -> Path:
    return state_folder.state() / "vm" / f"trials-{os.geteuid()}.json"


def _remember(kind: Kind, found: Trial) -> None:
    """Write it down, where this user may; else it is found out again the next time."""
    try:
        kept = json.loads(_record().read_text())
    except (OSError, ValueError):
        kept = {}
    circumstances = _circumstances(kind, failed=bool(found.why))
    kept[kind.NAME] = {"circumstances": circumstances, "seconds": found.seconds, "why": found.why}
    try:
        _record().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=_record().parent, delete=False) as file:
            json.dump(kept, file)
        os.replace(file.name, _record())
    except OSError:
        pass
