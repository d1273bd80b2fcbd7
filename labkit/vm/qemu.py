"""QEMU: a whole emulated computer, with KVM where that works and in software (tcg) elsewhere.

The kernel is a distribution's, booted directly with a small first root file system (an initramfs) that loads the
drivers and mounts the host's files over 9p, a file protocol that QEMU itself serves. The switch `readonly=on` is on
QEMU's side: nothing in the guest can lift it.

Works for amd64. For arm64 the names are given as QEMU documents them (`-M virt`, console ttyAMA0).
"""

import json
import lzma
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from labkit.errors import Unsupported
from labkit.files import state_folder
from labkit.vm import cpio, guardian, kernels, vmlinux
from labkit.vm import initramfs as ownroot
from labkit.vm.boot import Boot, Share

NAME = "qemu"
CHANNEL = "vport*p1"  # in /dev: the first port of the one virtio-serial card, wherever that is plugged in
UNREAD_LIMIT: int | None = None
BOOT_TIMEOUT_S = 240.0
KVM_TRIAL_S = 20.0

_PROGRAM, _MACHINE, _CONSOLE, _PACKAGE = {
    "aarch64": ("qemu-system-aarch64", "virt", "ttyAMA0", "qemu-system-arm"),
}.get(platform.machine(), ("qemu-system-x86_64", "q35", "ttyS0", "qemu-system-x86"))
_PROGRAM = os.environ.get("LABKIT_QEMU", _PROGRAM)  # another program, or none, for those who try what happens then

_PLAIN = ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
# A PC has a second serial port on board; the board of arm64 gets one on a card, which Linux calls the first.
_CHANNEL, _CHANNEL_DEVICE = {
    "aarch64": ("ttyS0", ["-device", "pci-serial,chardev=channel"]),
}.get(platform.machine(), ("ttyS1", ["-serial", "chardev:channel"]))

_MODULES = ["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"]
_9P = "trans=virtio,version=9p2000.L,msize=512000"

# `switch_root` makes /host the root and starts the init script, which lies there at the same path as on the host.
_INIT = """\
#!/bin/busybox sh
set -e
b=/bin/busybox
$b mount -t devtmpfs devtmpfs /dev
exec < /dev/console > /dev/console 2>&1
while read module; do $b insmod /modules/$module; done < /modules/order
if [ ! -e /init-path ]; then echo labvm-is-up > /dev/console; $b poweroff -f; fi
$b mount -t 9p -o ro,cache=loose,@9P@ root /host
$b mount -o move /dev /host/dev
exec $b switch_root /host "$($b cat /init-path)"
""".replace("@9P@", _9P)


def check() -> None:
    """Raise Unsupported, with what to do, if no machine of this kind can be started here. Downloads nothing."""
    if "User Mode Linux" in Path("/proc/cpuinfo").read_text(errors="replace"):
        raise Unsupported(
            "QEMU is far too slow inside User Mode Linux", "start the course on the machine itself: ./lab --no-vm"
        )
    if shutil.which(_PROGRAM) is None:
        raise Unsupported("QEMU is not installed", f"sudo apt install {_PACKAGE}")
    if kernels.linux(fetch=False) is None and not kernels.can_fetch():
        raise Unsupported(
            "there is no kernel for QEMU to boot", "sudo apt install linux-image-$(dpkg --print-architecture)"
        )


def image(*, fetch: bool = False) -> Path | None:
    """The kernel that machines of this kind boot; None where it is not here yet, and is not to be fetched."""
    kernel = kernels.linux(fetch=fetch)
    return None if kernel is None else kernel.image


def prepare(boot: Boot) -> list[str]:
    """The command that boots the machine."""
    kernel = kernels.linux(fetch=True)
    assert kernel is not None
    boot.module_tree = str(kernel.modules)
    initramfs = boot.folder / "initramfs"
    write_initramfs(initramfs, kernel, boot.init)
    shares = ["-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"]
    shares += ["-device", "virtio-9p-pci,fsdev=root,mount_tag=root"]
    for number, path in enumerate(boot.writable):
        folder = str(path).replace(",", ",,")
        shares += ["-fsdev", f"local,id=share{number},path={folder},security_model=none,multidevs=remap"]
        shares += ["-device", f"virtio-9p-pci,fsdev=share{number},mount_tag=share{number}"]
    line = ["-chardev", f"socket,id=line,fd={boot.channel_fd}"]
    line += ["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=line,name=labvm"]
    return [*machine(kernel, initramfs, boot.memory_mib, kvm=kvm_works(kernel)), *shares, *line]


