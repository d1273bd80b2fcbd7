"""Ways out of a container that worked on other runtimes, tried here. Each test names what must stop it."""

import ctypes
import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from labkit import capabilities, host, procfs, rootfs
from labkit.container import run, start
from labkit.errors import InvalidConfig, StartError
from labkit.overlay import Overlay
from labkit.process import run_in_child
from tests.requirements import machine_cannot, need_command

ROOT = Path(__file__).resolve().parents[2]

RENAME_EXCHANGE = 2


@pytest.fixture
def root(busybox: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "root"
    shutil.copytree(busybox, copy, symlinks=True)
    return copy


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "kept").write_text("kept")
    return folder


def test_the_zygotes_program_is_a_sealed_copy() -> None:
    """CVE-2019-5736: /proc/self/exe of what becomes the container is not the machine's Python."""
    exe = f"/proc/{host.pid()}/exe"
    assert os.readlink(exe).startswith("/memfd:")
    with open(exe, "rb") as file:
        seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
    assert seals & fcntl.F_SEAL_WRITE
    assert seals & fcntl.F_SEAL_SEAL
    with pytest.raises(OSError):
        open(exe, "r+b").close()


def test_no_descriptor_of_ours_is_inside(busybox: Path) -> None:
    """CVE-2024-21626, first half: only 0, 1, 2 (and the listing's own) are open."""
    extra, other = os.pipe()
    os.set_inheritable(extra, True)
    try:
        assert run(["ls", "/proc/self/fd"], capture=True).stdout.split() == ["0", "1", "2", "3"]
    finally:
        os.close(extra)
        os.close(other)


@pytest.mark.parametrize("fd", range(3, 65))
def test_the_working_directory_cannot_be_a_descriptor(busybox: Path, fd: int) -> None:
    """CVE-2024-21626, second half: descriptors are closed before the working directory is entered."""
    with pytest.raises(StartError):
        run(["true"], cwd=f"/proc/self/fd/{fd}")


@pytest.mark.parametrize("name", ["proc", "dev", "sys"])
def test_a_mount_point_that_is_a_link_is_refused(root: Path, outside: Path, name: str) -> None:
    """CVE-2019-19921, CVE-2023-27561, CVE-2026-41579: nothing is mounted or made through a planted link."""
    (root / name).rmdir()
    (root / name).symlink_to(outside)
    with pytest.raises(StartError, match=f"/{name}"):
        run(["true"], root=root)
    assert sorted(path.name for path in outside.iterdir()) == ["kept"]
    (root / name).unlink()
    (root / name).symlink_to("/etc")  # a link that stays inside is a mount point elsewhere, and refused as well
    with pytest.raises(StartError, match=f"/{name}"):
        run(["true"], root=root)


def test_links_on_the_way_to_a_mount_point_stay_inside(root: Path, outside: Path) -> None:
    """CVE-2021-30465: the parent of a mount point is resolved inside the root, whatever it links to."""
    (root / "data").symlink_to(f"../../../../../../..{outside}")
    plan = (*rootfs.DEFAULT_PLAN, ("bind", str(outside), "data/below", ()))
    with pytest.raises(StartError):
        run(["true"], root=root, plan=plan)
    assert sorted(path.name for path in outside.iterdir()) == ["kept"]


def test_a_fake_procfs_is_covered_by_a_real_one(root: Path) -> None:
    """CVE-2019-16884: a folder of the image with contents never stands in for /proc."""
    (root / "proc").chmod(0o755)
    (root / "proc" / "self").mkdir()
    (root / "proc" / "self" / "status").write_text("fake")
    completed = run(["sh", "-c", "cat /proc/self/status; stat -f -c %T /proc"], root=root, capture=True)
    assert "fake" not in completed.stdout
    assert completed.stdout.rstrip().endswith("proc")


def test_a_fake_device_is_not_used(root: Path) -> None:
    """CVE-2025-31133: /dev/null is the device, whatever the image has there."""
    (root / "dev" / "null").write_text("fake")
    said = run(["sh", "-c", "stat -c '%t:%T %F' /dev/null; wc -c < /dev/null"], root=root, capture=True).stdout
    assert said.split("\n")[0] == "1:3 character special file"
    assert said.split("\n")[1].strip() == "0"


