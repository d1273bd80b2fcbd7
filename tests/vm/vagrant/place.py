"""A place for Vagrant and libvirt: namespaces of their own, so that what they change is theirs and ends with them.

libvirt makes bridges and firewall rules: the network is the place's own, and empty but for those. It writes to /etc,
/var and /run: there lie throw-away layers over the machine's. Its daemons, QEMU, and Vagrant's ssh are children of the
place's process 1, and the kernel ends them all when that ends, which it does when this process closes a pipe to it.
"""

import os
import subprocess
from pathlib import Path
from types import TracebackType

QEMU_CONF = """\
user = "root"
group = "root"
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""
# What process 1 does. $1 is a folder for all that is written; it says "ready", and then waits for the end of its input.
BEGIN = """
set -eu
scratch=$1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir /run/layers
for folder in etc var; do
    layers=/run/layers/$folder
    mkdir -p $layers/upper $layers/work
    mount -t overlay -o lowerdir=/$folder,upperdir=$layers/upper,workdir=$layers/work overlay /$folder
done
mkdir -p "$scratch/libvirt" /var/lib/libvirt /var/log/libvirt /etc/libvirt /run/libvirt
mount --bind "$scratch/libvirt" /var/lib/libvirt
mkdir -p /var/lib/libvirt/images
cp "$scratch/qemu.conf" /etc/libvirt/qemu.conf
grep -q ^libvirt-qemu: /etc/passwd || echo libvirt-qemu:x:64055:64055::/var/lib/libvirt:/bin/false >> /etc/passwd
grep -q ^libvirt-qemu: /etc/group || echo libvirt-qemu:x:64055: >> /etc/group
ip link set lo up
libvirtd --daemon
virtlogd --daemon || :
for tenth in $(seq 300); do
    [ -S /run/libvirt/libvirt-sock ] && break
    sleep 0.1
done
[ -S /run/libvirt/libvirt-sock ] || { echo "libvirtd made no socket"; exit 1; }
echo ready
read -r line || :
"""


class Place:
    """Namespaces with libvirt at work in them. A context manager."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        (scratch / "qemu.conf").write_text(QEMU_CONF)
        (scratch / "home").mkdir()
        namespaces = ["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--propagation=private"]
        self._outer = subprocess.Popen(
            ["unshare", *namespaces, "tini-static", "--", "sh", "-c", BEGIN, "sh", str(scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._outer.stdout
        said = []
        for line in self._outer.stdout:
            said.append(line)
            if line == "ready\n":
                break
        else:
            self._outer.wait()
            raise RuntimeError(f"no place for libvirt could be made: {''.join(said)}")
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        self._first = children[0]

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._outer.stdin and self._outer.stdout
        self._outer.stdin.close()
        self._outer.wait(60)
        self._outer.stdout.close()

    def run(
        self, *argv: str, cwd: Path, env: dict[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in here; its output, both streams as one."""
        enter = ["nsenter", "--target", self._first, "--mount", "--net", "--pid", "--ipc", "--uts", f"--wdns={cwd}"]
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        kept["PATH"] = f"{kept.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        return subprocess.run(
            [*enter, *argv],
            env=kept | {"HOME": str(self.scratch / "home")} | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
