"""Runs inside a machine, and prints what it finds there as JSON: one boot answers many tests."""

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import labkit

shared, secret = Path(sys.argv[1]), Path(sys.argv[2])
GROUPS = Path("/sys/fs/cgroup")


def python_in_group(name: str, limits: dict[str, str], code: str) -> tuple[int, str]:
    """Run Python code in a new control group with these limits; its exit code and output."""
    group = GROUPS / name
    group.mkdir()
    for file, value in limits.items():
        (group / file).write_text(value)
    entering = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')\n"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", entering + code], capture_output=True, text=True)
    group.rmdir()
    return done.returncode, done.stdout


FORK_TILL_REFUSED = """
import os
children = []
try:
    while len(children) < 50:
        pid = os.fork()
        if pid == 0:
            os.read(0, 1) if False else __import__("signal").pause()
        children.append(pid)
except OSError as error:
    print(error.errno, len(children), flush=True)
for pid in children:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""

with socket.create_server(("127.0.0.1", 0)) as server:
    client = socket.create_connection(server.getsockname())
    client.close()

(shared / "from the guest").write_text("kept")
(shared / "from the host").unlink()
secret.write_text("changed in the guest")
Path("/etc/labvm-was-here").write_text("")
Path("/tmp/labvm-was-here").write_text("")

print(
    json.dumps(
        {
            "release": os.uname().release,
            "hostname": socket.gethostname(),
            "prefix": sys.prefix,
            "labkit": str(Path(labkit.__file__).parent),
            "uid": os.geteuid(),
            "cwd": os.getcwd(),
            "home_is_readable": os.access(Path.home(), os.R_OK | os.W_OK),
            "stdin": sys.stdin.read(),
            "greeting": os.environ.get("GREETING"),
            "controllers": (GROUPS / "cgroup.subtree_control").read_text().split(),
            "pids_limit": python_in_group("few", {"pids.max": "5"}, FORK_TILL_REFUSED),
            "memory_limit": python_in_group(
                "small", {"memory.max": str(32 << 20), "memory.swap.max": "0"}, "x = b'x' * (256 << 20)"
            )[0],
            "secret": secret.read_text(),
            "processors": os.cpu_count(),
            "filesystems": sorted({line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()}),
            "dev": [Path("/dev", name).exists() for name in ("null", "fd", "ptmx", "pts", "shm", "tty")],
            "eagain": errno.EAGAIN,
        }
    )
)
print("to stderr", file=sys.stderr)
sys.exit(42)
