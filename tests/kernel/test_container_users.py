"""What users and images expect of any container: streams that are theirs, a home, mounts at any depth, names, ports."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit.container import create, run, start
from labkit.errors import InvalidConfig, LabkitError
from labkit.files import state_folder
from labkit.network import Network
from labkit.overlay import Overlay
from tests.kernel.test_container_config import AS_ROOT, MAPPED, sh
from tests.requirements import machine_cannot

PASSWD = "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\nbroken line\nno:x:7:7::relative:/bin/sh\n"


@pytest.fixture
def image(busybox: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "image"
    shutil.copytree(busybox, copy, symlinks=True)
    (copy / "etc/passwd").write_text(PASSWD)
    return copy


def need_users() -> None:
    if not AS_ROOT:
        machine_cannot("be another user where one id is mapped")


# Streams and homes


def test_a_user_can_open_the_streams_it_was_given(busybox: Path) -> None:
    need_users()
    script = "echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin"
    reader, writer = os.pipe()
    os.write(writer, b"in")
    os.close(writer)
    for config in ({"user": "1000:1000"}, {"user": "1000:1000", **MAPPED}, MAPPED):
        done = run(["sh", "-c", script], stdin=b"in", capture=True, timeout=20, **config)
        assert done[:3] == (0, "out\nin", "err\n")
    with os.fdopen(reader) as stdin:
        assert sh("cat /dev/stdin", user="1000", stdin=stdin.fileno()) == "in"
    with start(["sleep", "1000"], user="1000") as container:
        done = container.exec(["sh", "-c", script], user="2000", stdin=b"in", capture=True).finish(20)
        assert done[:3] == (0, "out\nin", "err\n")


def test_a_file_that_is_given_keeps_its_owner(busybox: Path, tmp_path: Path) -> None:
    need_users()
    (tmp_path / "file").write_text("words")
    with open(tmp_path / "file") as file:
        assert sh("cat", user="1000", stdin=file.fileno()) == "words"
    assert (tmp_path / "file").stat().st_uid == 0


def test_home_is_the_users(image: Path, tmp_path: Path) -> None:
    need_users()
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    for root in (image, Overlay.scratch(image), Overlay([image], upper, work)):
        for user, home in (("0", "/root"), ("1000", "/home/ada"), ("7", "/"), ("1001:1000", "/")):
            assert sh("echo $HOME", root=root, user=user) == f"{home}\n"
    assert sh("echo $HOME", root=image, user="1000", env={"HOME": "/x", "PATH": "/bin"}) == "/x\n"
    with start(["sleep", "1000"], root=image) as container:
        assert container.exec(["sh", "-c", "echo $HOME"], user="1000", capture=True).finish(20).stdout == "/home/ada\n"
    # The uppermost layer has the last word.
    run(["sh", "-c", "sed -i s,/home/ada,/srv/ada, /etc/passwd"], root=Overlay([image], upper, work))
    assert sh("echo $HOME", root=Overlay([image], upper, work), user="1000") == "/srv/ada\n"
    run(["rm", "/etc/passwd"], root=Overlay([image], upper, work))
    assert sh("echo $HOME", root=Overlay([image], upper, work), user="1000") == "/\n"


@pytest.mark.parametrize("kind", ["link", "loop", "pipe", "folder", "missing", "long", "device"])
def test_a_passwd_that_is_none_is_not_read(image: Path, tmp_path: Path, kind: str) -> None:
    need_users()
    passwd, outside = image / "etc/passwd", tmp_path / "outside"
    outside.write_text(PASSWD)
    passwd.unlink()
    made: dict[str, Callable[[], object]] = {
        "link": lambda: passwd.symlink_to(outside),
        "loop": lambda: passwd.symlink_to("passwd"),
        "pipe": lambda: os.mkfifo(passwd),
        "folder": passwd.mkdir,
        "missing": lambda: None,
        "long": lambda: passwd.write_text("x" * (2 << 20) + "\n" + PASSWD),
        "device": lambda: os.mknod(passwd, 0o20666, os.makedev(5, 0)),
    }
    made[kind]()
    for root in (image, Overlay.scratch(image)):
        assert sh("echo $HOME", root=root, user="1000") == "/\n"


# Mounts


def test_the_place_of_a_mount_is_made_at_any_depth(image: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("here\n")
    mounts = (
        ("bind", str(tmp_path / "data"), "a/b/c/data", ("ro",)),
        ("bind", str(tmp_path / "data/file"), "x/y/file", ("ro",)),
        ("filesystem", "tmpfs", "t/u/v", (), ()),
        ("bind", str(tmp_path / "data"), "dev/d/e", ()),
    )
    for root in (None, image):
        said = sh("cat /a/b/c/data/file /x/y/file /dev/d/e/file; grep -c /t/u/v /proc/mounts", root=root, mounts=mounts)
        assert said == "here\n" * 3 + "1\n"


def test_no_folder_is_made_outside_through_a_link(image: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (image / "way").symlink_to(tmp_path / "outside")
    (image / "up").symlink_to("../" * 12 + str(tmp_path / "outside"))
    for target in ("way/a/b", "up/a/b"):
        mounts = (("bind", str(tmp_path), target, ("ro",)),)
        with pytest.raises(LabkitError):
            run(["true"], root=image, mounts=mounts)
    assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("points_to", [None, "/run/systemd/resolve/stub", "../" * 12 + "OUTSIDE", "hosts", "/nowhere"])
def test_a_network_comes_to_any_image(image: Path, tmp_path: Path, points_to: str | None) -> None:
    """/etc/hosts and /etc/resolv.conf that are missing, or links: out of the root, in a circle, to nowhere."""
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    for name in ("hosts", "resolv.conf"):
        (image / "etc" / name).unlink()
        if points_to:
            (image / "etc" / name).symlink_to(points_to.replace("OUTSIDE", str(outside)))
    with Network("any") as network, network.endpoint("me") as endpoint:
        for root in (image, Overlay.scratch(image)):
            said = sh("grep me /etc/hosts; grep -c . /etc/resolv.conf; hostname -i", root=root, network=endpoint)
            assert said == f"{endpoint.address}\tme\n1\n{endpoint.address}\n"
    assert outside.read_text() == "untouched"


# Terminals


def test_a_terminal_has_a_size_that_can_be_set(busybox: Path) -> None:
    script = "stty size; trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done"
    with start(["sh", "-c", script], terminal=True, terminal_size=(100, 40), capture=True) as container:
        deadline = time.monotonic() + 20
        while "ready" not in container.output.kept("stdout") and time.monotonic() < deadline:
            container.output.pass_on_until(timeout=0.05)
        container.resize(132, 50)
        assert container.finish(20).stdout.split() == ["40", "100", "ready", "50", "132"]
        with pytest.raises(LabkitError, match="has ended"):
            container.resize(1, 1)
    with start(["sleep", "1000"]) as container:
        with pytest.raises(InvalidConfig, match="terminal=True"):
            container.resize(80, 24)
        done = container.exec(["stty", "size"], terminal=True, terminal_size=(7, 3), capture=True).finish(20)
        assert done.stdout.split() == ["3", "7"]


@pytest.mark.parametrize("size", [(80,), [80, 24], (80, -1), (70000, 24), ("80", "24"), 80])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(InvalidConfig):
        run(["true"], terminal=True, terminal_size=size)


# Names and ports


def test_its_own_host_name_resolves(busybox: Path) -> None:
    assert sh("hostname; hostname -i") == "container\n127.0.1.1\n"
    assert sh("hostname -i", hostname="my_box.example") == "127.0.1.1\n"
    with create(["hostname", "-i"], capture=True) as container:
        container.start()
        assert container.finish(20).stdout == "127.0.1.1\n"


def test_a_host_name_in_a_network_is_known_for_as_long_as_its_container_runs(busybox: Path) -> None:
    with Network("names") as network, network.endpoint("web_1") as web, network.endpoint("db") as db:
        assert sh("hostname; hostname -i", network=web) == f"web_1\n{web.address}\n"
        with start(["sleep", "1000"], network=web, hostname="front"):
            assert (
                sh("ping -c 1 -W 5 front > /dev/null; grep front /etc/hosts", network=db) == f"{web.address}\tfront\n"
            )
            # Whoever calls itself by another's name does not get what is meant for that one.
            assert sh("hostname -i", network=web, hostname="DB") == f"{db.address}\n"
            assert sh("hostname -i", network=db, hostname="front") == f"{web.address}\n"
        assert "front" not in sh("cat /etc/hosts", network=db)
        with pytest.raises(LabkitError):
            run(["no-such-command"], network=web, hostname="gone")
        assert "gone" not in sh("cat /etc/hosts", network=db)


def test_every_user_may_ping_and_take_any_port(busybox: Path) -> None:
    need_users()
    read = "cd /proc/sys/net/ipv4; cat ip_unprivileged_port_start ping_group_range"
    bind = "nc -l -p 80 -w 1 2>&1"
    with Network("ports") as network, network.endpoint("web") as web:
        for config in ({}, {"network": web}, {"sysctl": {"net.ipv4.ip_forward": "1"}}):
            assert sh(read, **config).split() == ["0", "0", str((1 << 31) - 1)]
            done = run(["sh", "-c", bind], user="1000", capabilities=[], capture=True, timeout=20, **config)
            assert done.stdout == "nc: timed out\n"
    assert sh(read, **MAPPED).split() == ["0", "0", "65535"]


# Few descriptors

WITH_FEW = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)
from labkit.container import run
from labkit.errors import LabkitError
from labkit.network import Network
try:
    print(run(["sh", "-c", "ulimit -n"], capture=True).stdout, end="")
    with Network("few") as network, network.endpoint("one") as endpoint:
        print(run(["echo", "there"], network=endpoint, terminal=True, capture=True).stdout.strip())
except LabkitError as error:
    print(error)
"""


def test_64_descriptors_are_enough_and_fewer_are_explained(busybox: Path) -> None:
    for limit, said in ((64, "64\nthere\n"), (24, "nearly all of the 24 descriptors")):
        done = subprocess.run(
            [sys.executable, "-P", "-c", WITH_FEW, str(limit)],
            env={**os.environ, "PYTHONPATH": str(state_folder.checkout()), "LABKIT_STATE": str(busybox.parents[1])},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert said in done.stdout, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
