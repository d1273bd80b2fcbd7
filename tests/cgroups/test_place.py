"""Where the lab host's group can be made, and what is said where it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import labkit
from labkit import constants as c
from labkit import syscalls
from labkit.errors import Unsupported
from labkit.host import cgroup
from labkit.process import run_in_child
from tests.requirements import need_root

ROOT = "/sys/fs/cgroup"


def in_a_container(name: str) -> None:
    """Be in the group `name`, the root of a cgroup namespace, as the processes of a container are."""
    os.makedirs(f"{ROOT}/{name}")
    Path(f"{ROOT}/{name}/cgroup.procs").write_text(str(os.getpid()))
    syscalls.unshare(c.CLONE_NEWCGROUP | c.CLONE_NEWNS)
    syscalls.mount(None, "/", None, c.MS_REC | c.MS_PRIVATE)
    cgroup.mount_own_root()


def what_is_lacking() -> tuple[str, str]:
    try:
        cgroup.find()
    except Unsupported as lack:
        return lack.what, lack.mend
    return "", ""


def test_a_place_is_above_or_where_one_is() -> None:
    place = cgroup.find()
    assert place.own == cgroup.own_group()[0]
    assert f"{place.own}/".startswith(f"{place.folder}/")
    assert {"cpu", "memory", "pids"} <= set(place.controllers)


def test_a_group_that_holds_processes_is_no_place_until_they_are_moved() -> None:
    def container() -> tuple[tuple[str, str], str, str]:
        in_a_container("c")
        lack = what_is_lacking()
        command = lack[1].partition(": ")[2].partition("; or use")[0]
        subprocess.run(["sh", "-c", command], cwd="/")  # that of its own processes that has ended cannot be moved
        return lack, cgroup.find().folder, run_in_child(lambda: Path("/proc/self/cgroup").read_text())

    lack, folder, inside = run_in_child(container)
    assert "holds processes itself" in lack[0]
    assert folder == ROOT
    assert inside == "0::/host\n"


def test_control_groups_that_are_read_only_are_no_place() -> None:
    def container() -> tuple[str, str]:
        in_a_container("c")
        syscalls.mount(None, ROOT, None, c.MS_REMOUNT | c.MS_BIND | c.MS_RDONLY)
        return what_is_lacking()

    what, mend = run_in_child(container)
    assert "may not be written to" in what
    assert "--vm" in mend


ASK = """
from labkit import cgroups, host, process
print(cgroups.unsupported())
print(cgroups.controllers(), repr(host.current().group), process.run_in_child(int, "7"))
try:
    cgroups.create("box")
except Exception as error:
    print(type(error).__name__)
"""


def test_without_cgroup2_it_says_so_and_the_lab_host_works() -> None:
    def without() -> str:
        syscalls.unshare(c.CLONE_NEWNS)
        syscalls.mount(None, "/", None, c.MS_REC | c.MS_PRIVATE)
        while os.path.exists(f"{ROOT}/cgroup.procs"):
            syscalls.umount2(ROOT, c.MNT_DETACH)
        environment = {"PYTHONPATH": str(Path(labkit.__file__).parents[1])}
        return subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, env=environment).stdout

    need_root()  # in a user namespace what lies below can be looked at by nobody
    assert run_in_child(without).splitlines() == [
        "no cgroup v2 file system is mounted here: use a virtual machine: ./lab --vm",
        "() '' 7",
        "Unsupported",
    ]


def test_a_user_without_a_group_is_told_how_to_get_one() -> None:
    need_root()

    def ordinary_user() -> tuple[str, str]:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        return what_is_lacking()

    what, mend = run_in_child(ordinary_user)
    assert "your control group may not be written to by you" in what
    assert "Delegate=yes" in mend
