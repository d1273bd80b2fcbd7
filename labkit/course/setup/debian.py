"""System packages: which are missing, and apt where it may install them."""

import ctypes.util
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence

from labkit.course.setup.log import Log, SetupError


def _which(program: str) -> str | None:
    """Like shutil.which, but looks where system programs lie too: an ordinary user's PATH often lacks /usr/sbin."""
    return shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")


_QEMU: dict[str, dict[str, Callable[[], bool]]] = {
    "x86_64": {"qemu-system-x86": lambda: shutil.which("qemu-system-x86_64") is not None},
    "aarch64": {"qemu-system-arm": lambda: shutil.which("qemu-system-aarch64") is not None},
}
# Debian packages that labs need, and how to see that one is there.
PACKAGES: dict[str, Callable[[], bool]] = {
    "uidmap": lambda: shutil.which("newuidmap") is not None,
    "tini": lambda: _which("tini-static") is not None,
    "iproute2": lambda: _which("ip") is not None,
    "strace": lambda: shutil.which("strace") is not None,
    "libseccomp2": lambda: ctypes.util.find_library("seccomp") is not None,
    "busybox-static": lambda: shutil.which("busybox") is not None,
    **_QEMU.get(os.uname().machine, {}),
}
# What the tests use besides.
TEST_PACKAGES: dict[str, Callable[[], bool]] = {
    **PACKAGES,
    "git": lambda: shutil.which("git") is not None,
    "crun": lambda: _which("crun") is not None,
    "runc": lambda: _which("runc") is not None,
    "bubblewrap": lambda: shutil.which("bwrap") is not None,
    "chromium": lambda: any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    "lxc": lambda: shutil.which("lxc-execute") is not None,
    "systemd": lambda: shutil.which("systemd-run") is not None,
    "binutils": lambda: shutil.which("objdump") is not None,
    "gcc": lambda: shutil.which("cc") is not None,
    "nftables": lambda: _which("nft") is not None,
    "strace": lambda: shutil.which("strace") is not None,
}
AMD64_TEST_PACKAGES: dict[str, Callable[[], bool]] = {
    "user-mode-linux": lambda: shutil.which("linux.uml") is not None,
}
# Vagrant, and a provider that needs no more than QEMU. Ubuntu has none of it; later Debians cut libvirt otherwise.
VAGRANT_RELEASE = ("debian", "12")
VAGRANT_TEST_PACKAGES: dict[str, Callable[[], bool]] = {
    "vagrant": lambda: shutil.which("vagrant") is not None,
    "vagrant-libvirt": lambda: os.path.isdir("/usr/share/doc/vagrant-libvirt"),
    "libvirt-daemon": lambda: _which("libvirtd") is not None,
    "dnsmasq-base": lambda: _which("dnsmasq") is not None,
    "iptables": lambda: _which("iptables") is not None,
    "qemu-utils": lambda: shutil.which("qemu-img") is not None,
    "mmdebstrap": lambda: shutil.which("mmdebstrap") is not None,
    "rsync": lambda: shutil.which("rsync") is not None,
    "openssh-client": lambda: shutil.which("ssh") is not None,
}


def missing_packages(wanted: dict[str, Callable[[], bool]]) -> list[str]:
    """The Debian packages of `wanted` whose programs are not on this machine."""
    return [name for name, present in wanted.items() if not present()]


def venv_package() -> str | None:
    """The Debian package that gives this interpreter its venv module, or None if it has one."""
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return None
    return f"python{sys.version_info.major}.{sys.version_info.minor}-venv"


def apt_install(packages: Sequence[str], log: Log) -> bool:
    """Installs Debian packages as root; fetches the package lists only if it does not go without."""
    install = ["apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", *packages]
    if log.run(install) == 0:
        return True
    return log.run(["apt-get", "update"]) == 0 and log.run(install) == 0


def system_packages(wanted: dict[str, Callable[[], bool]], log: Log, *, needed: Iterable[str] = ()) -> str:
    """Installs what is missing where it may; returns what to show.

    `needed` are packages without which set-up cannot go on; for the others a line at the end is enough.

    Raises:
        SetupError: one of `needed` is missing and cannot be installed.
    """
    needed = list(needed)
    missing = [*needed, *missing_packages(wanted)]
    if not missing:
        return "all there"
    command = f"sudo apt-get install {' '.join(missing)}"
    if shutil.which("apt-get") is None:
        if needed:
            raise SetupError(
                "This Python cannot make virtual environments, and there is no apt here to add that. Install the "
                f"venv module of {sys.executable} with your package tool, then run ./lab again."
            )
        return f"no apt here; the labs will miss: {' '.join(missing)}"
    if os.getuid() != 0:
        if needed:
            raise SetupError(f"This Python cannot make virtual environments. Type: {command}    then ./lab again.")
        return f"to have everything, type: {command}"
    start = log.size()
    if apt_install(missing, log):
        return f"installed {' '.join(missing)}"
    if needed:
        raise SetupError(
            f"apt-get could not install {' '.join(needed)}; its last lines:\n{log.tail(start)}\n"
            "Check the network, then run ./lab again."
        )
    return f"apt-get could not install {' '.join(missing)}; see {log.path}"


def test_packages() -> dict[str, Callable[[], bool]]:
    """The Debian packages that the tests use on this architecture and release."""
    more = AMD64_TEST_PACKAGES if os.uname().machine == "x86_64" else {}
    return TEST_PACKAGES | more | (VAGRANT_TEST_PACKAGES if has_vagrant() else {})


def has_vagrant() -> bool:
    """Whether this distribution has the Vagrant, and the provider, that the tests are made for."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return False
    return (release["ID"], release.get("VERSION_ID")) == VAGRANT_RELEASE and os.uname().machine == "x86_64"
