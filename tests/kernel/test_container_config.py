"""What a container can be told: users, limits, namespaces, mounts, terminals; created and started later; joined."""

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit import cgroups, host, namespaces, procfs, rootfs, seccomp, syscalls
from labkit import constants as c
from labkit.cgroups.limits import Limits
from labkit.container import create, run, start
from labkit.container.container import Container
from labkit.container.state import State
from labkit.errors import CommandNotFound, LabkitError, StartError, Unsupported
from labkit.network import Network
from labkit.process import run_in_child
from labkit.process.stdio import readable
from tests.requirements import machine_cannot, need_command, need_root

AS_ROOT = os.geteuid() == 0
#: For a user namespace of the container's own: as root many ids, else the one that the lab host has for sure.
MAPPED: dict[str, Any] = (
    {"uid_mappings": [(0, 100_000, 65_536)], "gid_mappings": [(0, 100_000, 65_536)]}
    if AS_ROOT
    else {"uid_mappings": [(0, 0, 1)], "gid_mappings": [(0, 0, 1)]}
)
#: To mount a procfs takes being root over the PID namespace that it shows.
WITHOUT_PROC = (("filesystem", "tmpfs", "dev", (), ()),)


def sh(script: str, **config: Any) -> str:
    completed = run(["sh", "-c", script], capture=True, timeout=20, **config)
    assert completed.exit_code == 0, completed.stderr
    return completed.stdout


@pytest.fixture
def running(busybox: Path) -> Iterator[Container]:
    with start(["sleep", "1000"]) as container:
        yield container


def test_input_is_empty_bytes_or_a_descriptor(busybox: Path, tmp_path: Path) -> None:
    assert sh("cat") == ""
    assert sh("cat", stdin=b"words") == "words"
    (tmp_path / "file").write_text("a file")
    with open(tmp_path / "file") as file:
        assert sh("cat", stdin=file.fileno()) == "a file"


# Users and powers


def test_a_user_of_its_own_has_no_capability_and_dies_with_the_zygote(busybox: Path) -> None:
    if not AS_ROOT:
        machine_cannot("be another user where one id is mapped")
    said = sh("id -u; id -g; id -G; grep CapEff /proc/self/status; umask", user="1000:1001", groups=[7], umask=0o77)
    assert said.split() == ["1000", "1001", "1001", "7", "CapEff:", "0" * 16, "0077"]
    with start(["sleep", "1000"], user="1000") as container:
        pidfd = os.pidfd_open(container.pid)
        os.kill(host.pid(), signal.SIGKILL)
        assert readable(pidfd, 10)
        os.close(pidfd)


def test_an_ambient_capability_is_what_a_user_keeps(busybox: Path) -> None:
    if not AS_ROOT:
        machine_cannot("be another user where one id is mapped")
    said = sh("grep -E 'Cap(Inh|Eff|Amb)' /proc/self/status", user="1000", ambient=["NET_BIND_SERVICE"])
    assert {line.split()[1] for line in said.splitlines()} == {f"{1 << 10:016x}"}


def test_no_group_of_the_callers_goes_in(busybox: Path) -> None:
    need_root()
    before = os.getgroups()
    os.setgroups([4242])
    try:
        host.reset()
        assert sh("id -G").split() == ["0"]
    finally:
        os.setgroups(before)


def test_limits_of_the_process(busybox: Path) -> None:
    assert sh("ulimit -n; ulimit -c", rlimits={"nofile": (100, 200), "core": (0, 0)}).split() == ["100", "0"]
    assert sh("cat /proc/self/oom_score_adj", oom_score_adj=500) == "500\n"


def test_system_calls_are_filtered_unless_told_otherwise(busybox: Path) -> None:
    if not seccomp.available():
        machine_cannot("filter system calls: its kernel has no seccomp filters")
    mode = "grep Seccomp: /proc/self/status"
    assert sh(mode).split()[1] == "2"
    assert sh(mode, no_new_privileges=False).split()[1] == "2"
    assert sh(mode, seccomp=None).split()[1] == "0"
    # Nobody but CAP_SYS_ADMIN may unshare; a user namespace would take none, and is refused by the filter alone.
    unshare = ["unshare", "-U", "true"]
    assert "not permitted" in run(unshare, capture=True).stderr
    assert run(unshare, seccomp=None, user="1000" if AS_ROOT else "0").exit_code == 0
    rules = [seccomp.Rule(["sethostname"], "SCMP_ACT_ERRNO", 1)]
    own = seccomp.Profile("SCMP_ACT_ALLOW", syscalls=rules)
    refused = run(["hostname", "x"], seccomp=own, capabilities=["SYS_ADMIN"], capture=True)
    assert "not permitted" in refused.stderr
    assert run(["hostname", "x"], capabilities=["SYS_ADMIN"]).exit_code == 0


