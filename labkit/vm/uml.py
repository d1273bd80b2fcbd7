"""User Mode Linux: a Linux kernel that is an ordinary program, `linux.uml`.

It needs neither root nor /dev/kvm: a guest process is a host process whose system calls the kernel program intercepts
(ptrace(2)), and its memory is a file. Its file system type `hostfs` shows host files with the rights of the user who
started it, who is to be kept from the guest's reach: `labkit.vm.sandbox` does, where this user can make namespaces. It
exists for amd64 (Documentation/virt/uml/user_mode_linux_howto_v2.rst).
"""

import contextlib
import os
import tempfile
from pathlib import Path

from labkit.errors import Unsupported
from labkit.files import state_folder
from labkit.vm import kernels, xstate
from labkit.vm.boot import Boot, Share
from labkit.vm.sandbox import Confinement

NAME = "uml"
CHANNEL = "ttyS0"  # in /dev: `ssl0` below
# The line's driver stops reading for good once the terminal behind it was full (4096 bytes) and said so.
UNREAD_LIMIT: int | None = 3072
BOOT_TIMEOUT_S = 90.0


def check() -> None:
    """Raise Unsupported, with what to do, if no machine of this kind can be started here. Downloads nothing."""
    if os.uname().machine != "x86_64":
        raise Unsupported("User Mode Linux exists for amd64 only", "use QEMU instead (--kind qemu)")
    kernel = kernels.uml(fetch=False)
    if kernel is None and not kernels.can_fetch():
        raise Unsupported("User Mode Linux is not installed", "sudo apt install user-mode-linux")
    if kernel is not None:
        program(kernel.image)


def image(*, fetch: bool = False) -> Path | None:
    """The program that machines of this kind boot; None where it is not here yet, and is not to be fetched."""
    kernel = kernels.uml(fetch=fetch)
    return None if kernel is None else program(kernel.image)


def prepare(boot: Boot) -> list[str]:
    """The command that boots the machine."""
    kernel = kernels.uml(fetch=True)
    assert kernel is not None
    boot.modules = [str(path) for path in kernels.with_dependencies(kernel.modules, ["overlay"])]
    boot.module_tree = str(kernel.modules)
    memory = boot.folder / "memory"
    memory.mkdir()
    writable = [str(path) for path in (boot.folder, *boot.writable)]
    boot.confinement = Confinement(writable, str(memory), boot.memory_mib, memory_folder(boot.memory_mib))
    # The guest's memory is an unnamed file in TMPDIR that is mapped executable.
    environment = [f"TMPDIR={memory}", f"HOME={boot.folder}", "PATH=/usr/bin:/bin"]
    return [
        *("env", "-i", *environment),
        str(program(kernel.image)),
        f"mem={boot.memory_mib}M",
        *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={boot.init}"),
        *("con=null", "con0=null,fd:1", "ssl=null", f"ssl0=fd:{boot.channel_fd}"),
        *("quiet", "panic=-1", "noreboot", f"uml_dir={boot.folder}"),
    ]


def program(installed: Path) -> Path:
    """The program to boot: `installed`, or where this processor needs it, the corrected copy in the state folder.

    The copy is made once. `Unsupported`: this program cannot be corrected, or the copy cannot be written.
    """
    if not xstate.needed(Path("/proc/cpuinfo").read_text(errors="replace")):
        return installed
    kept = state_folder.state() / "vm" / "linux.uml"
    made_from = installed.stat().st_mtime_ns
    with contextlib.suppress(OSError):
        if kept.stat().st_mtime_ns == made_from:
            return kept
    corrected = xstate.corrected(installed.read_bytes())
    if corrected is None:
        raise Unsupported(
            f"{installed} cannot save the registers of this processor, and has no place known here to correct that",
            "use QEMU instead (--kind qemu)",
        )
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix="unpack-") as scratch:
            file = Path(scratch, kept.name)
            file.write_bytes(corrected)
            file.chmod(0o755)
            os.utime(file, ns=(made_from, made_from))
            file.rename(kept)
    except OSError as error:
        raise Unsupported(
            f"User Mode Linux must be corrected for this processor, and the copy cannot be written: {error}",
            f"make {kept.parent} writable, or use QEMU instead (--kind qemu)",
        ) from None
    return kept


def share(path: Path, number: int) -> Share:
    """How the guest mounts a host folder writable: another hostfs, rooted there."""
    return Share(path=str(path), source="none", type="hostfs", data=str(path))


def memory_folder(memory_mib: int) -> str:
    """A folder with room for the guest's memory, preferably not on a disk; one mounted noexec will not do."""
    for folder in ("/dev/shm", os.environ.get("TMPDIR", "/tmp"), "/var/tmp"):
        try:
            room = os.statvfs(folder)
        except OSError:
            continue
        roomy = room.f_bavail * room.f_frsize >= memory_mib << 20
        if roomy and not room.f_flag & os.ST_NOEXEC and os.access(folder, os.W_OK):
            return folder
    raise Unsupported(
        f"no folder has {memory_mib} MiB free for the virtual machine's memory",
        "free some in /dev/shm or /var/tmp, set TMPDIR to a folder that has it, or ask for less with --memory",
    )