def test_the_capability_sets_are_exact(busybox: Path) -> None:
    """CVE-2022-29162: inheritable and ambient empty, bounding trimmed, no new privileges."""
    text = run(["cat", "/proc/self/status"], capture=True).stdout
    status = {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    kept = f"{capabilities.mask(capabilities.DEFAULT):016x}"
    sets = {name: status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert sets == {"CapInh": "0" * 16, "CapPrm": kept, "CapEff": kept, "CapBnd": kept, "CapAmb": "0" * 16}
    assert status["NoNewPrivs"] == "1"


def test_inheritable_capabilities_of_the_caller_do_not_go_in(busybox: Path) -> None:
    """CVE-2022-29162 again: what a caller has made inheritable is not inherited."""
    program = (
        "from labkit import syscalls\nfrom labkit.container import run\n"
        "held = syscalls.capget()[1]\nsyscalls.capset(held, held, held)\n"
        "print(run(['grep', 'CapInh', '/proc/self/status'], capture=True).stdout)"
    )

    def call() -> str:
        environment = {"PYTHONPATH": str(ROOT), "LABKIT_STATE": str(busybox.parents[1])}
        return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True).stdout

    assert run_in_child(call).split() == ["CapInh:", "0" * 16]


def test_the_kernels_settings_can_be_read_and_not_written(busybox: Path) -> None:
    """Root's user id alone may write to /proc/sys; core_pattern there names a program that the machine's root runs."""
    setting = "/proc/sys/kernel/core_pattern"
    completed = run(["sh", "-c", f"cat {setting} > /dev/shm/x; cat /dev/shm/x > {setting}"], root=busybox, capture=True)
    assert completed.exit_code != 0
    assert "Read-only file system" in completed.stderr


@pytest.mark.parametrize("path", ["proc/interrupts", "proc/kcore", "proc/acpi", "sys/firmware", "proc/timer_list"])
def test_what_tells_of_the_machine_is_hidden(busybox: Path, path: str) -> None:
    if not Path(f"/{path}").exists():
        machine_cannot(f"show /{path}: its kernel has none")
    shown = run(["sh", "-c", f"cat /{path} 2>/dev/null || ls -A /{path}"], capture=True)
    assert shown[:3] == (0, "", "")


@pytest.mark.parametrize(
    "script",
    [
        "mount -t tmpfs none /mnt",
        "umount /proc",
        "unshare -m true",
        "mount -t cgroup none /mnt",
        "hostname other",
        "mount -o remount,rw /sys",
        "chroot /proc/1/root/.. ls /work",
        "ip link set lo down",
    ],
)
def test_what_root_in_a_container_may_not(busybox: Path, script: str) -> None:
    """CVE-2022-0492 and its like: without CAP_SYS_ADMIN and CAP_NET_ADMIN the walls cannot be moved."""
    completed = run(["sh", "-c", script], capture=True)
    assert completed.exit_code != 0, completed
    assert "not found" not in completed.stderr.replace("can't open", "")


def test_a_second_chroot_does_not_lead_out(root: Path) -> None:
    """The classic way out of chroot, which pivot_root has nothing to give for: there is no old root above."""
    script = "mkdir -p /tmp/in; chroot /tmp/in true; cd ../../../../../../..; ls"
    listed = run(["sh", "-c", script], root=root, capture=True).stdout.split()
    assert sorted(listed) == sorted(path.name for path in root.iterdir())


def test_no_control_socket_is_in_the_abstract_namespace(busybox: Path) -> None:
    """CVE-2020-15257: our sockets have no name that a container with the host's network could connect to."""
    with start(["sleep", "1000"]):
        for pid in (os.getpid(), host.pid()):
            names = [
                line.split()[7] for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:] if "@" in line
            ]
            assert not [name for name in names if "lab" in name]


@pytest.mark.parametrize("name", ["a/b", "..", "x\0y", "x" * 300, "", " ", "-x"])
def test_names_that_are_paths_or_worse_are_refused(busybox: Path, name: str) -> None:
    with pytest.raises(InvalidConfig):
        run(["true"], hostname=name)


@pytest.mark.timeout(180)
def test_a_mount_point_exchanged_all_the_time(root: Path, outside: Path) -> None:
    """CVE-2021-30465, CVE-2024-45310: a thread exchanges /dev and a link to outside during many starts."""
    (root / "trap").symlink_to(outside)
    libc = ctypes.CDLL(None, use_errno=True)
    dev, trap = os.fsencode(root / "dev"), os.fsencode(root / "trap")
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            libc.renameat2(-100, dev, -100, trap, RENAME_EXCHANGE)

    thread = threading.Thread(target=exchange)
    thread.start()
    started = refused = 0
    try:
        for _ in range(1000):
            try:
                run(["true"], root=root)
                started += 1
            except StartError:
                refused += 1
    finally:
        stop.set()
        thread.join()
    assert sorted(path.name for path in outside.iterdir()) == ["kept"]
    assert str(outside) not in [mount.mount_point for mount in procfs.mountinfo(host.pid())]
    assert started, "the race was never won by the honest side"
    assert refused, "the race was never won by the attacker, so nothing was tested"