def test_new_privileges_can_be_allowed(busybox: Path) -> None:
    assert sh("grep NoNewPrivs /proc/self/status", no_new_privileges=False).split()[1] == "0"


# Namespaces


def test_a_user_namespace_has_the_maps_it_was_given_and_root_in_it(busybox: Path) -> None:
    said = sh("id -u; id -g; cat /proc/self/uid_map; cat /proc/self/gid_map", **MAPPED).split()
    assert said[:2] == ["0", "0"]
    expected = [str(number) for number in MAPPED["uid_mappings"][0]]
    if AS_ROOT:
        assert said[2:5] == said[5:8] == expected
    else:
        assert said[2] == said[5] == "0"


def test_every_namespace_of_it_belongs_to_the_user_namespace(busybox: Path) -> None:
    with start(["sleep", "1000"], **MAPPED) as container:
        theirs, ours = namespaces.of(container.pid), host.namespaces()
        assert {kind for kind in theirs if theirs[kind] != ours[kind]} == {*theirs} - {"time"}
        # Root in it may mount, in a mount namespace that belongs to it, and for that needs the capability alone.
        assert run(["mount", "-t", "tmpfs", "x", "/mnt"], **MAPPED, capabilities=["SYS_ADMIN"]).exit_code == 0


def test_files_of_a_root_with_shifted_owners_are_roots(busybox: Path) -> None:
    need_root()
    assert sh("stat -c %u / /bin/busybox", **MAPPED, root=busybox).split() == ["65534", "65534"]
    for root in (busybox, None):
        assert sh("stat -c %u / /bin/busybox", **MAPPED, root=root, idmap_root=True).split() == ["0", "0"]


def test_a_bind_mount_with_shifted_owners(busybox: Path, tmp_path: Path) -> None:
    need_root()
    (tmp_path / "data").mkdir()
    bind = ("bind", str(tmp_path / "data"), "mnt", ("idmap",))
    sh("echo hello > /mnt/file", **MAPPED, mounts=(bind,))
    assert (tmp_path / "data" / "file").stat().st_uid == 0
    plain = run(["sh", "-c", "echo x > /mnt/file"], **MAPPED, mounts=(("bind", *bind[1:3], ()),), capture=True)
    assert "denied" in plain.stderr


def test_owners_that_cannot_be_shifted_are_explained(busybox: Path) -> None:
    need_root()
    with pytest.raises(StartError) as caught:
        run(["true"], **MAPPED, mounts=(("bind", "/proc", "mnt", ("idmap",)),))
    assert "cannot be shifted" in "".join(caught.value.__notes__)


def test_a_time_namespace_has_clocks_of_its_own(busybox: Path) -> None:
    if not os.path.exists("/proc/self/ns/time"):
        machine_cannot("make time namespaces: its kernel has none")
    here = float(Path("/proc/uptime").read_text().split()[0])
    there = float(sh("cat /proc/uptime", time_offsets={"boottime": 1_000_000, "monotonic": 5}).split()[0])
    assert there >= here + 1_000_000


def test_namespaces_can_be_shared_and_joined(running: Container) -> None:
    joined = dict.fromkeys(("net", "ipc", "uts", "pid"), running.pid)
    theirs = namespaces.of(running.pid)
    with start(["sleep", "1000"], namespaces=joined) as second:
        here = namespaces.of(second.pid)
        assert {kind for kind in here if here[kind] == theirs[kind]} == {*joined, "user", "time"} & {*here}
        assert procfs.nspid(second.pid)[-1] == 2
        second.kill()
        assert running.alive
    path = f"/proc/{running.pid}/ns/net"
    with start(["sleep", "1000"], namespaces={"net": path, "uts": "host"}, network="none") as third:
        assert namespaces.inode(third.pid, "net") == theirs["net"]
        assert namespaces.inode(third.pid, "uts") == host.namespaces()["uts"]
    assert sh("hostname", namespaces={"uts": "host"}) == "labhost\n"


