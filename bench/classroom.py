"""A class graded by `./lab grade`: honest learners, and among them five of whom each does harm in another way.

All hand in lab 05 as the course solves it; a hostile one has code in the place of its first exercise. A round is one
grading, and is wrong, which ends the benchmark, unless each honest learner has all points, each hostile one has none
for what it spoilt, and nothing is the machine's fault.

How long a notebook took the command says itself as it ends; with that and the time of day it is known what was graded
beside what. Three kinds of honest notebooks are told apart: graded alone (one at a time, no hostile one in the class),
beside honest ones, and beside a hostile one for more than half of their time.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

from bench.sampling import Row, quartiles
from labkit.course import exercise_spec
from labkit.course.authoring import release
from labkit.course.grading.report import store
from labkit.course.grading.results import Result
from labkit.course.source import lab_source
from labkit.errors import LabkitError
from labkit.files import state_folder

LAB, SPOILT = "05", "isolate"
HONEST, ALONE = 50, 6
BESIDE = 0.5  # of its time

_MEMORY = """
import os
def isolate(hostname):
    kept = []
    while True:
        kept.append(os.memfd_create("x"))
        os.write(kept[-1], bytes(16 << 20))
"""
_CHILDREN = """
import os, signal
def isolate(hostname):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        try:
            if os.fork() == 0:
                for _ in range(300000): pass
                os._exit(0)
        except OSError: pass
"""
_DESCRIPTORS = """
import array, socket, time
def isolate(hostname):
    kept = []
    try:
        while True:
            kept += socket.socketpair()
            for _ in range(20):
                kept[-1].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 50))])
            kept[-1].setblocking(False)
            while True: kept[-1].send(bytes(100000))
    except OSError: pass
    time.sleep(1000)
"""
_FORGER = """
import json, os, signal
said = json.dumps(["value", ["record", "labkit.course.framework.outcomes:Passed", ["x", "y"]], []]).encode()
verdict = json.dumps([{"outcome": "passed", "seen": "x", "why": "y", "share": 1}]).encode()
def isolate(hostname):
    for fd in range(64):
        for frame in (len(said).to_bytes(8, "little") + said, verdict):
            try: os.write(fd, frame)
            except OSError: pass
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in (1, os.getppid(), *(int(one) for one in os.listdir("/proc") if one.isdigit()), -1):
            if pid != os.getpid():
                try: os.kill(pid, number)
                except OSError: pass
"""
_ENDLESS = """
import signal
def isolate(hostname):
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True: pass
"""
HOSTILE = {
    "memory": _MEMORY,
    "children": _CHILDREN,
    "descriptors": _DESCRIPTORS,
    "forger": _FORGER,
    "endless": _ENDLESS,
}
_ENDED = re.compile(r" *\d+/\d+  (\S+)  lab .*  ([0-9.]+) s\n")


@dataclass(frozen=True)
class Span:
    """When a notebook was graded, in seconds."""

    learner: str
    begun: float
    ended: float

    def share_beside(self, others: Sequence["Span"]) -> float:
        """How much of its time another one of these was being graded as well, at most."""
        beside = [min(self.ended, one.ended) - max(self.begun, one.begun) for one in others]
        return max([0.0, *beside]) / (self.ended - self.begun)


def measure(rounds: int, honest: int = HONEST) -> list[Row]:
    """Rows of seconds for an honest notebook."""
    found: dict[str, list[float]] = {"alone": [], "beside honest ones": [], "beside hostile ones": []}
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="labkit-bench-") as folder:
            spans = graded(Path(folder, "few"), hand_in(Path(folder, "few"), ALONE, {}), jobs=1)
            found["alone"] += [one.ended - one.begun for one in spans]
            spans = graded(Path(folder, "all"), hand_in(Path(folder, "all"), honest, HOSTILE))
        hostile = [one for one in spans if one.learner.endswith(tuple(HOSTILE))]
        for one in spans:
            if one not in hostile:
                kind = "beside hostile ones" if one.share_beside(hostile) > BESIDE else "beside honest ones"
                found[kind].append(one.ended - one.begun)
        taken = max(one.ended for one in spans) - min(one.begun for one in spans)
        said = f"{number + 1} of {rounds}: {honest} honest and {len(hostile)} hostile notebooks as they deserve"
        so_far = ", ".join(f"{kind} {statistics.median(of):.1f} s" for kind, of in found.items() if of)
        print(f"{said}, {taken:.0f} s, load {os.getloadavg()[0]:.1f}; so far {so_far}", file=sys.stderr, flush=True)
    rows = []
    for kind, seconds in found.items():
        if seconds:
            low, median, high = quartiles(seconds)
            ratio = median / statistics.median(found["alone"])
            note = f"{len(seconds)} notebooks, {ratio:.2f} times the one alone"
            rows.append(Row("class", kind, "s", median, low, high, note=note))
    return rows


def hand_in(folder: Path, honest: int, hostile: Mapping[str, str]) -> int:
    """Write a class, in which the hostile ones come at even distances; returns how large it is."""
    names = [f"{number:03}" for number in range(honest + len(hostile))]
    every = len(names) // max(1, len(hostile))
    bad = dict(zip(names[every // 2 :: every], hostile, strict=False)) if hostile else {}
    md = lab_source.path_of(LAB)
    for name in names:
        notebook = release.build(md, solved=False)
        answers = {one.exercise.name: one.solved for one in exercise_spec.all_of(LAB)}
        if name in bad:
            answers[SPOILT] = hostile[bad[name]]
        for cell in notebook.cells:
            cell.source = answers.get(cell.metadata.get("labkit", {}).get("exercise"), cell.source)
        learner = folder / "handed-in" / f"{name}-{bad.get(name, 'honest')}"
        learner.mkdir(parents=True)
        nbformat.write(notebook, learner / f"{md.stem}.ipynb")  # type: ignore[no-untyped-call]
    return len(names)


def graded(folder: Path, size: int, jobs: int = 0) -> list[Span]:
    """Grade the class in a folder by the command, and check it. `LabkitError`: somebody has not got what is theirs."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "labkit.course",
        "grade",
        "--no-replay",
        "--jobs",
        f"{jobs}",
        "--seed",
        "bench",
    ]
    environment = os.environ | {"PYTHONPATH": str(state_folder.checkout())}
    argv = [*command, "--out", str(folder / "graded"), str(folder / "handed-in")]
    spans = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as grading:
        assert grading.stdout
        for line in grading.stdout:
            if match := _ENDED.fullmatch(line):
                now = time.monotonic()
                spans.append(Span(match[1], now - float(match[2]), now))
    wrong = [text for result in store.read(folder / "graded") for text in undeserved(result)]
    if grading.returncode or len(spans) != size or wrong:
        raise LabkitError(f"exit code {grading.returncode}, {len(spans)} of {size} graded; {'; '.join(wrong)}")
    return spans


def undeserved(result: Result) -> list[str]:
    """What somebody has got that is not theirs, or has not got that is."""
    hostile = result.learner.endswith(tuple(HOSTILE))
    wrong = [f"{result.learner}: {result.refused}"] if result.refused or not result.exercises else []
    for one in result.exercises:
        wanted = "not yet" if hostile and one.name == SPOILT else "passed"
        if one.judged.outcome != wanted:
            wrong.append(f"{result.learner}, {one.name}: {one.judged.outcome}, {one.judged.seen} {one.judged.trace}")
    return wrong
