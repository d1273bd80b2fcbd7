"""The guest's root: the host's files with a layer of its own on top, and what a running system has besides.

Called by `labkit.vm.guest_init` as the first process of a virtual machine, never on the host.
"""

import ctypes
import fcntl
import os
import socket
import struct

from labkit import constants as c
from labkit.syscalls import mount, pivot_root, sethostname, umount2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOSTNAME = "labvm"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FRESH = ("/tmp", "/var/tmp", "/run")  # empty in the guest, but for what the host names in `keep`
_NEW = "/run/root"


def build_root(order: "dict[str, Any]") -> None:
    """Make the host's files writable for the guest alone, mount what a system needs, and make that the root.

    An overlay file system shows the lower directory, keeps every change in the upper one, here on a tmpfs, and so
    leaves the lower one as it is. `xino=off`: inode numbers of a shared file system have no bits to spare.
    """
    mount("tmpfs", "/run", "tmpfs", 0, "mode=0755,size=75%")
    for name in ("upper", "work", "root"):
        os.mkdir(f"/run/{name}")
    for module in order["modules"]:
        insert_module(module)
    # Seen from a user namespace (`labkit.vm.sandbox`), root's files are nobody's: a setuid `mount` would then make root
    # a user without rights.
    flags = 0 if os.stat("/").st_uid == 0 else c.MS_NOSUID
    mount("overlay", _NEW, "overlay", flags, "lowerdir=/,upperdir=/run/upper,workdir=/run/work,xino=off")

    mount("proc", _NEW + "/proc", "proc", c.MS_NOSUID | c.MS_NODEV | c.MS_NOEXEC)
    mount("sysfs", _NEW + "/sys", "sysfs", c.MS_NOSUID | c.MS_NODEV | c.MS_NOEXEC)
    mount("devtmpfs", _NEW + "/dev", "devtmpfs", c.MS_NOSUID, "mode=0755")
    for path, kind, data in (
        ("/dev/pts", "devpts", "gid=5,mode=0620,ptmxmode=0666"),
        ("/dev/shm", "tmpfs", "mode=1777"),
    ):
        os.makedirs(_NEW + path, exist_ok=True)
        mount(kind, _NEW + path, kind, c.MS_NOSUID, data)
    for link, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(f"/proc/self/{target}", f"{_NEW}/dev/{link}")

    for path in FRESH:
        os.makedirs(_NEW + path, exist_ok=True)
        mount(
            "tmpfs",
            _NEW + path,
            "tmpfs",
            c.MS_NOSUID | c.MS_NODEV,
            "mode=" + ("0755" if path == "/run" else "1777"),
        )
    os.makedirs(_NEW + "/run/lock", exist_ok=True)
    show_kept(order["keep"])
    for share in order["writable"]:
        os.makedirs(_NEW + share["path"], exist_ok=True)
        mount(share["source"], _NEW + share["path"], share["type"], c.MS_NOSUID | c.MS_NODEV, share["data"])

    os.chdir(_NEW)
    pivot_root(".", ".")  # the old root lies on top of the new one now, and goes
    umount2(".", c.MNT_DETACH)
    os.chdir("/")
    mount(None, "/", None, c.MS_REC | c.MS_SHARED)  # as systemd does; labs rely on what is usual


def show_kept(paths: list[str]) -> None:
    """Show the host's folders `paths` inside the fresh directories: a checkout or an environment may lie in /tmp.

    The overlay is seen once more at /run/plain, without the mounts on top of it, to take them from.
    """
    os.mkdir("/run/plain")
    mount(_NEW, "/run/plain", None, c.MS_BIND)
    for path in paths:
        if any(path.startswith(fresh + "/") for fresh in FRESH):
            os.makedirs(_NEW + path, exist_ok=True)
            mount("/run/plain" + path, _NEW + path, None, c.MS_BIND)


def insert_module(path: str) -> None:
    """Load one kernel module, as insmod does. finit_module(2), which the C library has no function for."""
    number = 273 if os.uname().machine == "aarch64" else 313
    with open(path, "rb") as module:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(number, module.fileno(), b"", 0) == -1 and ctypes.get_errno() != 17:  # EEXIST: it is there
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)


def set_up_system(order: "dict[str, Any]") -> None:
    """Name, loopback, control groups and, where the host has its files, kernel modules on demand."""
    sethostname(HOSTNAME)
    with open("/etc/hosts", "a") as hosts:
        hosts.write(f"127.0.1.1\t{HOSTNAME}\n")
    loopback_up()
    enable_controllers("/sys/fs/cgroup", mounted=False)
    if order["module_tree"]:
        os.makedirs("/lib/modules", exist_ok=True)
        link = f"/lib/modules/{os.uname().release}"
        if not os.path.lexists(link):
            os.symlink(order["module_tree"], link)
    if order["modprobe"]:
        with open("/run/modprobe", "w") as script:
            script.write(f'#!/bin/sh\nexec {order["modprobe"]} "$@"\n')
        os.chmod("/run/modprobe", 0o755)
        with open("/proc/sys/kernel/modprobe", "w") as handler:
            handler.write("/run/modprobe")
    home = order["home"]
    try:
        os.listdir(home)
    except OSError:  # there is none, or the host's user may not read root's, and so the guest cannot either
        os.makedirs(home, exist_ok=True)
        mount("tmpfs", home, "tmpfs", 0, f"mode=0700,uid={order['uid']},gid={order['gid']}")


def loopback_up() -> None:
    """Set IFF_UP on `lo`; the kernel then gives it 127.0.0.1/8. netdevice(7)."""
    SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1  # noqa: N806
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", answer)[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def enable_controllers(group: str, *, mounted: bool = True) -> None:
    """Hand every controller the kernel has on to the groups below `group`. cgroup-v2.rst, "Enabling and Disabling"."""
    if not mounted:
        mount("cgroup2", group, "cgroup2", c.MS_NOSUID | c.MS_NODEV | c.MS_NOEXEC, "nsdelegate")
    with open(f"{group}/cgroup.controllers") as file:
        controllers = file.read().split()
    for controller in controllers:
        with open(f"{group}/cgroup.subtree_control", "w") as file:
            file.write(f"+{controller}")


def delegate(uid: int, gid: int) -> str:
    """A control group for an ordinary user, as systemd delegates one; returns the group to run the user's command in.

    cgroup-v2.rst, "Delegation": the user owns the directory and these three files, and not the limits in it.
    """
    for group in ("/sys/fs/cgroup/user", "/sys/fs/cgroup/user/command"):
        os.mkdir(group)
        for name in ("", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control"):
            os.chown(group + name, uid, gid)
        if group.endswith("user"):
            enable_controllers(group)
    return group
