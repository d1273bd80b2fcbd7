"""The Vagrantfile, with the real Vagrant, libvirt and QEMU: what `vagrant up` gives, again and again, and its end.

Vagrant and its Vagrantfile are those that users have; a second Vagrantfile, in Vagrant's own folder, only says that a
processor is imitated, and what kernel is begun. `tests/vm/vagrant/box.py` says what the machine has in place of a
network, and what is not tested thereby. Each test here leaves the machine as the next one expects it.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import procfs
from labkit.files import state_folder
from tests.requirements import need_command, need_root, need_vagrant
from tests.vm.conftest import Traces
from tests.vm.vagrant import box
from tests.vm.vagrant.place import Place

pytestmark = pytest.mark.timeout(3000)

PORT = 8765
# An imitated processor that nests stood still once while the doctor tried KVM on it: it gets no /dev/kvm.
SETTINGS = """\
Vagrant.configure("2") do |config|
  config.vm.provider "libvirt" do |provider|
    provider.driver = "qemu"
    provider.cpu_mode = "maximum"
    provider.kernel = "{kernel}"
    provider.initrd = "{initrd}"
    provider.cmd_line = "root=/dev/vda rw quiet mitigations=off nowatchdog module_blacklist=kvm_amd"
    provider.graphics_type = "none"
    provider.memballoon_enabled = false
  end
end
"""
# As a browser would; prints the code and the body. A refusal is an answer too.
ASK = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=120)
except urllib.error.HTTPError as refusal:
    answer = refusal
print(answer.status, answer.read().decode())
"""
# Whether this computer, from its address $1, can connect to port $3 of $2 within some seconds.
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[2], int(sys.argv[3])), timeout=10, source_address=(sys.argv[1], 0)).close()
    print("open")
except OSError as error:
    print(f"closed: {error}")
"""
# A lab as its learner runs it, in an ordinary user's control groups. PSI is not in the kernel that the stored outputs
# are from.
REPLAY = r"""
import sys
from pathlib import Path
from labkit.course.commands import systemd_scope as scope
scope.enter()
from labkit.course.authoring.replay import replay
course = Path.home() / "labkit"
(notebook,) = (course / "tests/notebooks/solved").glob("09_*.ipynb")
sanitize = Path("/tmp/sanitize.cfg")
psi = "\n[psi]\nregex: some avg10=.*\\nfull avg10=.*\nreplace: This kernel has no PSI.\n"
sanitize.write_text((course / "tests/notebooks/sanitize.cfg").read_text() + psi)
done = replay(notebook, folder=course / "labs", sanitize=sanitize, seconds_per_cell=300)
print(done.text)
sys.exit(done.exit_code)
"""


class Machine:
    """One machine of the Vagrantfile's, and the Vagrant that made it."""

    def __init__(self, place: Place, box_name: str) -> None:
        self.place = place
        self.settings = {
            "VAGRANT_HOME": str(place.scratch / "vagrant"),
            "VAGRANT_DOTFILE_PATH": str(place.scratch / "dot"),
            "VAGRANT_DEFAULT_PROVIDER": "libvirt",
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "LABKIT_BOX": box_name,
            "LABKIT_PORT": str(PORT),
            "LABKIT_MEMORY": "1536",
        }
        self.said = ""  #: by `vagrant up`

    def vagrant(self, *words: str, fails: bool = False, before: tuple[str, ...] = ()) -> str:
        """Run Vagrant, and return what it says, without its colours."""
        done = self.place.run(*before, "vagrant", *words, cwd=state_folder.checkout(), env=self.settings, timeout=1500)
        said = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", done.stdout)
        assert (done.returncode != 0) is fails, f"vagrant {' '.join(words)} ended with {done.returncode}:\n{said}"
        return said

    def ssh(self, command: str) -> str:
        """Run a command in the machine as its user, and return what it prints."""
        return self.vagrant("ssh", "--no-tty", "-c", command)

    def ask(self, path: str) -> tuple[int, str]:
        """What is answered at the port that Vagrant forwards."""
        done = self.place.run(
            sys.executable, "-I", "-c", ASK, f"http://127.0.0.1:{PORT}{path}", cwd=Path("/"), timeout=150
        )
        assert done.returncode == 0, done.stdout
        code, _, body = done.stdout.partition(" ")
        return int(code), body

    @property
    def token(self) -> str:
        """The one in the address that `vagrant up` printed last."""
        found = re.findall(rf"In a browser: http://127\.0\.0\.1:{PORT}/\?token=([0-9a-f]{{48}})\n", self.said)
        assert found, self.said
        return str(found[-1])


