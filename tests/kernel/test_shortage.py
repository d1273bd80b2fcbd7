"""A machine that lacks something, or has run out of it: one clear sentence, and nothing left over.

Each test makes the shortage in a child of its own, in namespaces or under a filter that end with it.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from labkit import constants as c
from labkit import rootfs, seccomp, syscalls
from labkit.errors import Unsupported
from labkit.process import run_in_child
from tests.requirements import need_root

ROOT = Path(__file__).resolve().parents[2]

# Starts containers until one fails; then says why, what is left, and whether another one starts once there is room.
UNTIL_IT_FAILS = """
import os, sys, time
from labkit import host, procfs
from labkit.container import run, start
from labkit.errors import LabkitError
root = sys.argv[1] if sys.argv[1:] else None
idle = []
try:
    host.current()
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(100):
        idle.append(start(["sleep", "1000000"], root=root))
except LabkitError as error:
    print(type(error).__name__, error, *getattr(error, "__notes__", []))
alive = sum(container.alive for container in idle)
print("children", len(procfs.children(host.pid())) - alive)
for container in idle:
    container.kill()
print("descriptors", set(os.listdir("/proc/self/fd")) - set(before))
deadline = time.monotonic() + 20
while idle:
    try:
        print("again", run(["true"], root=root).exit_code)
        break
    except LabkitError:  # the kernel takes namespaces down a moment later
        if time.monotonic() > deadline:
            raise
"""


def labkit_says(state: str, *arguments: str) -> list[str]:
    """What the program prints, run where this is called: in a child that has made a shortage."""
    done = subprocess.run(
        [sys.executable, "-c", UNTIL_IT_FAILS, *arguments],
        env={"PYTHONPATH": str(ROOT), "LABKIT_STATE": state, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )
    return done.stdout.splitlines() or [done.stderr]


def root_of_a_new_user_namespace(**limits: int) -> None:
    """Whatever is limited here ends with this process."""
    syscalls.unshare(c.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text("0 0 1")
    Path("/proc/self/gid_map").write_text("0 0 1")
    for name, limit in limits.items():
        Path(f"/proc/sys/user/{name}").write_text(str(limit))


@pytest.fixture
def state(busybox: Path) -> str:
    return str(busybox.parents[1])


@pytest.mark.parametrize("kind", ["uts", "ipc", "pid", "mnt", "cgroup"])
def test_too_many_namespaces(state: str, kind: str) -> None:
    def shortage() -> list[str]:
        root_of_a_new_user_namespace(**{f"max_{kind}_namespaces": 4})
        return labkit_says(state)

    said, *rest = run_in_child(shortage)
    assert said.startswith("StartError the container could not be started: No space left on device"), said
    limit = "/proc/sys/user/max_mnt_namespaces" if kind == "mnt" else "/proc/sys/user/max_*_namespaces"
    assert "limit" in said and limit in said
    assert rest == ["children 0", "descriptors set()", "again 0"]


def test_too_many_network_namespaces(state: str) -> None:
    """Some are made ahead of time; when no more can be, a container says so all the same."""

    def shortage() -> list[str]:
        root_of_a_new_user_namespace(max_net_namespaces=8)
        return labkit_says(state)

    said, *rest = run_in_child(shortage)
    assert "No space left on device" in said and "A limit on the number of namespaces is reached" in said
    assert rest == ["children 0", "descriptors set()", "again 0"]


def test_too_many_processes(state: str) -> None:
    need_root()

    def shortage() -> list[str]:
        os.setgroups([])
        os.setresgid(54321, 54321, 54321)
        os.setresuid(54321, 54321, 54321)
        resource.setrlimit(resource.RLIMIT_NPROC, (12, 12))
        return labkit_says(state)

    said, *rest = run_in_child(shortage)
    assert said.startswith("StartError the container could not be started: Resource temporarily unavailable"), said
    assert "A limit on the number of processes is reached" in said
    assert rest == ["children 0", "descriptors set()", "again 0"]


@pytest.mark.parametrize("call", ["openat2", "fsopen", "open_tree", "move_mount", "close_range", "clone3"])
def test_a_system_call_is_missing(state: str, call: str) -> None:
    """As on an old kernel, or in an outer container whose filter does not know it."""
    missing = seccomp.Profile("SCMP_ACT_ALLOW", None, (), [seccomp.Rule((call,), "SCMP_ACT_ERRNO", 38)])
    try:
        code = seccomp.compile_profile(missing)
    except Unsupported as error:
        pytest.skip(str(error))

    def shortage() -> list[str]:
        syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
        seccomp.load(code)
        return labkit_says(state)

    said, *rest = run_in_child(shortage)
    assert said.startswith("StartError the container could not be started: Function not implemented"), said
    assert f"has no {call}, or a seccomp filter hides it." in said
    assert rest == ["children 0", "descriptors set()"]


def full_disk(busybox: Path, folder: Path) -> None:
    """A tmpfs with the program, not one inode more, and no /proc."""
    syscalls.unshare(c.CLONE_NEWNS)
    syscalls.mount("none", str(folder), "tmpfs", 0, "nr_inodes=16")
    (folder / "bin").mkdir()
    (folder / "bin/busybox").write_bytes((busybox / "bin/busybox").read_bytes())
    (folder / "bin/busybox").chmod(0o755)
    (folder / "bin/sleep").symlink_to("busybox")
    try:
        for number in range(100):
            (folder / str(number)).touch()
    except OSError as error:
        assert error.errno == 28, error
        return
    raise AssertionError("it does not fill")


def test_a_full_disk(busybox: Path, state: str, tmp_path: Path) -> None:
    def shortage() -> list[str]:
        full_disk(busybox, tmp_path)
        return labkit_says(state, str(tmp_path))

    said, *rest = run_in_child(shortage)
    assert said.startswith("StartError the container could not be started: No space left on device, at: mount -t proc")
    assert rest == ["children 0", "descriptors set()"]
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_written_to(busybox: Path, state: str, tmp_path: Path) -> None:
    def shortage() -> list[str]:
        syscalls.unshare(c.CLONE_NEWNS)
        (tmp_path / "bin").mkdir()
        syscalls.mount(str(busybox / "bin"), str(tmp_path / "bin"), None, c.MS_BIND)
        syscalls.mount(str(tmp_path), str(tmp_path), None, c.MS_BIND | c.MS_REC)
        syscalls.mount_setattr(c.AT_FDCWD, str(tmp_path), 0, attr_set=c.MOUNT_ATTR_RDONLY)
        return labkit_says(state, str(tmp_path))

    said, *rest = run_in_child(shortage)
    assert said.startswith("StartError the container could not be started: Read-only file system, at: mount -t proc")
    assert rest == ["children 0", "descriptors set()"]


def test_the_default_root_has_what_the_plan_mounts_on(busybox: Path) -> None:
    """So that it can be read-only, or full, itself."""
    places = {str(list(step)[2]) for step in rootfs.DEFAULT_PLAN if step[0] == "filesystem"}
    assert all((busybox / place).is_dir() for place in places if "/" not in place)
