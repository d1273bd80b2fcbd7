"""What can run here is found by booting it: once, remembered, and with the other kind where the first does not boot."""

import os
from pathlib import Path

import pytest

from labkit import vm
from labkit.errors import Unsupported
from labkit.vm import kernels, qemu, trial, uml
from tests.vm.conftest import Traces, require

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def own_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What trials find here is not remembered for others."""
    record = tmp_path / "trials.json"
    monkeypatch.setattr(trial, "_record", lambda: record)
    return record


def no_boot(*_: object) -> None:
    raise AssertionError("a machine was booted")


def broken(tmp_path: Path) -> Path:
    """A program that is installed, and does not boot: User Mode Linux as it comes, where the processor stops that."""
    installed = kernels.uml(fetch=False)
    if installed and "amx_tile" in Path("/proc/cpuinfo").read_text(errors="replace"):
        return installed.image
    program = tmp_path / "linux.uml"
    program.write_text("#!/bin/sh\necho userspace - ptrace set fp regs failed, errno = 14\nexit 1\n")
    program.chmod(0o755)
    return program


def test_a_kind_is_tried_once(own_record: Path, monkeypatch: pytest.MonkeyPatch, traces: Traces) -> None:
    require("uml")
    own_record.unlink()
    assert trial.known(uml) is None
    first = trial.of(uml)
    assert first.why == "" and first.seconds > 0
    monkeypatch.setattr(trial, "Machine", no_boot)
    assert trial.of(uml).seconds == first.seconds
    assert vm.offer() == "uml"
    # Another processor, another kernel, or a record that is none: it is tried anew.
    with monkeypatch.context() as other:
        other.setattr(trial, "_processor", lambda: "another one")
        assert trial.known(uml) is None
    own_record.write_text("{")
    assert trial.known(uml) is None


def test_what_does_not_boot_is_no_machine_and_the_next_kind_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traces: Traces, capfd: pytest.CaptureFixture[str]
) -> None:
    require("qemu")
    program = broken(tmp_path)
    monkeypatch.setattr(uml, "program", lambda installed: program)
    lack = vm.kinds()["uml"]
    assert isinstance(lack, Unsupported)
    assert "a trial boot of uml failed" in str(lack)
    assert "ptrace set fp regs failed, errno = 14" in str(lack)
    with pytest.raises(Unsupported, match="trial boot"):
        vm.run(["true"], kind="uml")
    done = vm.run(["uname", "-r"], capture=True, timeout=300)
    assert done.exit_code == 0
    assert done.stdout != os.uname().release + "\n"
    told = capfd.readouterr().err
    # Where the processor itself runs QEMU's guests, nobody waits for them.
    assert ("QEMU imitates a computer" in told) == (not qemu.accelerated()), told


def test_a_failure_holds_until_the_machine_is_booted_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("uml")
    program = tmp_path / "linux.uml"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(uml, "program", lambda installed: program)
    assert trial.of(uml).why
    monkeypatch.setattr(trial, "Machine", no_boot)
    assert trial.of(uml).why
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, **how: "another\n" if path.name == "boot_id" else read(path, **how)
    )
    assert trial.known(uml) is None
