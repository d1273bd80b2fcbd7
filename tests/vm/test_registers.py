"""The registers of guest programs in User Mode Linux: none is lost, by switches of threads or by signals."""

import subprocess
from pathlib import Path

import pytest

from labkit import vm
from labkit.vm import kernels, trial, uml, xstate
from tests.requirements import machine_cannot, need_command
from tests.vm.conftest import Traces, require

pytestmark = pytest.mark.timeout(300)
SOURCE = Path(__file__).parent / "data/registers.c"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_command("cc")
    made = tmp_path_factory.mktemp("registers") / "registers"
    subprocess.run(["cc", "-O1", "-pthread", "-static", "-o", made, SOURCE], check=True)
    return made


def run(program: Path) -> tuple[int, int, int, int]:
    """(width in bytes, checks, lost, signals) of four seconds in a guest."""
    done = vm.run([str(program), "4"], kind="uml", cwd=program.parent, capture=True, timeout=120)
    assert done.exit_code == 0, done.stderr
    width, checks, lost, signals = map(int, done.stdout.split())
    if not width:
        machine_cannot("lose vector registers: its processor has none beyond SSE")
    return width, checks, lost, signals


def test_no_register_is_lost(program: Path, traces: Traces) -> None:
    require("uml")
    _, checks, lost, signals = run(program)
    assert checks > 1000
    assert signals > 20
    assert lost == 0


def test_without_the_correction_of_signal_frames_they_are_lost(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traces: Traces
) -> None:
    """That the test above can fail: with the one length corrected without which nothing boots, and no other."""
    require("uml")
    if not xstate.needed(Path("/proc/cpuinfo").read_text(errors="replace")):
        machine_cannot("lose registers that it has not: its processor has none beyond AVX")
    kernel = kernels.uml(fetch=False)
    assert kernel
    monkeypatch.setattr(xstate, "_LENGTHS", xstate._LENGTHS[:1])
    half = xstate.corrected(kernel.image.read_bytes())
    assert half
    (tmp_path / "linux.uml").write_bytes(half)
    (tmp_path / "linux.uml").chmod(0o755)
    monkeypatch.setattr(uml, "program", lambda installed: tmp_path / "linux.uml")
    monkeypatch.setattr(trial, "_record", lambda: tmp_path / "trials.json")
    for _ in range(6):  # on a busy machine few signals come at the right moment
        width, checks, lost, _ = run(program)
        if lost:
            break
    if width < 64:
        machine_cannot("lose registers in a signal's frame: its processor has none beyond AVX")
    assert 0 < lost < checks