def machine(kernel: kernels.Kernel, initramfs: Path, memory_mib: int, *, kvm: bool) -> list[str]:
    """The computer, without its shared folders: its processors, memory, and the kernel's messages on stdout.

    In software it has one: two, on a machine of two, take more than twice as long for the same.
    """
    return [
        *(_PROGRAM, "-M", _MACHINE, *_accelerator(kvm), "-smp", "2" if kvm else "1", "-m", f"{memory_mib}M"),
        *_PLAIN,
        *("-serial", "stdio"),
        *("-kernel", str(_image(kernel, kvm)), "-initrd", str(initramfs)),
        *("-append", f"console={_CONSOLE} quiet panic=-1 random.trust_cpu=on cgroup_no_v1=all"),
    ]


def computer(
    kernel: kernels.Kernel, folder: Path, memory_mib: int, *, kvm: bool, console_fd: int, channel_fd: int
) -> list[str]:
    """A computer that stays (`labkit.vm.persistent`): one processor, nothing of the host's, and two serial lines.

    All its drivers are part of the kernel, so that it needs no module. Writes its root file system to `folder`.
    """
    initramfs = folder / "initramfs"
    ownroot.write(initramfs, _CONSOLE, _CHANNEL)
    return [
        *(_PROGRAM, "-M", _MACHINE, *_accelerator(kvm), "-smp", "1", "-m", f"{memory_mib}M", *_PLAIN),
        *("-chardev", f"socket,id=console,fd={console_fd}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=channel,fd={channel_fd}", *_CHANNEL_DEVICE),
        *("-kernel", str(_image(kernel, kvm)), "-initrd", str(initramfs)),
        *("-append", f"console={_CONSOLE} panic=-1 random.trust_cpu=on cgroup_no_v1=all"),
    ]


def _accelerator(kvm: bool) -> list[str]:
    return ["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg,thread=multi", "-cpu", "max"]


def _image(kernel: kernels.Kernel, kvm: bool) -> Path:
    return kernel.image if kvm else vmlinux.uncompressed(kernel.image)


def share(path: Path, number: int) -> Share:
    """How the guest mounts a host folder writable. `cache=mmap`: SQLite and Jupyter map files they write."""
    return Share(path=str(path), source=f"share{number}", type="9p", data=f"{_9P},cache=mmap")


def write_initramfs(target: Path, kernel: kernels.Kernel, init: Path | None) -> None:
    """Write the first root file system; without `init` the machine says that it is up, and switches itself off."""
    modules = kernels.with_dependencies(kernel.modules, _MODULES)
    names = [path.name.removesuffix(".xz").removesuffix(".zst") for path in modules]
    with target.open("wb") as file:
        archive = cpio.Writer(file)
        for folder in ("bin", "dev", "host", "modules"):
            archive.folder(folder)
        archive.file("bin/busybox", kernels.busybox().read_bytes(), 0o755)
        archive.file("init", _INIT.encode(), 0o755)
        archive.file("modules/order", "".join(f"{name}\n" for name in names).encode())
        for path, name in zip(modules, names, strict=True):
            archive.file(f"modules/{name}", _module(path))
        if init:
            archive.file("init-path", os.fsencode(init))
        archive.close()


def _module(path: Path) -> bytes:
    """A kernel module as the kernel wants it; distributions compress them in different ways."""
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        if shutil.which("zstd") is None:
            raise Unsupported("this kernel's modules are compressed with zstd", "sudo apt install zstd")
        return subprocess.run(["zstd", "-dcq", path], stdout=subprocess.PIPE, check=True).stdout
    return path.read_bytes()


def accelerated() -> bool:
    """Whether the processor itself runs the guests: the kernel that is here boots with KVM."""
    kernel = kernels.linux(fetch=False)
    return kernel is not None and kvm_works(kernel)


def kvm_works(kernel: kernels.Kernel) -> bool:
    """Whether this very kernel boots with KVM here, found by trying once per boot of the host.

    /dev/kvm proves little: inside some clouds' machines it exists, runs small guests, and a 64-bit kernel hangs.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    circumstances = [
        Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        str(kernel.image),
        os.geteuid(),
    ]
    record = state_folder.state() / "vm" / f"kvm-{os.geteuid()}.json"
    try:
        known = json.loads(record.read_text())
        if known["circumstances"] == circumstances:
            return bool(known["works"])
    except (OSError, ValueError, KeyError):
        pass
    works = _try_kvm(kernel)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"circumstances": circumstances, "works": works}))
    except OSError:
        pass  # then it is found out again the next time
    return works


def _try_kvm(kernel: kernels.Kernel) -> bool:
    folder = tempfile.mkdtemp(prefix=guardian.PREFIX)
    initramfs = Path(folder, "initramfs")
    write_initramfs(initramfs, kernel, None)
    argv = guardian.command(folder, machine(kernel, initramfs, 256, kvm=True))
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          start_new_session=True) as trial:  # fmt: skip
        try:
            return b"labvm-is-up" in trial.communicate(timeout=KVM_TRIAL_S)[0]
        except subprocess.TimeoutExpired:
            trial.terminate()  # the keeper then ends the machine
            return False
