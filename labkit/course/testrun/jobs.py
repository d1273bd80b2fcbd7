"""How a run is divided: a job is what one process runs, such as a few files of tests."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.course.testrun import covered
from labkit.course.testrun.lanes import PROGRAMS, programs

# Seconds on two cores with other jobs beside it, for the order (the longest begin first) and for what goes together.
# What is missing takes _USUAL. No result depends on them.
SECONDS: dict[str, int] = {
    "types/mypy": 30,
    "kernel/test_bench.py": 25,
    "kernel/test_container.py": 20,
    "kernel/test_escapes.py": 30,
    "kernel/test_faults.py": 25,
    "kernel/test_grading_command.py": 63,
    "kernel/test_grading_judge.py": 80,
    "kernel/test_grading_replay.py": 166,
    "kernel/test_grading_room.py": 20,
    "kernel/test_kvm.py": 15,
    "kernel/test_lab_noise.py": 20,
    "kernel/test_network.py": 25,
    "kernel/test_overlay.py": 25,
    "kernel/test_ports.py": 20,
    "kernel/test_scale.py": 20,
    "kernel/test_servers.py": 20,
    "notebooks/test_cheats.py": 40,
    "notebooks/test_exercises.py": 60,
    "notebooks/test_grading_attacks.py": 145,
    "notebooks/test_grading_class.py": 142,
    "notebooks/test_hidden.py": 20,
    "notebooks/test_in_rooms.py": 97,
    "notebooks/test_lab01.py": 84,
    "notebooks/test_lab02.py": 20,
    "notebooks/test_lab03.py": 40,
    "notebooks/test_lab04.py": 30,
    "notebooks/test_lab05.py": 40,
    "notebooks/test_lab06.py": 30,
    "notebooks/test_lab07.py": 30,
    "notebooks/test_lab08.py": 25,
    "notebooks/test_lab10.py": 100,
    "notebooks/test_lab11.py": 20,
    "notebooks/test_lab12.py": 84,
    "notebooks/test_replay.py": 69,
    "notebooks/test_shares.py": 20,
    "notebooks/test_solved.py": 203,
    "browser/test_figures.py": 120,
    "browser/test_grading_pages.py": 20,
    "browser/test_lab_in_browser.py": 300,
    "vm/test_cgroups.py": 181,
    "vm/test_command.py": 35,
    "vm/test_compare.py": 25,
    "vm/test_computer.py": 50,
    "vm/test_confined.py": 20,
    "vm/test_jupyterlab.py": 20,
    "vm/test_kinds.py": 20,
    "vm/test_lab_checks.py": 500,
    "vm/test_labs.py": 330,
    "vm/test_network.py": 25,
    "vm/test_overlay.py": 30,
    "vm/test_rooms.py": 68,
    "vm/test_scope.py": 30,
    "vm/test_streams.py": 5,
    "vm/test_vmlinux.py": 5,
}
_USUAL = 12
_TOGETHER = 60  # a process of pytest takes two seconds to begin: short files share one

#: The fastest of each lane, for `./lab test --quick`.
QUICK = {
    "kernel": ("test_capabilities.py", "test_container.py", "test_namespaces.py", "test_process.py"),
    "cgroups": ("test_groups.py",),
    "notebooks": ("test_lab05.py",),
    "browser": ("test_grading_pages.py",),
    "vm": ("test_streams.py",),
}
#: Files whose tests keep two processors busy by themselves: machines side by side, a class graded by two workers.
TWO_AT_ONCE = {
    "notebooks/test_grading_attacks.py",
    "notebooks/test_grading_class.py",
    "vm/test_cgroups.py",
    "vm/test_labs.py",
    "vm/test_vagrant.py",
}
#: Files whose tests need the machine's own network: a Debian archive, from which a machine is built.
NETWORK = {"vm/test_vagrant.py"}


@dataclass(frozen=True)
class Job:
    """Arguments of pytest, or a command of a lane of programs."""

    lane: str
    name: str
    arguments: tuple[str, ...]
    seconds: int = _USUAL
    network: bool = False
    weight: int = 1  #: how many jobs it is worth
    python: bool = True  #: False: `arguments` is a command by itself

    def of(self, tests: Sequence[str]) -> "Job":
        """The same, of these tests only."""
        return dataclasses.replace(self, arguments=tuple(tests))


def of_lane(lane: str, checkout: Path, *, quick: bool = False, long: bool = False) -> list[Job]:
    """The jobs of a lane: of the quick, the ordinary or the long run."""
    if lane in PROGRAMS:
        commands = programs(lane, checkout)
        return [Job(lane, Path(argv[0]).name, tuple(argv), _seconds(f"{lane}/{Path(argv[0]).name}"), python=False)
                for argv in commands]  # fmt: skip
    folder = checkout / "tests" / lane
    files = [f"{lane}/{path.relative_to(folder)}" for path in sorted(folder.rglob("test_*.py"))]
    if quick and lane in QUICK:
        files = [file for file in files if file.removeprefix(f"{lane}/") in QUICK[lane]]
    if not long:
        files = [file for file in files if not covered.unchanged(file, checkout)]
    return of_files(files)


def of_files(files: Iterable[str]) -> list[Job]:
    """Jobs of files of tests, given as `lane/test_name.py`; short ones of one lane together."""
    jobs: list[Job] = []
    waiting: dict[str, list[str]] = {}
    for file in files:
        lane = file.partition("/")[0]
        if file in NETWORK or _seconds(file) >= _TOGETHER:
            jobs.append(_job(lane, [file]))
            continue
        together = waiting.setdefault(lane, [])
        together.append(file)
        if sum(map(_seconds, together)) >= _TOGETHER:
            jobs.append(_job(lane, waiting.pop(lane)))
    jobs += [_job(lane, together) for lane, together in waiting.items()]
    return jobs


def of_tests(tests: Iterable[str]) -> list[Job]:
    """A job for each file that has some of `tests`, which are pytest's names: `tests/lane/test_name.py::test`."""
    by_file: dict[str, list[str]] = {}
    for test in tests:
        by_file.setdefault(test.partition("::")[0], []).append(test)
    jobs = []
    for path, chosen in by_file.items():
        file = path.removeprefix("tests/")
        jobs.append(dataclasses.replace(_job(file.partition("/")[0], [file]), arguments=tuple(chosen)))
    return jobs


def _job(lane: str, files: Sequence[str]) -> Job:
    names = [Path(file).stem.removeprefix("test_") for file in files]
    name = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]} ({len(names)} files)"
    network = any(file in NETWORK for file in files)
    weight = 2 if any(file in TWO_AT_ONCE for file in files) else 1
    return Job(lane, name, tuple(f"tests/{file}" for file in files), sum(map(_seconds, files)), network, weight)


def _seconds(file: str) -> int:
    return SECONDS.get(file, _USUAL)
