"""What is measured of process, container and guest is measured, drawn and kept; the figures themselves are nobody's."""

from pathlib import Path

import pytest

from labkit import host, vm
from labkit.course.experiments import costs as compare
from labkit.course.experiments import notebook_vm
from labkit.course.experiments.costs import Costs
from labkit.files import state_folder
from tests.vm.conftest import require

pytestmark = pytest.mark.timeout(300)

COSTS = Costs("a machine", False, {"process": 1.0, "guest": None}, {"process": 5.0}, {"process": 100.0}, None)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = state_folder.state().resolve()
    for name in ("rootfs", "vm"):
        if (built / name).is_dir():
            (tmp_path / name).symlink_to(built / name)
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path))


def test_everything_is_measured(computer: vm.Computer, capsys: pytest.CaptureFixture[str]) -> None:
    costs = compare.measure(computer)
    host.reset()
    for figures in (costs.start_msec, costs.memory_kib):
        assert list(figures) == ["process", "container", "guest"]
        assert all(value and value > 0 for value in figures.values())
    assert list(costs.call_nsec) == ["process", "container", "guest"]
    assert costs.accelerated == computer.kvm
    compare.draw(costs)
    shown = capsys.readouterr().out
    assert shown.count(costs.machine) == 3
    assert ("KVM" in shown) and "exit of a guest" in shown
    compare.keep("here", costs)
    compare.keep("there", COSTS)
    assert compare.kept() == {"here": costs, "there": COSTS}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 1, "kept": []}', '{"version": 1, "kept": {"x": {"machine": ""}}}']
)
def test_a_file_that_cannot_be_understood_is_as_good_as_none(text: str) -> None:
    (state_folder.state() / "costs.json").write_text(text)
    assert compare.kept() == {}
    compare.keep("here", COSTS)
    assert compare.kept() == {"here": COSTS}


def test_what_cannot_be_written_costs_the_record_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "file"))
    compare.keep("here", COSTS)
    assert "cannot be kept" in capsys.readouterr().out


def test_one_guest_for_a_lab_and_another_after_its_end() -> None:
    require("qemu")
    one = notebook_vm.guest(128)
    seen: list[object] = []
    assert notebook_vm.guest(128, watch=seen.append) is one
    assert seen == [one]
    one.kill()
    other = notebook_vm.guest(128)
    assert other is not one
    assert other.run("echo here").output == "here\n"
    notebook_vm.end()
    assert not other.alive
    notebook_vm.end()