def test_a_user_namespace_and_namespaces_that_were_made_outside_of_it(running: Container) -> None:
    kinds = ("net", "ipc", "uts", "pid")
    joined = dict.fromkeys(kinds, running.pid)
    with start(["sleep", "1000"], namespaces=joined, **(MAPPED | {"plan": WITHOUT_PROC})) as second:
        for kind in kinds:
            assert namespaces.same(kind, second.pid, running.pid)
        assert second.exec(["id", "-u"], capture=True).finish(20).stdout == "0\n"
    with Network("test") as network, start(["sleep", "1000"], network=network.endpoint("box"), **MAPPED) as box:
        said = box.exec(["ip", "-o", "addr", "show", "eth0"], capture=True).finish(20).stdout
        assert network.endpoints["box"].address in said
    # The zygote is home again.
    assert run_in_child(lambda: namespaces.same("net", os.getpid(), os.getppid()))
    assert sh("ip -o link | wc -l") == "1\n"


def test_the_lab_hosts_network_can_be_shared(busybox: Path) -> None:
    with start(["sleep", "1000"], network="host") as container:
        assert namespaces.inode(container.pid, "net") == host.namespaces()["net"]


def test_killing_process_1_of_a_joined_pid_namespace_ends_the_other(busybox: Path) -> None:
    with start(["sleep", "1000"]) as first, start(["sleep", "1000"], namespaces={"pid": first.pid}) as second:
        first.kill()
        assert second.wait(timeout=10) == 128 + signal.SIGKILL


def test_the_zygotes_children_are_born_at_home_again(running: Container) -> None:
    assert running.exec(["true"]).finish(20).exit_code == 0
    assert run_in_child(lambda: procfs.nspid("self") == [os.getpid()])


# Mounts and kernel parameters


def test_a_tmpfs_has_its_size(busybox: Path) -> None:
    tmpfs = ("filesystem", "tmpfs", "mnt", ("nosuid", "nodev"), ("size=1m", "mode=1777"))
    refused = run(["sh", "-c", "head -c 2000000 /dev/zero > /mnt/file"], mounts=(tmpfs,), capture=True)
    assert refused.exit_code
    assert sh("touch /mnt/x; ls /mnt", mounts=(tmpfs,)) == "x\n"


@pytest.mark.parametrize(("attributes", "below"), [(("ro",), True), (("rro",), False), (("bind", "ro"), None)])
def test_read_only_alone_and_with_all_below(
    busybox: Path, tmp_path: Path, attributes: tuple[str, ...], below: bool | None
) -> None:
    """`below`: whether what is mounted below can be written to; None: it is not there."""
    data = tmp_path / "data"
    (data / "inner").mkdir(parents=True)
    (tmp_path / "other").mkdir()

    def body() -> None:
        syscalls.mount(str(tmp_path / "other"), str(data / "inner"), None, c.MS_BIND)

    run_in_child(body)  # on the lab host, where it stays
    script = "touch /mnt/x 2>/dev/null && echo top; touch /mnt/inner/y 2>/dev/null && echo inner; true"
    said = sh(script, mounts=(("bind", str(data), "mnt", attributes),))
    assert said == ("inner\n" if below else "")
    assert (tmp_path / "other" / "y").exists() == bool(below)


@pytest.mark.parametrize(
    ("propagation", "into", "out"), [("private", False, False), ("slave", True, False), ("rshared", True, True)]
)
def test_propagation(busybox: Path, tmp_path: Path, propagation: str, into: bool, out: bool) -> None:
    data = tmp_path / "data"
    for name in ("from_outside", "from_inside"):
        (data / name).mkdir(parents=True)

    def on_the_host() -> None:
        syscalls.mount(str(data), str(data), None, c.MS_BIND)

    run_in_child(on_the_host)
    keep = ("SYS_ADMIN", "CHOWN")
    with start(["sleep", "1000"], mounts=(("bind", str(data), "mnt", (propagation,)),), capabilities=keep) as box:
        run_in_child(lambda: syscalls.mount("x", str(data / "from_outside"), "tmpfs"))
        box.exec(["mount", "-t", "tmpfs", "x", "/mnt/from_inside"]).finish(20)
        inside = {mount.mount_point for mount in procfs.mountinfo(box.pid)}
        outside = {mount.mount_point for mount in procfs.mountinfo(host.pid())}
    assert ("/mnt/from_outside" in inside) == into
    assert (str(data / "from_inside") in outside) == out
    assert "/mnt/from_inside" in inside


