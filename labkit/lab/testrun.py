"""`./lab test`: runs the tests lane by lane, installs what they need, and counts.

The last line is always `N passed, N failed, N skipped`, alone.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table

from labkit import paths
from labkit.errors import LabkitError
from labkit.lab import setup, setup_debian, setup_log, setup_venv
from labkit.lab.servers import trees

LANES = {
    "lint": "ruff, shellcheck, the workflows' schema",
    "types": "mypy --strict",
    "unit": "what needs no kernel feature",
    "kernel": "namespaces, mounts, containers, the lab host",
    "cgroups": "control groups, where this machine has controllers (the vm lane runs them in any case)",
    "notebooks": "every solved lab, twice, against its stored outputs; every check",
    "browser": "JupyterLab as a learner sees it",
    "vm": "virtual machines, and the labs in one",
}
STARTS_SERVERS = {"kernel", "notebooks", "vm", "browser"}  # those lanes need the servers' root filesystems
LANE_SECONDS = 3600
NO_SKIPS = "LABKIT_NO_SKIPS"
# A skip with this at its start stays one: the machine, not the installation, lacks something.
MACHINE_CANNOT = "this machine cannot: "
NO_TESTS_RUN = 5  # pytest's exit code


@dataclass
class Result:
    """What one lane did. `complaints` are failures that no single test stands for."""

    lane: str
    passed: int = 0
    failed: int = 0
    skips: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def skipped(self) -> int:
        return self.skips.total()


def checks(lane: str, checkout: Path) -> list[list[str]]:
    """The programs of a lane that is not pytest's; each passes or fails."""
    programs = Path(sys.executable).parent
    if lane == "types":
        return [[str(programs / "mypy")]]
    ruff, shellcheck = str(programs / "ruff"), str(programs / "shellcheck")
    schema, workflows = str(programs / "check-jsonschema"), sorted((checkout / ".github/workflows").glob("*.yml"))
    shells = (".ci/*", ".devcontainer/*.sh", "labkit/lab/reference/*.sh")
    scripts = [path for pattern in shells for path in sorted(checkout.glob(pattern))]
    return [
        [ruff, "check", "--quiet", "."],
        [ruff, "format", "--check", "--quiet", "."],
        [shellcheck, "lab", *(str(path.relative_to(checkout)) for path in scripts)],
        [schema, "--quiet", "--builtin-schema", "vendor.github-workflows", *map(str, workflows)],
    ]


def run_checks(lane: str, checkout: Path) -> Result:
    """Runs a lane of programs."""
    result = Result(lane)
    for argv in checks(lane, checkout):
        name = " ".join([Path(argv[0]).name, *argv[1:]])
        try:
            code = subprocess.run(argv, cwd=checkout, timeout=LANE_SECONDS).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            result.failed += 1
            result.complaints.append(f"{name}: {error}")
            continue
        if code == 0:
            result.passed += 1
        else:
            result.failed += 1
            result.complaints.append(f"{name} ended with exit code {code}")
    return result


def run_pytest(lane: str, checkout: Path, folder: Path, extra: Sequence[str], strict: bool) -> Result:
    """Runs a folder of tests; the counts come from the report that pytest writes, not from what it prints."""
    tests, report = checkout / "tests" / lane, folder / f"{lane}.xml"
    if not any(tests.rglob("test_*.py")):
        return Result(lane, failed=1, complaints=[f"there are no tests in {tests}"])
    folder.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    argv = [sys.executable, "-P", "-m", "pytest", str(tests), "-q", f"--junitxml={report}", *extra]
    environment = dict(os.environ) | ({NO_SKIPS: "1"} if strict else {})
    try:
        code = subprocess.run(argv, cwd=checkout, env=environment, timeout=LANE_SECONDS).returncode
    except subprocess.TimeoutExpired:
        return Result(lane, failed=1, complaints=[f"not done after {LANE_SECONDS} s"])
    return judge(lane, code, report, strict)


