"""Builds a root filesystem of one program, busybox, which answers to 300 names: sh, ls, mount, ps, vi, ...

    python3 build.py FOLDER

Needs no root and changes nothing but FOLDER. It is built beside it and renamed, so an interrupted build leaves the old
one whole. The same busybox gives the same tree, file by file and to the second.
"""

import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

TIME = 946684800  # every file is of 2000-01-01, so that two builds are equal

FOLDERS = {
    "bin": 0o755,
    "sbin": 0o755,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/sbin": 0o755,
    "etc": 0o755,
    "dev": 0o755,
    "proc": 0o555,  # mount points: empty until something is mounted there
    "sys": 0o555,
    "run": 0o755,
    "tmp": 0o1777,  # sticky: everyone may write, each may delete only their own
    "var": 0o755,
    "root": 0o700,
    "home": 0o755,
    "mnt": 0o755,
}

FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost\n",
    "etc/resolv.conf": "",
    "etc/hostname": "busybox\n",
    "etc/os-release": 'NAME="labkit busybox"\nID=labkit-busybox\nPRETTY_NAME="labkit busybox root filesystem"\n',
    "etc/profile": "export PATH=/usr/sbin:/usr/bin:/sbin:/bin\nexport PS1='\\u@\\h:\\w\\$ '\n",
}


def is_static(program: Path) -> bool:
    """Whether an ELF program runs without a dynamic loader: it has no PT_INTERP program header (elf(5))."""
    with open(program, "rb") as file:
        header = file.read(64)
        if header[:4] != b"\x7fELF" or header[4] != 2 or header[5] != 1:  # 64 bits, little-endian
            return False
        table_offset = struct.unpack_from("<Q", header, 32)[0]
        entry_bytes, entries = struct.unpack_from("<HH", header, 54)
        file.seek(table_offset)
        table = file.read(entry_bytes * entries)
    types = [struct.unpack_from("<I", table, index * entry_bytes)[0] for index in range(entries)]
    return 3 not in types


def find_busybox(scratch: Path) -> Path:
    """A static busybox: the machine's own, or else Debian's, unpacked into `scratch` without installing it.

    Installing the package would push out a machine's dynamic busybox, which its initramfs may need.
    """
    path = os.environ.get("PATH", os.defpath) + ":/bin:/usr/bin:/sbin"
    for name in ("busybox", "busybox.static", "busybox-static"):
        for folder in path.split(":"):
            program = Path(folder, name)
            # os.access is no error in folders of a PATH that this user may not look into.
            if os.access(program, os.R_OK | os.X_OK) and program.is_file() and is_static(program):
                return program
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        download = ["apt-get", "download", "busybox-static"]
        run = subprocess.run(download, cwd=scratch, capture_output=True, text=True)
        if run.returncode != 0 and os.getuid() == 0:  # a new machine has no package lists yet
            subprocess.run(["apt-get", "update"], capture_output=True)
            run = subprocess.run(download, cwd=scratch, capture_output=True, text=True)
        for package in scratch.glob("busybox-static*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, scratch / "deb"], check=True)
            for name in ("bin/busybox", "usr/bin/busybox"):
                if (scratch / "deb" / name).exists():
                    return scratch / "deb" / name
        sys.exit("no static busybox here and none to download; type: sudo apt-get install busybox-static")
    sys.exit("no static busybox here; install one (the package is often called busybox-static)")


def build(busybox: Path, root: Path) -> None:
    """Fills the new folder `root`."""
    for name, mode in FOLDERS.items():
        (root / name).mkdir()
        (root / name).chmod(mode)
    for name, text in FILES.items():
        (root / name).write_text(text)
        (root / name).chmod(0o644)
    shutil.copyfile(busybox, root / "bin/busybox")
    (root / "bin/busybox").chmod(0o755)
    # busybox looks at the name it was called by; --list-full says where each name belongs.
    names = subprocess.run([busybox, "--list-full"], capture_output=True, text=True, check=True).stdout
    for name in sorted(set(names.split())):
        link = root / name
        if link.parent.is_dir() and not link.exists():
            link.symlink_to(os.path.relpath(root / "bin/busybox", link.parent))
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, (TIME, TIME), follow_symlinks=False)
    root.chmod(0o755)
    os.utime(root, (TIME, TIME))


def main(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*"):  # of a build that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        build(find_busybox(Path(scratch)), new)
        if target.exists():
            target.rename(old)
        new.rename(target)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python3 build.py FOLDER")
    os.umask(0o022)
    main(Path(sys.argv[1]))
