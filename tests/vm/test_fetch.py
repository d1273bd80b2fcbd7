"""What `./lab setup` fetches beforehand: kernels for guests, so that nothing has to be fetched when one is started."""

from pathlib import Path

import pytest

from labkit import paths
from labkit.errors import LabkitError, Unsupported
from labkit.vm import fetch, kernels
from tests.requirements import need_command


def test_the_guests_kernel_is_there_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_command("apt-get")
    need_command("qemu-system-x86_64")
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path))
    assert fetch.fetch() == {}
    kernel = kernels.linux(fetch=False)
    assert kernel is not None and kernel.image.is_file()
    assert paths.state() == tmp_path and not list(tmp_path.rglob("unpack-*"))


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