def traces() -> list[str]:
    """What libvirt would leave on this machine itself: links, users, folders, mounts over the machine's own."""
    links = [path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith(("virbr", "vnet"))]
    users = [line for line in Path("/etc/passwd").read_text().splitlines() if line.startswith("libvirt-qemu:")]
    folders = [name for name in ("/etc/libvirt", "/var/lib/libvirt/images", "/run/libvirt") if Path(name).exists()]
    mounts = [mount.mount_point for mount in procfs.mountinfo() if mount.mount_point in ("/etc", "/var", "/run")]
    return [*links, *users, *folders, *mounts]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("vagrant")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def empty(scratch: Path) -> Iterator[Machine]:
    """A place with Vagrant, which has the box, and no machine yet. At its end nothing is left of it."""
    need_root()
    need_vagrant()
    for command in ("libvirtd", "dnsmasq", "iptables", "mmdebstrap", "qemu-img", "rsync", "tini-static"):
        need_command(command)
    before = traces()
    built = box.build()
    with Place(scratch) as place:
        machine = Machine(place, box.NAME)
        home = scratch / "vagrant"
        home.mkdir()
        (home / "Vagrantfile").write_text(SETTINGS.format(kernel=built.kernel, initrd=built.initrd))
        machine.vagrant("box", "add", "--name", box.NAME, str(built.file))
        yield machine
    assert Traces(scratch).processes() == []
    assert traces() == before


@pytest.fixture(scope="module")
def machine(empty: Machine) -> Machine:
    """`vagrant up` has ended well."""
    empty.said = empty.vagrant("up")
    return empty


def test_a_port_in_use_is_said_before_anything_is_made(empty: Machine) -> None:
    listen = "import socket, subprocess, sys; held = socket.create_server(('127.0.0.1', int(sys.argv[1])))"
    listen += "; sys.exit(subprocess.call(sys.argv[2:]))"
    said = empty.vagrant("up", before=(sys.executable, "-I", "-c", listen, str(PORT)), fails=True)
    assert f"Port {PORT} of this computer is in use. Take another: set LABKIT_PORT=9000" in said
    assert "not created" in empty.vagrant("status")


def test_up_ends_with_all_that_labs_need_and_an_address(machine: Machine) -> None:
    said = machine.said
    assert "Installing uidmap" in said  # by apt: no box has everything
    for row in (
        "namespaces",
        "user namespaces",
        "subordinate ids",
        "overlay",
        "cgroup controllers",
        "root filesystems",
    ):
        assert re.search(rf"│ {row} +│ yes ", said), f"{row}:\n{said}"
    for controller in ("cpu", "memory", "pids", "io"):
        assert re.search(rf"│ cgroup controllers │ yes[^\n]*\b{controller}\b", said), said
    assert re.findall(r"│ \d\d  │[^│]*│ no ", said) == []
    assert machine.token


def test_jupyterlab_is_at_that_address(machine: Machine) -> None:
    code, page = machine.ask(f"/?token={machine.token}")
    assert code == 200 and "JupyterLab" in page
    code, status = machine.ask(f"/api/status?token={machine.token}")
    assert code == 200 and json.loads(status)["kernels"] == 0
    assert machine.ask("/api/status")[0] == 403
    assert machine.ask("/api/status?token=0000")[0] == 403


