"""The dev container's control groups: an ordinary user sets limits once .devcontainer/groups.sh has run.

No container engine runs here. What it would begin with is made in a virtual machine: a control group of its own, seen
as the root of all, with processes in it.
"""

import shutil
import sys

import pytest

from labkit import vm
from labkit.files import state_folder
from tests.vm.conftest import require
from tests.vm.test_scope import HERE, LIMITED, UID

pytestmark = pytest.mark.timeout(600)

CONTAINER = """
set -e
cd /sys/fs/cgroup
mkdir -p docker/box
for group in . docker; do echo "+cpu +memory +pids" > $group/cgroup.subtree_control; done
echo 0 > docker/box/cgroup.procs
cd "$CHECKOUT"
exec unshare --cgroup --mount sh -c '
    set -e
    umount -l /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    sleep 600 &
    cat /proc/self/cgroup
    .devcontainer/groups.sh nobody
    cat /proc/self/cgroup
    exec setpriv --reuid="$UID_" --regid="$UID_" --clear-groups env HOME=/tmp "$@"
' sh "$@"
"""


def in_container(*words: str) -> list[str]:
    """What a command prints that the container's ordinary user starts."""
    done = vm.run(
        ["sh", "-c", CONTAINER, "sh", *words],
        kind="uml",
        cwd=HERE,
        env={"PYTHONPATH": HERE, "LABKIT_STATE": str(state_folder.state()), "CHECKOUT": HERE, "UID_": str(UID)},
        capture=True,
        timeout=300,
    )
    assert done.exit_code == 0 and done.stdout, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(autouse=True)
def needed() -> None:
    require("uml")
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")


def test_its_user_sets_limits() -> None:
    before, after, place, pids_max = in_container(sys.executable, "-c", LIMITED)
    assert (before, after) == ("0::/", "0::/init")
    assert place.split()[-1] == "/sys/fs/cgroup" and {"cpu", "memory", "pids"} < set(place.split())
    assert pids_max == "33"
