"""The box for the test of the Vagrantfile: Debian 13, made of Debian's packages, with what provisioning would fetch.

The machine that is tested has no network. So what the provisioning of a real one downloads lies in this box:

- the Debian packages that are large are installed already; the small ones lie in a folder that apt takes for a
  repository, so that `apt-get update` and `apt-get install` are run for real;
- Python's wheels lie in a folder that /etc/pip.conf names, and pip unpacks and installs them for real;
- the trees of the four servers have been built in the new system, by the course's own recipe.

Not tested thereby: that all this can be fetched from where it is, and that a published box boots. Its kernel is begun
by QEMU itself, uncompressed, since a boot loader takes long in a processor that is imitated.

mmdebstrap makes the tree, mke2fs the file system from it without mounting anything, qemu-img the image.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from labkit.course.experiments.servers import trees
from labkit.files import state_folder
from labkit.vm import vmlinux

NAME = "labkit-test"
SUITE = "trixie"
PYTHON = "3.13"  # of that release
SIZE_GIB = 3
INSTALLED = (
    *("linux-image-cloud-amd64", "initramfs-tools", "zstd", "systemd-sysv", "udev", "kmod", "dbus", "libpam-systemd"),
    *("openssh-server", "sudo", "rsync", "iproute2", "ca-certificates", "e2fsprogs", "python3"),
    # What set-up would install, but for the small ones.
    *("python3-venv", "dbus-user-session", "libseccomp2", "busybox-static", "qemu-system-x86", "lxc"),
)
FETCHED = ("uidmap", "tini", "strace", "libunwind8", "libsubid5")  # what apt gets in the machine
# Of no use in a machine that lives for minutes, and slow in a processor that is imitated.
MASKED = ("lxc.service", "lxc-net.service", "e2scrub_reap.service", "apt-daily.timer", "apt-daily-upgrade.timer")
# Vagrant's own public key, as every box has it; `vagrant up` replaces it by one of its own.
KEY = Path("/usr/share/rubygems-integration/all/gems/vagrant-2.3.4/keys/vagrant.pub")
FILES = {
    "etc/hostname": "box\n",
    "etc/hosts": "127.0.0.1 localhost box\n",
    "etc/fstab": "/dev/vda / ext4 rw,noatime 0 1\n",
    "etc/systemd/network/any.network": "[Match]\nName=e*\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n",
    "etc/sudoers.d/vagrant": "vagrant ALL=(ALL) NOPASSWD: ALL\n",
    "etc/pip.conf": "[global]\nno-index = true\nfind-links = /srv/wheels\n[install]\ncompile = false\n",
    "etc/apt/sources.list": "deb [trusted=yes] file:/srv/packages ./\n",
    # The usual first choice, made of two methods, takes seconds here; Vagrant's own client knows only the second.
    "etc/ssh/sshd_config.d/box.conf": (
        "UseDNS no\nLoginGraceTime 10m\nKexAlgorithms curve25519-sha256,ecdh-sha2-nistp256\n"
    ),
}
# In the new system, before and after its packages are there.
INITRAMFS = (
    "mkdir -p {0}/conf.d; echo MODULES=list > {0}/conf.d/box; printf 'virtio_pci\\nvirtio_blk\\next4\\n' > {0}/modules"
)
INSIDE = """
set -eu
useradd --create-home --shell /bin/bash vagrant
systemctl enable -q systemd-networkd ssh
systemctl mask -q {masked}
cd /srv/packages
apt-get -qq update
apt-get -qq download {fetched}
apt-get -qq install -y apt-utils > /dev/null
apt-ftparchive packages . > Packages
apt-get -qq purge -y --autoremove apt-utils > /dev/null
cd /
mkdir -p /home/vagrant/labkit/.lab
python3 /srv/rootfs/debian/build_debian.py /home/vagrant/labkit/.lab/rootfs {servers}
rm -rf /srv/rootfs /var/lib/apt/lists/* /etc/apt/sources.list.d/* /etc/apt/sources.list
chown -R vagrant:vagrant /home/vagrant
"""


class Box:
    """What was built: the box for Vagrant, and the kernel that QEMU is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file, self.kernel, self.initrd = folder / "labkit.box", folder / "vmlinux", folder / "initrd.img"


def requirements() -> list[str]:
    """What pip will ask for in the machine: the course's dependencies, and those of building it."""
    project = tomllib.loads((state_folder.checkout() / "pyproject.toml").read_text())
    return [*project["project"]["dependencies"], *project["build-system"]["requires"], "editables"]


def recipe() -> str:
    """What the box is built by, as a hash."""
    system = (SUITE, PYTHON, SIZE_GIB, INSTALLED, FETCHED, MASKED, FILES, INITRAMFS, INSIDE)
    parts = [repr(system), *requirements()]
    for path in sorted((state_folder.checkout() / "rootfs").rglob("*")):
        if path.is_file() and path.suffix not in (".pyc", ".md"):
            parts.append(path.read_text())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One build at a time. The kernel takes the lock away with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build() -> Box:
    """The box: found where this recipe has made one, else made, in place of an older one. About two minutes."""
    kept = state_folder.state() / "vagrant"
    with _locked(kept):
        box = Box(kept / recipe())
        if not box.folder.is_dir():
            for old in kept.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            with tempfile.TemporaryDirectory(prefix="build-", dir=kept) as scratch:
                new = Path(scratch, "new")
                new.mkdir()
                _make(Path(scratch), Box(new))
                new.rename(box.folder)
        return box


def _run(*argv: str | Path) -> None:
    done = subprocess.run([str(word) for word in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    said = f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert done.returncode == 0, f"{argv[0]} ended with {done.returncode}:\n{said}"


def _make(scratch: Path, box: Box) -> None:
    wheels, tree, raw = scratch / "wheels", scratch / "tree", scratch / "raw"
    _fetch_wheels(wheels)
    _make_tree(tree)
    shutil.move(wheels, tree / "srv/wheels")
    for name, text in FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    keys = tree / "home/vagrant/.ssh/authorized_keys"
    keys.parent.mkdir(mode=0o700)
    keys.write_text(KEY.read_text())
    keys.chmod(0o600)
    home = (tree / "home/vagrant").stat()
    for path in (keys, keys.parent):
        os.chown(path, home.st_uid, home.st_gid)
    (image,) = (tree / "boot").glob("vmlinuz-*")
    (initrd,) = (tree / "boot").glob("initrd.img-*")
    program = vmlinux.extract(image.read_bytes())
    assert program, f"the kernel in {image.name} cannot be begun directly"
    box.kernel.write_bytes(program)
    shutil.move(initrd, box.initrd)
    _run("mke2fs", "-q", "-t", "ext4", "-d", tree, "-E", "root_owner=0:0,lazy_itable_init=1", raw, f"{SIZE_GIB}G")
    shutil.rmtree(tree)
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, scratch / "box.img")
    raw.unlink()
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": SIZE_GIB}
    (scratch / "metadata.json").write_text(json.dumps(metadata))
    with tarfile.open(box.file, "w") as archive:
        for name in ("metadata.json", "box.img"):
            archive.add(scratch / name, name)


def _fetch_wheels(folder: Path) -> None:
    """Wheels for the Python of the box; only pip knows all the names of the platforms that suit it."""
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (28, 17, 12, 5)]
    platforms += [f"--platform=manylinux{name}_x86_64" for name in ("2014", "2010", "1")]
    words = ["--python-version", PYTHON, "--only-binary=:all:", *platforms, "--dest", str(folder)]
    _run(sys.executable, "-I", "-m", "pip", "download", "--quiet", *words, *requirements())


def _archive() -> str:
    """Where this machine has its own Debian from: the archive has the box's release beside it."""
    words = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
    found = [line.partition(" ")[2] for line in listed if "-" not in line.partition(" ")[0]]  # not -security, -updates
    assert found, "apt has no package lists of this machine's release; run: apt-get update"
    return found[0]


def _make_tree(tree: Path) -> None:
    """The root file system. Where there is doubt about a package's signature, apt refuses it."""
    left_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
    inside = INSIDE.format(masked=" ".join(MASKED), fetched=" ".join(FETCHED), servers=" ".join(trees.NAMES))
    _run(
        "mmdebstrap",
        *("--quiet", "--variant=apt", "--mode=root", "--skip=cleanup/apt/lists", "--dpkgopt=force-unsafe-io"),
        *left_out,
        f"--include={','.join(INSTALLED)}",
        f"--extract-hook={INITRAMFS.format('$1/etc/initramfs-tools')}",
        '--customize-hook=mkdir -p "$1/srv/packages"',
        f'--customize-hook=copy-in "{state_folder.checkout() / "rootfs"}" /srv',
        f"--customize-hook=chroot \"$1\" sh -c '{inside}'",
        *(SUITE, str(tree), _archive()),
    )
