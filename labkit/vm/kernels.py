"""Kernels to boot: those installed, or else unpacked from the distribution's packages, for which root is not needed.

`apt-get download` fetches a package and checks its signature as an installation would; unpacking it into the course's
own folder changes nothing on the system. It is done once.
"""

import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabkitError, Unsupported
from labkit.files import state_folder

# What no virtual machine of ours has a device for, two thirds of a kernel package.
_LEFT_OUT = (
    *("gpu", "media", "net/ethernet", "net/wireless", "infiniband", "staging", "scsi", "iio", "usb", "isdn"),
    *("hwmon", "input", "hid", "platform", "power", "thermal"),
)


@dataclass(frozen=True)
class Kernel:
    """A kernel image and the tree of its modules, the folder that is /lib/modules/VERSION on a system of its own."""

    image: Path
    modules: Path


def uml(*, fetch: bool) -> Kernel | None:
    """The kernel of the package user-mode-linux, installed or in the course's folder; None if neither has it."""
    for root in (_installed(), _store("user-mode-linux")):
        image = root / "usr/bin/linux.uml"
        trees = sorted((root / "usr/lib/uml/modules").glob("[0-9]*"))
        if os.access(image, os.X_OK) and trees:
            return Kernel(image, trees[-1])
    if not fetch:
        return None
    _unpack(["user-mode-linux"], _store("user-mode-linux"))
    return uml(fetch=False)


def linux(*, fetch: bool) -> Kernel | None:
    """A full distribution kernel: one with 9p, overlay and virtio, from /boot or the course's folder."""
    for root in (_installed(), _store("linux-image")):
        for image in sorted((root / "boot").glob("vmlinuz-*"), reverse=True):
            for modules in (root / "lib/modules", root / "usr/lib/modules"):
                tree = modules / image.name.removeprefix("vmlinuz-")
                if os.access(image, os.R_OK) and list((tree / "kernel/fs/9p").glob("9p.ko*")):
                    return Kernel(image, tree)
    if not fetch:
        return None
    _unpack(_linux_packages(), _store("linux-image"))
    return linux(fetch=False)


def busybox() -> Path:
    """A statically linked busybox, the one program in QEMU's first root file system."""
    unpacked = _store("busybox-static")
    for candidate in (shutil.which("busybox"), unpacked / "usr/bin/busybox", unpacked / "bin/busybox"):
        if candidate and Path(candidate).exists() and is_static(Path(candidate)):
            return Path(candidate)
    if unpacked.exists():
        raise Unsupported("there is no statically linked busybox", "sudo apt install busybox-static")
    _unpack(["busybox-static"], unpacked)
    return busybox()


def is_static(program: Path) -> bool:
    """Whether an ELF program names no dynamic linker (the segment PT_INTERP holds its path)."""
    with program.open("rb") as file:
        return re.search(rb"/ld-(linux|musl)[^\0]*\.so", file.read(4096)) is None


def can_fetch() -> bool:
    """Whether packages can be fetched and unpacked without root."""
    return all(shutil.which(program) for program in ("apt-get", "dpkg-deb", "tar"))


def with_dependencies(tree: Path, names: list[str]) -> list[Path]:
    """The files of the modules `names` and of all they need, in the order to load them. modules.dep(5).

    A name that the tree does not have is left out: that module is part of the kernel itself.
    """
    needs: dict[str, tuple[str, list[str]]] = {}
    for entry in (tree / "modules.dep").read_text().splitlines():
        file, _, others = entry.partition(":")
        needs[_module_name(file)] = (file, others.split())
    order: list[Path] = []

    def add(name: str) -> None:
        if name not in needs:
            return
        file, others = needs[name]
        for other in others:
            add(_module_name(other))
        if tree / file not in order:
            order.append(tree / file)

    for name in names:
        add(_module_name(name))
    return order


def _module_name(file: str) -> str:
    return Path(file).name.partition(".ko")[0].replace("-", "_")


def _installed() -> Path:
    """Where packages are installed."""
    return Path("/")


def _store(name: str) -> Path:
    return state_folder.state() / "vm" / name


def _linux_packages() -> list[str]:
    """The packages of the newest kernel and its modules, whose names have its version, found by their dependencies."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    for package in (f"linux-image-{machine}", "linux-image-virtual", "linux-image-generic"):
        found = set()
        waiting = [package]
        while waiting:
            output = _run(["apt-cache", "depends", "--important", waiting.pop()], check=False)
            # An alternative (|Depends) or a virtual package (<name>) is not what is wanted here.
            names = re.findall(r"^  Depends: (linux-(?:image|modules)[-a-z]*-\d\S*)$", output, re.MULTILINE)
            waiting += [name for name in names if name not in found]
            found.update(names)
        if found:
            return sorted(found)
    raise Unsupported("apt knows no kernel package for this machine", "run `sudo apt update`, or use --kind uml")


def _unpack(packages: list[str], target: Path) -> None:
    """Fetch packages and unpack them below `target`, which exists afterwards complete or not at all."""
    if not can_fetch():
        raise Unsupported(f"{' and '.join(packages)} not found, and there is no apt to fetch it with",
                          "install it with this system's package manager")  # fmt: skip
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="unpack-") as scratch:
            root = Path(scratch, "root")
            root.mkdir()
            _run(["apt-get", "download", "-q", *packages], cwd=scratch)
            # Without the excluded folders, the modules of a kernel take 150 MB instead of 400.
            excluded = " ".join(f"--exclude='*/kernel/drivers/{folder}'" for folder in _LEFT_OUT)
            unpack = f'dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --exclude="*/kernel/sound" {excluded}'
            for package in Path(scratch).glob("*.deb"):
                _run(["sh", "-c", unpack, "sh", package, root])
            for tree in [*root.glob("lib/modules/*"), *root.glob("usr/lib/modules/*")]:
                _depmod(root, tree)
            root.rename(target)
    except OSError as error:
        where = error.filename or target.parent
        raise LabkitError(f"a kernel could not be unpacked: {where}: {error.strerror}") from None


def _depmod(root: Path, tree: Path) -> None:
    """Write modules.dep and modules.alias, which a package leaves to its installation. depmod(8)."""
    tool = [shutil.which("depmod") or "/sbin/depmod"]
    if not Path(tool[0]).exists():
        tool = [str(busybox()), "depmod"]
    base = root if tree.parent.parent.parent == root else root / "usr"
    _run([*tool, "-b", base, tree.name])


def _run(argv: list[str | Path], *, cwd: str | None = None, check: bool = True) -> str:
    result = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if check and result.returncode:
        said = result.stderr.strip().splitlines()
        raise LabkitError(f"{argv[0]} failed while a kernel was fetched: {said[-1] if said else 'no reason given'}")
    return result.stdout
