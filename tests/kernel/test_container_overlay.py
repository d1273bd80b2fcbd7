"""One image, many containers: each keeps its changes for itself, none reaches the image, and nothing stays behind."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from labkit import changeset, namespaces, procfs
from labkit.changeset import Change
from labkit.container import run, start
from labkit.errors import InvalidConfig, LabkitError, StartError
from labkit.host import lab_host
from labkit.overlay import Overlay, overlay
from labkit.process import run_in_child
from labkit.process.stdio import readable
from tests.requirements import machine_cannot

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def image(busybox: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "image"
    shutil.copytree(busybox, copy, symlinks=True)
    return copy


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def folders(above: Path, *names: str) -> list[str]:
    for name in names:
        (above / name).mkdir(exist_ok=True)
    return [str(above / name) for name in names]


def test_ten_from_one_image(image: Path) -> None:
    before = snapshot(image)
    script = "echo $0 > /note; rm /etc/passwd; cat /note; ls /etc/passwd 2>/dev/null; exec sleep 1000"
    containers = [start(["sh", "-c", script, f"box-{n}"], root=Overlay.scratch(image), capture=True) for n in range(10)]
    try:
        for number, one in enumerate(containers):
            one.output.pass_on_until(*one.output._readers, timeout=10)
            assert one.output.kept("stdout") == f"box-{number}\n"
            (at_root,) = [mount for mount in procfs.mountinfo(one.pid) if mount.mount_point == "/"]
            assert at_root.filesystem == "overlay"
        assert snapshot(image) == before
    finally:
        for one in containers:
            one.kill()
    again = run(["sh", "-c", "cat /note; ls /etc/passwd"], root=Overlay.scratch(image), capture=True)
    assert (again.stdout, again.exit_code) == ("/etc/passwd\n", 0)
    assert snapshot(image) == before


def test_no_mount_is_seen_outside_or_left(image: Path) -> None:
    run(["true"], root=Overlay.scratch(image))
    before = procfs.mountinfo(lab_host.pid())
    with start(["sleep", "1000"], root=Overlay.scratch(image)) as one:
        assert procfs.mountinfo(lab_host.pid()) == before
        inside = {mount.filesystem for mount in procfs.mountinfo(one.pid)}
        assert {"overlay", "proc", "sysfs"} <= inside
        points = [mount.mount_point for mount in procfs.mountinfo(one.pid)]
        assert len([point for point in points if point == "/"]) == 1
        assert not any(str(image) in point for point in points), "the place that was covered for a moment still is"
    assert procfs.mountinfo(lab_host.pid()) == before


def test_an_upper_layer_is_kept_and_told(image: Path, tmp_path: Path) -> None:
    upper, work = folders(tmp_path, "upper", "work")
    root = Overlay([image], upper, work)
    run(["sh", "-c", "echo changed > /etc/hostname; rm -r /etc/passwd; echo new > /new"], root=root)
    told = [change for change in changeset.changes(upper, image) if change.path.split("/")[0] in ("etc", "new")]
    assert told == [
        Change("modified", "etc"),
        Change("modified", "etc/hostname"),
        Change("deleted", "etc/passwd"),
        Change("added", "new"),
    ]
    again = run(["sh", "-c", "cat /etc/hostname /new; ls /etc/passwd"], root=root, capture=True)
    assert again.stdout == "changed\nnew\n"
    assert again.exit_code != 0


def test_read_only_ways(image: Path) -> None:
    for options in ({"root": Overlay([image])}, {"root": Overlay.scratch(image), "readonly": True}):
        refused = run(["sh", "-c", "echo x > /x"], capture=True, **options)
        assert refused.exit_code == 1
        assert "Read-only" in refused.stderr


def test_layers_on_an_image(image: Path, tmp_path: Path) -> None:
    (top,) = folders(tmp_path, "top")
    (tmp_path / "top" / "added").write_text("from the top\n")
    assert run(["cat", "/added"], root=Overlay.scratch(top, image), capture=True).stdout == "from the top\n"


def test_the_old_way_of_the_kernel(image: Path) -> None:
    """As a kernel older than 6.7 is asked."""

    def body() -> tuple[str, list[str]]:
        overlay._one_by_one = False
        from labkit import rootfs, syscalls
        from labkit.constants import CLONE_NEWNS

        syscalls.unshare(CLONE_NEWNS)
        rootfs.enter(Overlay.scratch(image), plan=())
        Path("/note").write_text("mine")
        with open(f"/proc/{os.getpid()}/mounts") if os.path.exists("/proc/self") else open("/note") as file:
            return file.read(), sorted(os.listdir("/"))

    said, names = run_in_child(body)
    assert said == "mine"
    assert "note" in names
    assert not (image / "note").exists()


def test_an_upper_in_use_is_refused_until_its_container_has_ended(image: Path, tmp_path: Path) -> None:
    upper, work = folders(tmp_path, "upper", "work")
    root = Overlay([image], upper, work)
    with start(["sleep", "1000"], root=root) as first:
        with pytest.raises(InvalidConfig, match="another container keeps its changes there"):
            run(["true"], root=root)
        with pytest.raises(InvalidConfig):
            start(["true"], root=root, capture=True).kill()
        assert first.alive
    assert run(["true"], root=root).exit_code == 0
    with pytest.raises(StartError):
        run(["no-such-command"], root=root)
    assert run(["true"], root=root).exit_code == 0


def test_refusals(image: Path, tmp_path: Path) -> None:
    upper, work = folders(tmp_path, "upper", "work")
    (tmp_path / "work" / "mine").touch()
    for root, words in (
        (Overlay([tmp_path / "missing"]), "does not exist"),
        (Overlay([image, image]), "are the same folder"),
        (Overlay([image], upper, work), "is not empty"),
    ):
        with pytest.raises(InvalidConfig, match=words):
            run(["true"], root=root)
    with pytest.raises(InvalidConfig, match="keeps its changes of an overlay in memory"):
        run(["true"], root=Overlay([image]), uid_mappings=[(0, 0, 1)], gid_mappings=[(0, 0, 1)])
    assert lab_host._current is None, "something was started"


def test_a_refusal_of_the_kernel_is_a_sentence(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty,) = folders(tmp_path, "empty")
    monkeypatch.setattr("labkit.overlay.checks.check", lambda overlay: None)
    with pytest.raises(StartError, match=r"at: mount -t overlay -o lowerdir=.*missing"):
        run(["true"], root=Overlay.scratch(empty, tmp_path / "missing"))
    with pytest.raises(LabkitError):
        run(["true"], root=Overlay([image], empty, tmp_path / "missing"))


def test_memory_of_a_scratch_is_limited(image: Path) -> None:
    done = run(
        ["dd", "if=/dev/zero", "of=/big", "bs=64k", "count=100"],
        root=Overlay.scratch(image, scratch_bytes=1 << 20),
        capture=True,
    )
    assert done.exit_code != 0
    assert "No space left" in done.stderr


def test_killed_with_its_caller_nothing_is_left(image: Path, tmp_path: Path) -> None:
    """The caller of two containers, one with its changes in memory and one in folders, is killed: both end."""
    upper, work = folders(tmp_path, "upper", "work")
    program = (
        "import sys, signal\nfrom labkit.container import start\nfrom labkit.overlay import Overlay\n"
        "image, upper, work = sys.argv[1:]\n"
        "boxes = [start(['sleep', '1000'], root=r) for r in (Overlay.scratch(image), Overlay([image], upper, work))]\n"
        "print(*(box.pid for box in boxes), flush=True)\nsignal.pause()\n"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(image), upper, work], stdout=subprocess.PIPE, env=environment, text=True
    ) as caller:
        try:
            assert caller.stdout
            pids = [int(word) for word in caller.stdout.readline().split()]
            pidfds = [os.pidfd_open(pid) for pid in pids]
            spaces = [namespaces.inode(pid, "mnt") for pid in pids]
            caller.send_signal(signal.SIGKILL)
            assert all(readable(pidfd, 10) for pidfd in pidfds)
            for pidfd in pidfds:
                os.close(pidfd)
        finally:
            caller.kill()
    assert len(spaces) == 2
    assert not any(namespaces.members("mnt", space) for space in spaces)
    assert run(["true"], root=Overlay([image], upper, work)).exit_code == 0, "the upper layer is held still"


def test_only_the_machines_root_can_make_devices_but_all_can_run(image: Path) -> None:
    if os.geteuid() != 0:
        machine_cannot("be root in a test run of an ordinary user")
    done = run(["sh", "-c", "mknod /dev/x c 1 3 && test -c /dev/x && mknod /n c 1 3"], root=Overlay.scratch(image))
    assert done.exit_code == 0