@pytest.mark.parametrize(
    "fake", ["ln -s /dev/null /dev/pts/ptmx", "touch /dev/pts/ptmx", "mkfifo /dev/pts/ptmx", "true"]
)
def test_a_terminal_is_not_taken_from_what_the_container_has_put_in_its_place(busybox: Path, fake: str) -> None:
    with start(["sleep", "1000"], capabilities=["SYS_ADMIN", "DAC_OVERRIDE"]) as container:
        done = container.exec(["sh", "-c", f"mount -t tmpfs x /dev/pts && {fake}"], capture=True).finish(20)
        assert done.exit_code == 0, done.stderr
        with pytest.raises(StartError, match="opening a terminal"):
            container.exec(["true"], terminal=True)


def test_kernel_parameters_are_never_written_to_a_fake_proc(root: Path, outside: Path) -> None:
    (outside / "msgmax").write_text("untouched")
    shutil.rmtree(root / "proc", ignore_errors=True)
    (root / "proc" / "sys").mkdir(parents=True)
    (root / "proc" / "sys" / "kernel").symlink_to(outside)
    said = run(["cat", "/proc/sys/kernel/msgmax"], root=root, sysctl={"kernel.msgmax": "4096"}, capture=True).stdout
    assert said == "4096\n"
    assert (outside / "msgmax").read_text() == "untouched"


DEVICES = {"zero": "c 1 5", "kmsg": "c 1 11", "kvm": "c 10 232", "fuse": "c 10 229", "tun": "c 10 200"}
DEVICES |= {"loop-control": "c 10 237", "disk": "b 254 0", "loop0": "b 7 0"}


@pytest.mark.parametrize("place", ["/", "/tmp", "/dev", "/dev/shm", "/data"])
def test_a_device_made_inside_does_not_open(place: str, tmp_path: Path) -> None:
    need_first_user_namespace()
    (tmp_path / "data").mkdir()
    make = "; ".join(f"mknod {place}/{name}_ {numbers}" for name, numbers in DEVICES.items())
    look = "; ".join(f"(: < {place}/{name}_) && echo opened {name}" for name in DEVICES)
    done = run(["sh", "-c", f"{make}; {look}"], mounts=[("bind", str(tmp_path / "data"), "data", ())], capture=True)
    assert done.stdout == ""
    assert done.stderr.count("Permission denied") == len(DEVICES), done.stderr


def test_a_device_that_lies_in_an_image_does_not_open(root: Path) -> None:
    need_first_user_namespace()
    os.mknod(root / "etc/zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    for image in (root, Overlay.scratch(root)):
        done = run(["sh", "-c", "chmod 777 /etc/zero; head -c 1 /etc/zero"], root=image, capture=True)
        assert "Permission denied" in done.stderr


def test_the_devices_that_are_given_open(tmp_path: Path) -> None:
    names = "null zero full random urandom tty"
    told = run(["sh", "-c", f"for n in {names}; do stat -c '%n %t:%T %a' /dev/$n; done"], capture=True).stdout
    assert told.split("\n")[0] == "/dev/null 1:3 666"
    assert told.count("\n") == len(names.split())
    assert run(["sh", "-c", "echo > /dev/null && head -c 4 /dev/zero | wc -c"], capture=True).stdout == "4\n"
    assert "No space left" in run(["sh", "-c", "echo > /dev/full"], capture=True).stderr
    # Its owner may make more of them, and does not reach the machine's own.
    before = os.stat("/dev/null").st_mode
    run(["chmod", "000", "/dev/null"])
    assert os.stat("/dev/null").st_mode == before


def test_devices_of_a_folder_open_where_that_is_asked_for(tmp_path: Path) -> None:
    need_first_user_namespace()
    os.mknod(tmp_path / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    for attributes, count in (("dev",), "1"), ((), "0"):
        bind = ("bind", str(tmp_path), "data", attributes)
        assert run(["sh", "-c", "head -c 1 /data/zero | wc -c"], mounts=[bind], capture=True).stdout.strip() == count


def need_first_user_namespace() -> None:
    if os.getuid():
        machine_cannot("make devices as an ordinary user")


def test_no_door_leads_to_the_hypervisor_or_the_kernels_ciphers(root: Path) -> None:
    """AF_VSOCK and AF_ALG: neither by socket(2) nor, as a 32-bit program, by socketcall(2)."""
    if os.uname().machine != "x86_64":
        machine_cannot("run 32-bit x86 system calls")
    need_command("cc")
    source = Path(__file__).parent / "data/sockets.c"
    subprocess.run(["cc", "-O", "-static", "-o", root / "sockets", source], check=True)
    refused = {socket.AF_VSOCK, socket.AF_ALG, *range(46, 64)}  # and what may be added to the kernel one day
    expected = {f"{door} {n}" for door in ("socket", "socket of 32 bits") for n in range(64) if n not in refused}
    assert set(run(["/sockets"], root=root, capture=True).stdout.splitlines()) == expected
    assert "socketcall 40" in run(["/sockets"], root=root, seccomp=None, capture=True).stdout
