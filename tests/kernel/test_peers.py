"""What a container sees of itself is what crun and runc show with the same configuration, line by line."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import peers
from bench.ways import privately
from labkit.container import run
from tests.requirements import need_command, need_root

ROOT = Path(__file__).resolve().parents[2]

# Who am I, what may I do, what do I see, and what is refused.
PROBE = r"""
id; umask; pwd; env | sort; hostname; cat /proc/self/oom_score_adj /proc/1/limits /proc/1/comm /proc/self/cgroup
grep -E "^(Uid|Gid|Groups|Cap|NoNew|Seccomp:|Sig(Blk|Ign))" /proc/self/status
awk '{print "parent, group, session, terminal:", $4, $5, $6, $7, $8}' /proc/1/stat
cat /proc/self/mountinfo
stat -c '%n %A %u %g %t %T' /dev/* /dev/pts/* /proc /sys /tmp / 2>&1 | sort
for link in /dev/*; do [ -L $link ] && echo "$link -> $(readlink $link)"; done
for place in kernel/hostname kernel/shmmax net/ipv4/ip_forward; do sh -c "echo 1 > /proc/sys/$place" 2>&1; done
for place in /proc/irq /proc/bus /proc/fs /sys /; do touch $place/file 2>&1; done; rm -f /file
for place in /proc/acpi /proc/kcore /proc/keys /proc/timer_list /proc/scsi /proc/interrupts /sys/firmware; do
    echo "$place: $(ls $place 2>&1 | wc -l) names, $(head -c 10 $place 2>&1 | wc -c) bytes"
done
cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax
ip link show lo | grep -o "<.*>"; ip addr show lo | grep inet; ls /proc/1/fd
mknod /tmp/null2 c 1 3 2>&1 && rm /tmp/null2
unshare -m true 2>&1; mount -t tmpfs none /tmp 2>&1; chroot / true 2>&1; date -s 2000-01-01 2>&1
"""
COMMAND = ["/bin/sh", "-c", PROBE]


def as_root(config: dict[str, Any]) -> None:
    """Nothing but the defaults."""


def as_user(config: dict[str, Any]) -> None:
    config["hostname"] = "box"
    config["process"] |= {
        "user": {"uid": 1000, "gid": 1001, "additionalGids": [7, 8], "umask": 0o077},
        "cwd": "/tmp",
        "env": ["PATH=/bin", "HOME=/", "WORD=said"],
        "oomScoreAdj": 100,
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ],
    }


def with_ambient(config: dict[str, Any]) -> None:
    kept = ["CAP_NET_BIND_SERVICE"]
    sets = dict.fromkeys(("effective", "permitted", "inheritable", "ambient"), kept)
    config["process"] |= {
        "user": {"uid": 1000, "gid": 1000},
        "noNewPrivileges": False,
        "capabilities": {**sets, "bounding": [*kept, "CAP_KILL"]},
    }
    config["root"]["readonly"] = True
    config["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "80"}


#: How OCI's configuration is changed, and the same in labkit's words.
CASES: dict[str, tuple[Callable[[dict[str, Any]], None], dict[str, Any]]] = {
    "root": (as_root, {"env": {"PATH": "/bin", "HOME": "/root"}}),
    "a user": (
        as_user,
        {
            "hostname": "box",
            "user": "1000:1001",
            "groups": (7, 8),
            "umask": 0o077,
            "cwd": "/tmp",
            "env": {"PATH": "/bin", "HOME": "/", "WORD": "said"},
            "oom_score_adj": 100,
            "rlimits": {"nofile": (100, 200), "core": (0, 0)},
        },
    ),
    "ambient capabilities": (
        with_ambient,
        {
            "env": {"PATH": "/bin", "HOME": "/"},
            "user": "1000:1000",
            "capabilities": ("NET_BIND_SERVICE", "KILL"),
            "ambient": ("NET_BIND_SERVICE",),
            "no_new_privileges": False,
            "readonly": True,
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "80"},
        },
    ),
}
MASKED = re.compile(r"/(proc|sys)/")  # mounts that mask or protect, where each takes what it likes: /dev/null, a tmpfs


def seen(printed: str) -> Iterator[str]:
    """The lines of the probe, without what may differ."""
    for line in printed.splitlines():
        if " - " in line:  # of mountinfo: its numbers go, and the options of the file system itself
            fields = line.split()
            middle, (fstype, source, _) = fields[4:6], line.partition(" - ")[2].split(" ", 2)
            if fields[3] == middle[0].removeprefix("/dev") != "":
                continue  # in labkit's each device is a mount, since nobody can make more of them in /dev
            if middle[0] == "/dev":
                middle[1] = middle[1].replace("nodev,", "")
            if middle[0] == "/":
                yield f"mount / {middle[1].partition(',')[0]}"
            elif MASKED.match(middle[0]):
                yield f"mount {middle[0]}"
            else:
                yield f"mount {' '.join(middle)} {fstype} {source}"
        elif not line.startswith("/dev/core"):  # crun's own addition
            # crun gives the user the /dev/null that is its input.
            yield re.sub(r"^(/dev/null crw-rw-rw-) \d+ \d+", r"\1 0 0", line)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["crun", "runc"])
def test_it_is_as_in_a_peers_container(busybox: Path, tmp_path: Path, name: str, case: str) -> None:
    need_root()
    need_command(name)
    change, ours = CASES[case]
    config = peers.oci_config(busybox, COMMAND)
    process: Any = config["process"]
    process |= {"env": ["PATH=/bin", "HOME=/" if case != "root" else "HOME=/root"]}
    process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    linux: Any = config["linux"]  # with parameters that Docker gives its runtime
    linux["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    options = ["--cgroup-manager=disabled"] if name == "crun" else []
    argv = [name, *options, "--root", str(tmp_path / "state"), "run", "--no-new-keyring", "--bundle", str(tmp_path)]
    theirs = subprocess.run(
        privately([*argv, f"labkit-test-{os.getpid()}"]),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    mine = run(COMMAND, root=busybox, capture=True, **ours)
    assert len(theirs.stdout.splitlines()) > 60, theirs.stderr
    assert sorted(seen(mine.stdout + mine.stderr)) == sorted(seen(theirs.stdout + theirs.stderr))
