"""The tests of `tests/cgroups` in a virtual machine, where there are controllers whatever this machine has.

Once as root and once as an ordinary user with a delegated group, in User Mode Linux; what that lacks (cpuset,
pressure) in QEMU. Each of them counts here: none may be skipped but for the reasons below.
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from labkit import vm
from labkit.files import state_folder
from tests.requirements import MACHINE_CANNOT
from tests.vm.conftest import require
from tests.vm.inside import asked_for
from tests.vm.test_labs import others_may_read

pytestmark = pytest.mark.timeout(900)

TESTS = Path(__file__).parent.parent
FOLDER = TESTS / "cgroups"


class Machine(NamedTuple):
    """A machine that the tests run in, and what may be skipped there."""

    kind: str
    user: str | None
    tests: tuple[str, ...]
    may_lack: tuple[str, ...]


ALL = tuple(sorted(path.name for path in FOLDER.glob("test_*.py")))
MACHINES = {
    "uml as root": Machine("uml", None, ALL, ("limit with the cpuset controller", "measure pressure")),
    "uml as nobody": Machine("uml", "nobody", ALL, ("limit with the cpuset controller", "measure pressure", "be root")),
    "qemu as root": Machine("qemu", None, ("test_events.py::test_pressure", "test_limits.py::test_processors"), ()),
}


def _names(file: str) -> list[str]:
    tree = ast.parse((FOLDER / file).read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def _chosen(machine: Machine) -> list[str]:
    """The tests of a machine, as "file::function"."""
    every = [f"{file}::{name}" for file in ALL for name in _names(file)]
    return [test for test in every if test.startswith(machine.tests)]


CASES = [(name, test) for name, machine in MACHINES.items() for test in _chosen(machine)]


def run(machine: Machine, tests: Sequence[str]) -> dict[str, list[ElementTree.Element]]:
    """Run `tests` in it; the cases of each test from the JUnit report, which comes back as its output."""
    python, report = sys.executable, "/tmp/report.xml"
    chosen = " ".join(f"'{FOLDER / test}'" for test in tests)
    pytest_there = f"{python} -P -m pytest -q -p no:cacheprovider --timeout=300 --junitxml={report} {chosen}"
    done = vm.run(
        ["sh", "-c", f"{pytest_there} >&2; cat {report}"],
        kind=machine.kind,
        cwd=state_folder.checkout() / "tests",
        env={
            "PYTHONPATH": str(state_folder.checkout()),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LABKIT_STATE": str(state_folder.state()),
            "LABKIT_NO_SKIPS": "1",
            "HOME": "/tmp",
        },
        user=machine.user,
        memory_mib=1024,
        capture=True,
        timeout=800,
    )
    assert done.stdout, f"no report: {done.stderr[-2000:]}"
    found: dict[str, list[ElementTree.Element]] = {}
    for case in ElementTree.fromstring(done.stdout).iter("testcase"):
        file = case.get("classname", "").rpartition(".")[2]
        found.setdefault(f"{file}.py::{case.get('name', '').partition('[')[0]}", []).append(case)
    return found


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[dict[str, list[ElementTree.Element]]]]]:
    """Every machine, one after the other beside the tests that read what the first have said."""
    require("uml")
    readable = others_may_read(state_folder.checkout(), Path(sys.prefix))
    pairs = list(zip(asked_for(request, "machine"), asked_for(request, "test"), strict=True))
    wanted = {name: [test for at, test in pairs if at == name] for name, _ in pairs}
    with ThreadPoolExecutor(2) as pool:
        yield {
            name: pool.submit(run, machine, wanted[name])
            for name, machine in MACHINES.items()
            if name in wanted and (machine.user is None or readable) and vm.kinds()[machine.kind] is None
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize(("machine", "test"), CASES, ids=[f"{test} in {machine}" for machine, test in CASES])
def test_control_groups(machine: str, test: str, runs: dict[str, Future[dict[str, list[ElementTree.Element]]]]) -> None:
    if machine not in runs:
        require(MACHINES[machine].kind)
        pytest.skip("other users cannot read this checkout, or its Python")
    cases = runs[machine].result().get(test)
    assert cases, "it was not run"
    for case in cases:
        for outcome in ("failure", "error"):
            if (problem := case.find(outcome)) is not None:
                pytest.fail(f"{case.get('name')}: {problem.get('message')}\n{problem.text}", pytrace=False)
    skipped = [case.find("skipped") for case in cases]
    reasons = [skip.get("message", "") for skip in skipped if skip is not None]
    allowed = tuple(MACHINE_CANNOT + reason for reason in MACHINES[machine].may_lack)
    assert [reason for reason in reasons if not reason.startswith(allowed or "\0")] == []
    if reasons:
        pytest.skip(reasons[0])
