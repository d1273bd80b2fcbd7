"""What this kernel lets this user do, tried and not guessed. Run by path in a process of its own; prints JSON.

A notebook's process has many threads, which unshare(2) and fork(2) do not go well with; this one has a single thread.
Each trial is made in a child that ends with it, so nothing on the machine changes.
"""

import fcntl
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from labkit import constants as c
from labkit import syscalls

NAMESPACES = {
    "mnt": c.CLONE_NEWNS,
    "uts": c.CLONE_NEWUTS,
    "ipc": c.CLONE_NEWIPC,
    "pid": c.CLONE_NEWPID,
    "net": c.CLONE_NEWNET,
    "cgroup": c.CLONE_NEWCGROUP,
    "time": c.CLONE_NEWTIME,
}
KVM_CREATE_VM = 0xAE01  # linux/kvm.h: _IO(KVMIO, 0x01)


def attempt(trial: Callable[[], object]) -> str:
    """Runs `trial` in a child; returns an empty string, or what went wrong."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = "the trial ended early"
        try:
            trial()
            answer = ""
        except OSError as error:
            answer = os.strerror(error.errno) if error.errno else str(error)
        finally:
            os.write(writer, answer.encode())
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    return answer or ("" if status == 0 else f"the trial was killed by signal {status & 127}")


def become_root() -> None:
    """Enter a user namespace in which this user is root; root itself needs none."""
    if os.geteuid() == 0:
        return
    uid, gid = os.geteuid(), os.getegid()
    syscalls.unshare(c.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def unshare(flags: int) -> None:
    become_root()
    syscalls.unshare(flags)


def private_mounts() -> None:
    unshare(c.CLONE_NEWNS)
    syscalls.mount(None, "/", None, c.MS_REC | c.MS_PRIVATE)
    syscalls.mount("tmpfs", "/tmp", "tmpfs")  # in this child's own mount namespace only


def overlay() -> None:
    private_mounts()
    for name in ("lower", "upper", "work", "merged"):
        Path("/tmp", name).mkdir()
    Path("/tmp/lower/file").touch()
    layers = "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"
    syscalls.mount("overlay", "/tmp/merged", "overlay", 0, layers + ("" if os.getuid() == 0 else ",userxattr"))
    Path("/tmp/merged/file").write_text("copied up")


def proc() -> None:
    """A procfs for a new PID namespace; Docker's masked /proc forbids it to a user namespace."""
    unshare(c.CLONE_NEWNS | c.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            syscalls.mount(None, "/", None, c.MS_REC | c.MS_PRIVATE)
            syscalls.mount("proc", "/proc", "proc")
            status = 0
        except OSError as error:
            status = error.errno or 1
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, os.strerror(code))


def kvm() -> None:
    fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    os.close(fcntl.ioctl(fd, KVM_CREATE_VM, 0))


def user_namespace() -> None:
    syscalls.unshare(c.CLONE_NEWUSER)


def main() -> None:
    trials: dict[str, Callable[[], object]] = {
        "user": user_namespace,
        **{name: lambda flags=flags: unshare(flags) for name, flags in NAMESPACES.items()},  # type: ignore[misc]
        "mount": private_mounts,
        "proc": proc,
        "overlay": overlay,
        "kvm": kvm,
    }
    json.dump({name: attempt(trial) for name, trial in trials.items()}, sys.stdout)


if __name__ == "__main__":
    main()
