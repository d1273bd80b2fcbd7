"""GitHub's workflows, as far as they can be looked at without GitHub: their rights, their actions, their commands.

That they follow GitHub's schema is seen in the lane lint. The machine they run on is not to be had here.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from labkit.course.testrun.lanes import LANES
from labkit.files import state_folder
from tests.commands import wrong_commands

CHECKOUT = state_folder.checkout()
WORKFLOWS = sorted((CHECKOUT / ".github/workflows").glob("*.yml"))
SHELLCHECK = Path(sys.executable).parent / "shellcheck"
# Triggers by which somebody else's code would run with this repository's own rights.
RISKY = {"pull_request_target", "workflow_run", "issue_comment"}


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def complaints(text: str) -> list[str]:
    """What must not be in a workflow."""
    workflow = yaml.safe_load(text)
    wrong = []
    triggers = set(workflow[True])  # YAML reads the key `on` as a truth value
    wrong += [f"risky trigger: {name}" for name in sorted(triggers & RISKY)]
    if workflow.get("permissions") != {"contents": "read"}:
        wrong.append("permissions: more than to read, or none said")
    if re.search(r"\bsecrets\b|github\.token|GITHUB_TOKEN", text):
        wrong.append("a secret, or the token")
    for name, job in workflow["jobs"].items():
        if "permissions" in job:
            wrong.append(f"permissions of its own: {name}")
        if "timeout-minutes" not in job:
            wrong.append(f"no timeout-minutes: {name}")
    for step in steps(workflow):
        action = step.get("uses", "")
        if action and not re.fullmatch(r"[\w.-]+/[\w.-]+@v\d+", action):
            wrong.append(f"not pinned to a major version: {action}")
        if action.startswith("actions/checkout@") and step.get("with", {}).get("persist-credentials") is not False:
            wrong.append("the token is left in .git")
        script = step.get("run", "")
        if re.search(r"\$\{\{", script):
            wrong.append("an expression in a script: give it in env")  # its value would be read as code
        wrong += wrong_commands(script)
    return wrong


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_ask_for_little_and_call_what_exists(path: Path) -> None:
    assert complaints(path.read_text()) == []


AGREED = """
on: {push: }
permissions: {contents: read}
jobs:
  one:
    timeout-minutes: 1
    steps:
      - uses: actions/checkout@v6
        with: {persist-credentials: false}
      - run: |
          ./lab setup
          env -i ./lab doctor --json
"""


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("push:", "pull_request_target:", "risky trigger: pull_request_target"),
        ("contents: read", "contents: write", "permissions: more than to read, or none said"),
        ("permissions: {contents: read}", "", "permissions: more than to read, or none said"),
        ("timeout-minutes: 1", "env: {}", "no timeout-minutes: one"),
        ("timeout-minutes: 1", "timeout-minutes: 1\n    permissions: {checks: write}", "permissions of its own: one"),
        ("checkout@v6", "checkout@main", "not pinned to a major version: actions/checkout@main"),
        ("{persist-credentials: false}", "{}", "the token is left in .git"),
        ("./lab setup", "./lab stup", "no command ./lab stup"),
        ("./lab setup", "./lab setup --all", "no option --all of ./lab setup"),
        ("doctor --json", "doctor --jsn", "no option --jsn of ./lab doctor"),
        ("./lab setup", ".ci/rn", "no file .ci/rn"),
        ("./lab setup", "echo ${{ github.head_ref }}", "an expression in a script: give it in env"),
        ("- run: |", "- env: {T: '${{ secrets.T }}'}\n        run: |", "a secret, or the token"),
    ],
)
def test_each_of_that_is_seen(old: str, new: str, complaint: str) -> None:
    assert complaints(AGREED) == [] and old in AGREED
    assert complaints(AGREED.replace(old, new)) == [complaint]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_their_scripts_pass_shellcheck(path: Path) -> None:
    for step in steps(yaml.safe_load(path.read_text())):
        if "run" in step:
            argv = [str(SHELLCHECK), "--shell=bash", "-"]
            done = subprocess.run(argv, input=step["run"], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout


def test_every_lane_of_the_tests_runs_once() -> None:
    workflow = yaml.safe_load((CHECKOUT / ".github/workflows/ci.yml").read_text())
    lanes = " ".join(workflow["jobs"]["test"]["strategy"]["matrix"]["lanes"]).split()
    assert sorted(lanes) == sorted(LANES)


def test_under_sudo_the_tests_stay_roots(tmp_path: Path) -> None:
    """sudo says who called, and ./lab goes on as that one: .ci/run must not let it know."""
    (tmp_path / ".ci").mkdir()
    shutil.copy2(CHECKOUT / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "lab").write_text('#!/bin/sh\necho "$SUDO_UID$SUDO_USER$SUDO_GID|$*|$LABKIT_NO_SKIPS"\n')
    (tmp_path / "lab").chmod(0o755)
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")  # no package lists are fetched here
    (tmp_path / "id").chmod(0o755)
    sudo = {"SUDO_UID": "1000", "SUDO_GID": "1000", "SUDO_USER": "ann", "PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run([tmp_path / ".ci/run", "unit", "vm"], env=sudo, capture_output=True, text=True, check=True)
    assert done.stdout == "|test unit vm|1\n"
