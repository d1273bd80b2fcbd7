"""Maps written for real: by root directly, by an ordinary user with newuidmap or for their own id alone."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import constants as c
from labkit import idmap, syscalls
from labkit.errors import LabkitError
from labkit.idmap import IdMap
from labkit.process import run_in_child, spawn
from tests.requirements import need_command, need_root

ROOT = Path(__file__).resolve().parents[2]

# What an ordinary user finds on a lab host of theirs.
LOOK = """
import json, os, sys, tempfile
from labkit import host, idmap
from labkit.process import run_in_child

def inside(folder):
    found = {"uid": os.geteuid(), "setgroups": open("/proc/self/setgroups").read().strip()}
    try:
        os.setgroups([])
        path = os.path.join(folder, "mail")
        open(path, "w").close()
        os.chown(path, 8, 8)
        found["outside"] = path
    except OSError as error:
        found["refused"] = error.strerror
    return found

with tempfile.TemporaryDirectory(dir="/tmp") as folder:
    os.chmod(folder, 0o777)
    found = run_in_child(inside, folder)
    if "outside" in found:
        stat = os.stat(found["outside"])
        found["outside"] = (stat.st_uid, stat.st_gid)
        run_in_child(os.unlink, os.path.join(folder, "mail"))
    found["maps"] = [list(map_) for map_ in idmap.of(host.pid())]
    host.reset()
print(json.dumps(found))
"""


def look_as_nobody(tmp_path: Path, subuid: str, subgid: str, *, no_new_privs: bool = False) -> dict[str, object]:
    """What `LOOK` finds for nobody where those are /etc/subuid and /etc/subgid, for this one process tree."""
    need_root()
    for command in ("unshare", "setpriv", "newuidmap"):
        need_command(command)
    site = next(entry for entry in sys.path if entry.endswith("site-packages"))
    if subprocess.run(["setpriv", "--reuid=65534", "test", "-r", f"{ROOT}/labkit/host/lab_host.py"]).returncode:
        pytest.skip("the user nobody cannot read the checkout")
    (tmp_path / "subuid").write_text(subuid)
    (tmp_path / "subgid").write_text(subgid)
    script = (
        f"mount --bind {tmp_path}/subuid /etc/subuid && mount --bind {tmp_path}/subgid /etc/subgid && "
        f"exec setpriv --reuid=65534 --regid=65534 --clear-groups {'--no-new-privs' if no_new_privs else ''} "
        f'env -i PATH=/usr/bin:/bin PYTHONPATH={ROOT}:{site} {sys.executable} -c "$1"'
    )
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", LOOK],
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_an_ordinary_users_lab_host_has_their_subordinate_ids(tmp_path: Path) -> None:
    found = look_as_nobody(tmp_path, "nobody:100000:65536\n", "65534:200000:1000\nnobody:300000:50\n")
    assert found == {
        "uid": 0,
        "setgroups": "allow",
        "outside": [100007, 200007],
        "maps": [[[0, 65534, 1], [1, 100000, 65536]], [[0, 65534, 1], [1, 200000, 1000], [1001, 300000, 50]]],
    }


ALONE = {
    "uid": 0,
    "setgroups": "deny",
    "refused": "Operation not permitted",
    "maps": [[[0, 65534, 1]], [[0, 65534, 1]]],
}


def test_without_subordinate_ids_they_are_alone(tmp_path: Path) -> None:
    assert look_as_nobody(tmp_path, "somebody:100000:65536\n", "nobody:100000:65536\n") == ALONE


def test_where_newuidmap_is_powerless_they_are_alone(tmp_path: Path) -> None:
    both = "nobody:100000:65536\n"
    assert look_as_nobody(tmp_path, both, both, no_new_privs=True) == ALONE


@pytest.fixture
def unmapped() -> Iterator[int]:
    """A process in a new user namespace that is not mapped yet."""
    program = f"import ctypes; ctypes.CDLL(None).unshare({c.CLONE_NEWUSER}); print(flush=True); input()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        yield child.pid


def test_what_is_not_written_yet_is_said(unmapped: int) -> None:
    with pytest.raises(LabkitError, match="not written yet"):
        idmap.of(unmapped)


def test_one_may_always_map_oneself(unmapped: int) -> None:
    uids, gids = IdMap.one(os.geteuid()), IdMap.one(os.getegid())
    idmap.write(unmapped, uids, gids)
    assert idmap.of(unmapped) == (uids, gids)


def test_one_may_map_oneself_from_inside() -> None:
    def body() -> tuple[int, list[list[tuple[int, int, int]]]]:
        uids, gids = IdMap.one(os.geteuid()), IdMap.one(os.getegid())
        syscalls.unshare(c.CLONE_NEWUSER)
        idmap.write(os.getpid(), uids, gids)
        return os.getuid(), [list(map_) for map_ in idmap.of("self")]

    uid, (uids, gids) = run_in_child(body)
    assert (uid, len(uids), len(gids)) == (0, 1, 1)


def test_a_map_is_written_once(unmapped: int) -> None:
    idmap.write_for_user(unmapped)
    with pytest.raises(PermissionError) as refused:
        idmap.write(unmapped, IdMap.one(os.geteuid()), IdMap.one(os.getegid()))
    assert "written once" in " ".join(refused.value.__notes__)


def test_root_maps_what_it_likes(unmapped: int) -> None:
    need_root()
    uids, gids = IdMap([(0, 100000, 65536)]), IdMap([(0, 200000, 10), (10, 300000, 10)])
    idmap.write(unmapped, uids, gids)
    assert idmap.of(unmapped) == (uids, gids)
    assert Path(f"/proc/{unmapped}/setgroups").read_text() == "allow\n"


def test_an_ordinary_user_maps_nobody_elses_ids() -> None:
    if not shutil.which("newuidmap"):
        need_command("newuidmap")

    def attempt() -> str:
        if os.geteuid() == 0:
            with open("/proc/self/uid_map") as file:
                ids = sum(int(line.split()[2]) for line in file)
            if ids > 65534:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
        syscalls.prctl(c.PR_SET_DUMPABLE, 1)
        syscalls.capset(0, 0, 0)
        ready, go = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            syscalls.unshare(c.CLONE_NEWUSER)
            os.write(ready[1], b".")
            os.read(go[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        try:
            idmap.write(pid, IdMap([(0, 0, 10)]), IdMap([(0, 0, 10)]))
        except LabkitError as error:
            return str(error)
        finally:
            os.write(go[1], b".")
            os.waitpid(pid, 0)
        return "mapped"

    assert "the ids could not be mapped (newuidmap:" in run_in_child(attempt)


def test_root_inside_owns_what_its_map_says(tmp_path: Path) -> None:
    need_root()
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 100033, 100033)
    os.chmod(tmp_path, 0o777)

    def enter() -> None:
        syscalls.unshare(c.CLONE_NEWUSER)

    with spawn(enter) as child:
        idmap.write(child.pid, IdMap([(0, 100000, 65536)]), IdMap([(0, 100000, 65536)]))
        assert child.call(lambda: os.stat(tmp_path / "file").st_uid) == 33
        assert child.call(lambda: os.stat("/etc/passwd").st_uid) == 65534  # the machine's root is nobody there