def test_message_queues_are_mounted(busybox: Path) -> None:
    if "mqueue" not in Path("/proc/filesystems").read_text():
        machine_cannot("mount mqueue: its kernel has none")
    assert "mqueue" in sh("grep /dev/mqueue /proc/mounts")


def test_kernel_parameters_are_set_and_then_read_only(busybox: Path) -> None:
    settings = {"kernel.msgmax": "4096", "net.ipv4.ip_unprivileged_port_start": "80", "net/ipv4/ip_forward": "1"}
    said = sh("cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward", sysctl=settings)
    assert said.split() == ["4096", "1"]
    assert Path("/proc/sys/kernel/msgmax").read_text() != "4096\n"
    refused = run(["sh", "-c", "echo 1 > /proc/sys/kernel/msgmax"], sysctl=settings, capture=True)
    assert "Read-only" in refused.stderr


def test_a_kernel_parameter_that_is_refused_is_named(busybox: Path) -> None:
    with pytest.raises(StartError, match=r"sysctl -w kernel.msgmax=cats"):
        run(["true"], sysctl={"kernel.msgmax": "cats"})


# Terminals


@pytest.mark.parametrize("config", [{}, MAPPED], ids=["plain", "user namespace"])
def test_a_terminal_of_its_own(busybox: Path, config: dict[str, Any]) -> None:
    said = sh("tty; test -c /dev/console && echo console; echo x > /dev/tty", terminal=True, **config)
    assert said.split() == ["/dev/pts/0", "console", "x"]


def test_typing_into_a_terminal(busybox: Path) -> None:
    with start(["cat"], terminal=True, capture=True) as container:
        assert container.terminal is not None
        assert stat.S_ISCHR(os.fstat(container.terminal).st_mode)
        os.write(container.terminal, b"hello\n\x04")  # ^D: the end of input
        assert container.finish(20)[:2] == (0, "hello\r\nhello\r\n")


def test_control_c_on_a_terminal(busybox: Path) -> None:
    # PID 1 would ignore it, so it is for a process that joined.
    with start(["sleep", "1000"]) as container:
        process = container.exec(["sleep", "1000"], terminal=True)
        assert process.terminal is not None
        os.write(process.terminal, b"\x03")
        assert process.wait(timeout=20) == 128 + signal.SIGINT


# PID 1


def test_an_init_passes_signals_on_and_reaps(busybox: Path) -> None:
    need_command("tini-static")
    with start(["sh", "-c", "echo ready; exec sleep 1000"], init=True, capture=True) as container:
        container.output.pass_on_until(*container.output._readers, timeout=10)  # it has its handlers then
        container.signal(signal.SIGTERM)
        assert container.wait(timeout=20) == 128 + signal.SIGTERM
    # The orphan's parent is PID 1, which was told nothing of it.
    script = "(sleep 0 &); while ls /proc | grep -qx 4; do :; done; set -- /proc/[0-9]*; echo $#"
    assert sh(script, init=True) == "2\n"  # the init, and the shell
    assert run(["nope"], init=True, capture=True).exit_code == 127


# Limits: what they do is tests/cgroups


def test_limits_are_refused_where_there_are_no_groups(busybox: Path) -> None:
    if cgroups.controllers():
        machine_cannot("lack control groups")
    with pytest.raises(Unsupported, match="cgroup"):
        run(["true"], limits=Limits(pids_max=10))
    with start(["sleep", "1000"]) as container:
        with pytest.raises(Unsupported, match="cgroup"):
            container.pause()
        with pytest.raises(LabkitError, match="only a paused one can"):
            container.resume()


# Created, then started


@pytest.mark.parametrize("config", [{}, MAPPED], ids=["plain", "user namespace"])
def test_created_then_started(busybox: Path, config: dict[str, Any]) -> None:
    with create(["echo", "hello"], capture=True, **config) as container:
        assert container.state.can_start
        assert procfs.nspid(container.pid)[-1] == 1
        assert {mount.mount_point for mount in procfs.mountinfo(container.pid)} >= {"/", "/proc", "/dev"}
        container.start()
        assert container.finish(20)[:2] == (0, "hello\n")
        assert container.state.can_delete
    with pytest.raises(LabkitError, match="that is stopped cannot be started"):
        container.start()