def test_nobody_else_reaches_it(machine: Machine) -> None:
    """This computer listens on 127.0.0.1 only; the machine answers on its first card's own network only."""
    run = machine.place.run
    listening = run("ss", "-tlnH", f"sport = :{PORT}", cwd=Path("/")).stdout.split()
    assert f"127.0.0.1:{PORT}" in listening and len([word for word in listening if word.endswith(f":{PORT}")]) == 1
    inside = machine.ssh("ss -tlnH '( sport = :8888 or sport = :18888 )'; hostname -I").split()
    assert "127.0.0.1:8888" in inside and "0.0.0.0:8888" not in inside and "0.0.0.0:18888" in inside
    address = next(word for word in inside if word.startswith("192.168.121."))
    assert run("ip", "address", "add", "10.99.0.1/32", "dev", "virbr0", cwd=Path("/")).returncode == 0

    def connect(source: str, port: int) -> str:
        return run(sys.executable, "-I", "-c", CONNECT, source, address, str(port), cwd=Path("/")).stdout

    assert connect("192.168.121.1", 18888) == "open\n"
    assert connect("10.99.0.1", 22) == "open\n"  # there is a way from there
    assert connect("10.99.0.1", 18888) == "closed: timed out\n"
    assert connect("192.168.121.1", 8888).startswith("closed: ")


def test_the_service_is_the_users_own_and_begins_with_the_machine(machine: Machine) -> None:
    said = machine.ssh(
        "export XDG_RUNTIME_DIR=/run/user/$(id -u); stat -c '%a %U' labkit/.lab/service/token;"
        "systemctl --user is-enabled labkit.service; ls /var/lib/systemd/linger;"
        "stat -c '%U' /proc/$(systemctl --user show -P MainPID labkit.service); id -nG; labkit/lab --no-browser"
    ).splitlines()
    assert said[:4] == ["600 vagrant", "enabled", "vagrant", "vagrant"]
    assert "kvm" in said[4].split()
    assert said[5] == f"The course is open. In a browser: http://127.0.0.1:{PORT}/?token={machine.token}"


def test_lab_09_gives_what_it_gave(machine: Machine) -> None:
    """The one that needs most of the machine: an ordinary user's control groups, with all that systemd hands over."""
    (machine.place.scratch / "home/replay.py").write_text(REPLAY)
    machine.vagrant("upload", str(machine.place.scratch / "home/replay.py"), "/tmp/replay.py")
    machine.ssh("cd labkit/labs && PYTHONPATH=$HOME/labkit ../.venv/bin/python -P /tmp/replay.py")


def test_the_doctors_no_ends_provisioning(machine: Machine) -> None:
    machine.ssh("sudo sed -i /vagrant/d /etc/subuid")
    said = machine.vagrant("provision", "--provision-with", "course", fails=True)
    assert "it lacks subordinate ids (none" in said
    assert "the doctor found that labs cannot run on this machine" in said


def test_provisioning_again_mends_what_is_amiss_and_keeps_all_else(machine: Machine) -> None:
    look = "systemctl --user show -P MainPID labkit.service; tail -n 1 labkit/labs/05_uts.ipynb labkit/README.md"
    machine.ssh("echo mine >> labkit/labs/05_uts.ipynb; echo mine >> labkit/README.md")
    before = machine.ssh(look)
    token = machine.token
    said = machine.said = machine.vagrant("provision")
    assert machine.token == token
    assert machine.ssh(look) == before and before.count("mine") == 2
    assert "Installing" not in said and "Setting up" not in said
    assert re.search(r"│ subordinate ids +│ yes ", said), said


def test_destroy_leaves_nothing(machine: Machine) -> None:
    machine.vagrant("destroy", "-f")
    assert "not created" in machine.vagrant("status")
    running = machine.place.run("ps", "-e", "-o", "comm=", cwd=Path("/")).stdout.split()
    assert not {"qemu-system-x86", "ssh"} & set(running), running
    links = [line.split()[1] for line in machine.place.run("ip", "-o", "link", cwd=Path("/")).stdout.splitlines()]
    assert not [link for link in links if link.startswith("vnet")], links  # the network itself is libvirt's to keep
    images = [path.name for path in (machine.place.scratch / "libvirt/images").iterdir()]
    assert len(images) == 1 and "box" in images[0], images  # the box's own, which the next machine begins with
