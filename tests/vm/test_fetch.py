"""What `./lab setup` fetches beforehand: kernels for guests, so that nothing has to be fetched when one is started."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from labkit.errors import LabkitError, Unsupported
from labkit.files import state_folder
from labkit.vm import fetch, kernels
from tests.requirements import need_command

RELEASE = "9.9.0-test"
APT = """
APT::Sandbox::User "root";
Acquire::Languages "none";
Dir::Etc::sourcelist "{0}/sources.list";
Dir::Etc::sourceparts "-";
Dir::State "{0}/state";
Dir::Cache "{0}/cache";
"""


def package(archive: Path, name: str, depends: str = "", files: dict[str, str] | None = None) -> str:
    """Build a Debian package in the folder `archive`; its entry in the archive's index."""
    tree = archive.parent / "trees" / name
    (tree / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n"
    control += f"Depends: {depends}\n" if depends else ""
    control += "Description: for a test\n"
    (tree / "DEBIAN/control").write_text(control)
    for path, text in (files or {}).items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    file = archive / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, file], check=True, capture_output=True)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return f"{control}Filename: ./{file.name}\nSize: {file.stat().st_size}\nSHA256: {digest}\n\n"


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real apt, and an archive on this disk, in which a kernel is found as in Debian's: no test needs a network."""
    need_command("apt-get")
    folder = tmp_path / "archive"
    folder.mkdir()
    module = {f"lib/modules/{RELEASE}/kernel/fs/9p/9p.ko": "license=GPL" * 100, f"boot/vmlinuz-{RELEASE}": "a kernel"}
    module |= {f"lib/modules/{RELEASE}/kernel/drivers/gpu/large.ko": ""}
    index = package(folder, "linux-image-amd64", f"linux-image-{RELEASE}")
    index += package(folder, f"linux-image-{RELEASE}", files=module)
    (folder / "Packages").write_text(index)
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{folder} ./\n")
    (tmp_path / "apt.conf").write_text(APT.format(tmp_path))
    for place in ("state/lists/partial", "cache/archives/partial"):
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setattr(kernels, "_installed", lambda: Path("/nonexistent"))
    subprocess.run(["apt-get", "-q", "update"], check=True, capture_output=True)
    return folder


def test_the_guests_kernel_is_there_afterwards(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_command("qemu-system-x86_64")
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "course"))
    monkeypatch.setattr(fetch, "WANTED", {"the guest of lab 04": fetch._for_qemu})
    assert fetch.fetch() == {}
    kernel = kernels.linux(fetch=False)
    assert kernel is not None and kernel.image.read_text() == "a kernel"
    assert kernel.modules.is_relative_to(state_folder.state())
    assert (kernel.modules / "modules.dep").exists()
    assert not list(tmp_path.rglob("course/**/large.ko")), "what no guest has a device for is left out"
    assert not list(state_folder.state().rglob("unpack-*"))


def test_a_package_that_is_not_what_the_index_says_is_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_command("qemu-system-x86_64")
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "course"))
    monkeypatch.setattr(fetch, "WANTED", {"the guest of lab 04": fetch._for_qemu})
    with (archive / f"linux-image-{RELEASE}.deb").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    (failure,) = fetch.fetch().values()
    assert "apt-get failed while a kernel was fetched" in failure
    assert kernels.linux(fetch=False) is None
    assert not list(state_folder.state().rglob("unpack-*"))


def test_no_network_is_said_and_what_cannot_boot_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise LabkitError("apt-get failed")

    def never() -> None:
        raise Unsupported("QEMU is not installed", "sudo apt install qemu")

    monkeypatch.setattr(fetch, "WANTED", {"one": never, "two": broken})
    assert fetch.main() == 0  # no lab needs it
    monkeypatch.setattr(fetch, "NEEDED", ("two",))
    assert fetch.main() == 1
    assert capsys.readouterr().err == "lab: two will need the network once more: apt-get failed\n" * 2
    monkeypatch.setattr(fetch, "WANTED", {"one": never})
    assert fetch.main() == 0
    assert not list(tmp_path.iterdir())
