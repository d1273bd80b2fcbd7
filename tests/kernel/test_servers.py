"""The four servers: each answers, each stops, none is left, and what goes wrong is said in a sentence."""

import os
import select
import tempfile
from pathlib import Path

import pytest

from labkit import host, procfs, temporary
from labkit.container import start as start_container
from labkit.course.experiments import servers
from labkit.course.experiments.servers import clients, kinds, trees
from labkit.errors import InvalidConfig, LabkitError
from labkit.process import run_in_child
from labkit.syscalls import mount
from tests.requirements import need_servers


@pytest.fixture(autouse=True)
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_servers()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # other labs may come and go in the usual place


def folders() -> set[str]:
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("labkit.")}


def ended(pids: list[int]) -> bool:
    """Whether all these processes end within some seconds."""
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([pidfd], [], [], 20)[0]:
                return False
        finally:
            os.close(pidfd)
    return True


def test_four_servers_do_their_work_and_leave_nothing() -> None:
    before = folders()
    with servers.start_all() as four:
        assert list(four) == ["file", "database", "application", "web"]
        assert all(server.alive for server in four.values())
        servers.upload("note.txt", b"hello\n")
        assert servers.download("note.txt") == b"hello\n"
        assert servers.listing() == ["note.txt", "welcome.txt"]
        assert servers.query("select name from items order by id")[0] == ("bread",)
        assert servers.fetch("/").text.startswith("<!doctype html>")
        assert servers.fetch("/nowhere").status == 404
        assert servers.fetch("/app/items", body="milk", request_id="r-1").status == 201
        assert servers.query("select count(*) from items where name = %s", "milk") == [(1,)]
        for name in ("web", "application", "database"):
            assert "r-1" in four[name].read_log(), name
        for server in four.values():
            run_in_child(server.request)
        pids = [pid for server in four.values() for pid in server.pids]
        assert len(pids) >= 4 + 2
    assert ended(pids) and not any(server.alive for server in four.values())
    assert folders() == before
    four.stop()  # twice is as good as once


def test_they_are_no_ones_root() -> None:
    with servers.start("web") as web:
        user = Path(f"/proc/{web.pid}/status").read_text().split("Uid:")[1].split()[0]
        capabilities = Path(f"/proc/{web.pid}/status").read_text().split("CapEff:")[1].split()[0]
    assert int(user) == (kinds.UID if os.geteuid() == 0 else os.geteuid())
    assert int(capabilities, 16) == 0


@pytest.mark.parametrize("name", list(kinds.KINDS))
def test_none_outlives_the_lab_host(name: str) -> None:
    if name == "application":
        database = servers.start("database")
    server = servers.start(name)
    pids = server.pids
    host.reset()
    assert ended(pids)
    server.stop()
    if name == "application":
        database.stop()


def test_a_taken_port_is_said_with_its_owner() -> None:
    with servers.start("web", port=18080) as first:
        with pytest.raises(
            LabkitError, match=rf"cannot have port 18080 .* process {first.pid} \(nginx\) listens there"
        ):
            servers.start("web", port=18080)
        with servers.start("web", port=18081, backend_port=8000):
            assert servers.fetch("/", 18081).status == 200
        assert servers.fetch("/app/items", 18080).status == 502


def test_a_server_that_does_not_come_up_says_why() -> None:
    before = folders()
    with pytest.raises(
        LabkitError, match=r"web server \(nginx\) did not come up: .* log: .*unknown directive \"nonsense\""
    ):
        servers.start("web", site="nonsense;")
    assert folders() == before


def test_wrong_use() -> None:
    with pytest.raises(InvalidConfig, match="no server called 'mail', only file, database, application, web"):
        servers.start("mail")
    with pytest.raises(InvalidConfig, match="from 1024 to 65535, not 80"):
        servers.start("web", port=80)


def test_one_that_is_not_built_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path))
    with pytest.raises(LabkitError, match=r"web server has not been built.*servers\.build\(\)"):
        servers.start("web")


def test_the_same_tree_is_a_containers_root(tmp_path: Path) -> None:
    kind = kinds.KINDS["web"]
    setting = kinds.Setting(8080, 8000)
    kinds.fill(kind, setting, tmp_path)
    bind = ("bind", str(tmp_path), "srv", ())
    # An ordinary user's container may have no other user than root, and nginx would leave its workers to another.
    command = [*kind.command(setting), "-g", "user root;"]
    with start_container(
        command, root=trees.find("web"), readonly=True, network="host", mounts=(bind,), capture=True
    ) as container:
        page = run_in_child(_first_answer, container.pid, setting.port)
        assert page.headers["server"].startswith("nginx")


def _first_answer(pid: int, port: int) -> clients.Answer:
    from labkit.course.experiments.servers import place

    assert place.wait_until(lambda: clients.fetch("/", port), pid, 30) is None
    return clients.fetch("/", port)


def small_store(folder: str) -> None:
    mount("store", folder, "tmpfs", 0, "size=64m")
    for name in ("tables", "uploads"):
        os.mkdir(f"{folder}/{name}")


def test_what_they_keep_may_lie_in_a_file_system_of_the_lab_hosts_and_be_found_again() -> None:
    with temporary.Folder() as store:
        run_in_child(small_store, store)
        mounts = run_in_child(procfs.mountinfo)
        for times in (1, 2):
            with servers.start("database", data=f"{store}/tables"), servers.start("file", data=f"{store}/uploads"):
                servers.upload(f"note-{times}.txt", b"hello\n")
                servers.query("insert into items (name) values ('milk')")
                assert servers.query("select count(*) from items where name = 'milk'") == [(times,)]
        kept = run_in_child(os.listdir, f"{store}/uploads")
        assert sorted(kept) == ["note-1.txt", "note-2.txt", "welcome.txt"]
        assert run_in_child(procfs.mountinfo) == mounts
        host.reset()
    with pytest.raises(InvalidConfig, match="keeps nothing"):
        servers.start("web", data="/tmp")
