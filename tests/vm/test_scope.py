"""Started in a terminal of systemd's, `./lab` finds control groups: a real user manager gives it a scope with some.

In User Mode Linux, where nothing else uses the tree. The manager of the whole system is missing there; so the terminal
is one that the user's own manager has begun, as desktops do.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest

from labkit import vm
from labkit.files import state_folder
from tests.vm.conftest import require
from tests.vm.test_labs import others_may_read

pytestmark = pytest.mark.timeout(600)

UID = 65534
# What the system's manager does at a log-in, then the user's manager; then the doctor, in a terminal's group.
LOG_IN = f"""
set -e
mkdir -p /run/systemd/system /run/user/{UID}
mount -t tmpfs -o mode=700,uid={UID},gid={UID} tmpfs /run/user/{UID}
cd /sys/fs/cgroup
user=user.slice/user-{UID}.slice/user@{UID}.service
mkdir -p $user/terminal
for group in . user.slice user.slice/user-{UID}.slice; do
    echo "+cpu +memory +pids" > $group/cgroup.subtree_control
done
for group in $user $user/terminal; do
    for file in . cgroup.procs cgroup.subtree_control cgroup.threads; do chown {UID}:{UID} $group/$file; done
done
as_user="setpriv --reuid={UID} --regid={UID} --clear-groups env HOME=/tmp XDG_RUNTIME_DIR=/run/user/{UID}"
(echo 0 > $user/cgroup.procs; exec $as_user /lib/systemd/systemd --user > /tmp/manager.log 2>&1) &
for tenth in $(seq 300); do [ -S /run/user/{UID}/systemd/private ] && break; sleep 0.1; done
chown 0:0 $user/terminal/cgroup.subtree_control  # the terminal's own group is no place to make others in
chown 0:0 $user/terminal $user/terminal/cgroup.procs
cd "$CHECKOUT"
(echo 0 > /sys/fs/cgroup/$user/terminal/cgroup.procs; exec $as_user "$@")
"""


HERE = str(state_folder.checkout())
# A command as `./lab` begins one, and then what a lab does.
LIMITED = """
from labkit.course.commands import systemd_scope as scope
scope.enter()
from labkit.host import cgroup as hostgroup
from labkit.cgroups import Limits
from labkit.container import run
place = hostgroup.find()
print(*place.controllers, place.folder, flush=True)
run(["cat", "/sys/fs/cgroup/pids.max"], limits=Limits(pids_max=33, memory_max_bytes=64 << 20))
"""


def in_terminal(*words: str) -> str:
    """What a command prints that is started in such a terminal."""
    done = vm.run(
        ["sh", "-c", LOG_IN, "sh", *words],
        kind="uml",
        cwd=HERE,
        env={"PYTHONPATH": HERE, "LABKIT_STATE": str(state_folder.state()), "CHECKOUT": HERE},
        capture=True,
        timeout=300,
    )
    assert done.exit_code == 0 and done.stdout, done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def needed() -> None:
    require("uml")
    if shutil.which("systemd-run") is None or not Path("/lib/systemd/systemd").exists():
        pytest.skip("no systemd here: apt install systemd")
    if not others_may_read(state_folder.checkout(), Path(sys.prefix)):
        pytest.skip("other users cannot read this checkout, or its Python")


def test_the_users_systemd_gives_a_place_for_groups() -> None:
    place, limit = in_terminal(sys.executable, "-P", "-c", LIMITED).splitlines()
    assert place.startswith("cpu memory pids /sys/fs/cgroup/user.slice/")
    assert "/app.slice/run-" in place and place.endswith(".scope")
    assert limit == "33"


def test_without_it_the_doctor_says_what_to_do() -> None:
    doctor = (sys.executable, "-P", "-m", "labkit.course.commands", "doctor", "--json")
    report = json.loads(in_terminal("env", "XDG_RUNTIME_DIR=/nowhere", "LABKIT_SCOPE=1", *doctor))
    found = next(finding for finding in report["findings"] if finding["topic"] == "cgroup controllers")
    assert found["status"] == "no", found
    assert "systemd-run --user --scope" in found["mend"]