def judge(lane: str, code: int, report: Path, strict: bool) -> Result:
    """Counts a lane from pytest's exit code and its JUnit report. With `strict`, an avoidable skip is a failure."""
    result = Result(lane)
    try:
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        result.failed = 1
        result.complaints.append(f"pytest ended with exit code {code} and wrote no report")
        return result
    for case in cases:
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            result.failed += 1
        elif skip is None:
            result.passed += 1
        else:
            reason = (skip.get("message") or "no reason given").strip()
            if strict and not reason.startswith(MACHINE_CANNOT):
                result.failed += 1
                result.complaints.append(f"{case.get('classname')}.{case.get('name')} was skipped: {reason}")
            else:
                result.skips[reason] += 1
    if not cases:
        result.failed += 1
        result.complaints.append("ran no test")
    elif code not in (0, NO_TESTS_RUN) and result.failed == 0:
        result.failed += 1
        result.complaints.append(f"pytest ended with exit code {code}")
    return result


def closing_line(results: Sequence[Result]) -> str:
    passed, failed, skipped = (
        sum(getattr(result, what) for result in results) for what in ("passed", "failed", "skipped")
    )
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def summary(results: Sequence[Result]) -> Table:
    table = Table("lane", "passed", "failed", "skipped", "seconds")
    for result in results:
        failed = f"[red]{result.failed}[/]" if result.failed else "0"
        table.add_row(result.lane, str(result.passed), failed, str(result.skipped), f"{result.seconds:.0f}")
    return table


def install(checkout: Path, state: Path, lanes: Sequence[str]) -> None:
    """Installs what the tests of these lanes need: Python packages into the environment, Debian packages where it may.

    Raises:
        setup_log.SetupError: the Python packages cannot be installed.
    """
    venv = Path(sys.prefix)
    stamp = venv / "labkit-test-stamp"
    wanted = hashlib.sha256((checkout / "pyproject.toml").read_bytes()).hexdigest()
    missing = setup_debian.missing_packages(setup_debian.test_packages())
    current = stamp.exists() and stamp.read_text() == wanted
    servers = trees.missing() if STARTS_SERVERS & set(lanes) else []
    if current and not missing and not servers:
        return
    state.mkdir(parents=True, exist_ok=True)
    log = setup_log.Log(state / "log/setup.log")
    lock_fd = setup.take_lock(state)
    try:
        if missing:
            log.step("system packages", lambda: setup_debian.system_packages(setup_debian.test_packages(), log))
        if not current:
            log.step("test packages", lambda: setup_venv.install(venv, "[test]", log, lock_fd, "test packages"))
            stamp.write_text(wanted)
        if servers:
            log.step("servers", lambda: build_servers(log))
    finally:
        os.close(lock_fd)


def build_servers(log: setup_log.Log) -> str:
    """Builds the servers' root filesystems; returns what to show. Tests that need them say so where it fails."""
    try:
        trees.build(say=lambda line: log.tick("servers", line.strip()))
    except LabkitError as error:
        return str(error)
    return "built"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./lab test", description="Run every test.", epilog="What follows -- goes to pytest."
    )
    parser.add_argument("lanes", nargs="*", metavar="LANE", help="only these: " + ", ".join(LANES))
    parser.add_argument("--list", action="store_true", help="say what lanes there are, and end")
    parser.add_argument(
        "--no-skips", action="store_true", help=f"a skip that the machine is not to blame for fails (or {NO_SKIPS}=1)"
    )
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    options, extra = parser.parse_args(words[:cut]), words[cut + 1 :]
    if options.list:
        for name, text in LANES.items():
            print(f"{name:<10} {text}")
        return 0
    if unknown := [name for name in options.lanes if name not in LANES]:
        print(f"lab: there is no lane '{unknown[0]}', only {', '.join(LANES)}.", file=sys.stderr)
        return 2
    chosen = [name for name in LANES if name in options.lanes or not options.lanes]
    strict = options.no_skips or os.environ.get(NO_SKIPS, "") not in ("", "0")
    checkout, state = paths.checkout(), paths.state()
    programs = str(Path(sys.executable).parent)
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    console = Console()
    try:
        install(checkout, state, chosen)
    except setup_log.SetupError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    results = []
    for lane in chosen:
        console.rule(f"{lane}: {LANES[lane]}", align="left")
        started = time.monotonic()
        if lane in ("lint", "types"):
            result = run_checks(lane, checkout)
        else:
            result = run_pytest(lane, checkout, state / "test", extra, strict)
        result.seconds = time.monotonic() - started
        results.append(result)
    console.print(summary(results))
    for result in results:
        for complaint in result.complaints:
            print(f"{result.lane}: {complaint}")
        for reason, times in result.skips.most_common():
            print(f"{result.lane}: {times} skipped: {reason}")
    print(closing_line(results))
    return 1 if any(result.failed for result in results) else 0