def test_a_created_container_can_be_joined_and_killed(busybox: Path) -> None:
    with create(["sleep", "1000"]) as container:
        assert container.exec(["hostname"], capture=True).finish(20).stdout == "container\n"
        container.kill()
        assert container.state is State.STOPPED


def test_a_command_that_is_not_there_is_found_out_at_the_start(busybox: Path) -> None:
    container = create(["nope"])
    with pytest.raises(CommandNotFound, match="'nope' was not found"):
        container.start()
    assert container.state is State.STOPPED
    assert container.wait() == 127


def test_two_created_at_once_are_independent(busybox: Path) -> None:
    with create(["echo", "one"], capture=True) as one, create(["echo", "one"], capture=True) as two:
        two.start()
        one.start()
        assert one.finish(20)[:2] == two.finish(20)[:2] == (0, "one\n")


def test_a_created_container_dies_with_its_caller_and_zygote(busybox: Path) -> None:
    with create(["sleep", "1000"]) as container:
        pidfd = os.pidfd_open(container.pid)
        os.kill(host.pid(), signal.SIGKILL)
        assert readable(pidfd, 10)
        os.close(pidfd)


# Joined


def test_a_further_process_is_in_the_same_namespaces_with_the_same_powers(running: Container) -> None:
    with running.exec(["sleep", "1000"]) as further:
        assert namespaces.of(further.pid) == namespaces.of(running.pid)
        first, second = procfs.status(running.pid), procfs.status(further.pid)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups"):
            assert first[name] == second[name], name
        assert procfs.nspid(further.pid)[-1] > 1
        assert os.readlink(f"/proc/{further.pid}/root") == "/"
    assert running.alive


def test_a_further_process_tells_its_exit_and_output(running: Container) -> None:
    completed = running.exec(["sh", "-c", "cat; echo err >&2; exit 3"], capture=True, stdin=b"in").finish(20)
    assert completed[:3] == (3, "in", "err\n")
    assert running.exec(["sh", "-c", "kill -9 $$"]).wait(20) == 128 + signal.SIGKILL
    with pytest.raises(CommandNotFound):
        running.exec(["nope"])
    with pytest.raises(StartError, match="working directory"):
        running.exec(["true"], cwd="/nope")
    assert (
        running.exec(["sh", "-c", "pwd; echo $A"], cwd="/tmp", env={"PATH": "/bin", "A": "b"}, capture=True)
        .finish(20)
        .stdout
        == "/tmp\nb\n"
    )


def test_a_further_process_of_another_user(running: Container) -> None:
    if not AS_ROOT:
        machine_cannot("be another user where one id is mapped")
    assert running.exec(["id", "-u"], user="1000", capture=True).finish(20).stdout == "1000\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_joining_a_user_namespace(busybox: Path, terminal: bool) -> None:
    with start(["sleep", "1000"], **MAPPED) as container:
        completed = container.exec(["id", "-u"], capture=True, terminal=terminal).finish(20)
        assert completed.stdout.strip() == "0"


def test_no_descriptor_of_ours_is_in_a_further_process(running: Container) -> None:
    said = running.exec(["ls", "/proc/self/fd"], capture=True).finish(20).stdout.split()
    assert said == ["0", "1", "2", "3"]  # 3 is the listing's own


def test_a_container_that_has_ended_is_not_joined(busybox: Path) -> None:
    with start(["sleep", "1000"]) as container:
        container.kill()
        with pytest.raises(LabkitError, match="no process can join a container that is stopped"):
            container.exec(["true"])
    with start(["sleep", "1000"]) as container:
        os.kill(container.pid, signal.SIGKILL)
        readable(container.pidfd, 10)
        with pytest.raises(LabkitError):
            container.exec(["true"])


def test_a_plan_can_be_shown_before_it_is_applied() -> None:
    from labkit import mounts

    said = [mounts.describe(step) for step in (*rootfs.DEFAULT_PLAN, ("bind", "/srv", "data", ("bind", "ro", "slave")))]
    assert said[-1] == "mount --bind -o bind,ro,slave /srv /data"
