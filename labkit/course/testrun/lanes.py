"""What there is to run: lanes of programs, such as linters, and lanes of tests, each a folder below `tests/`."""

import sys
from pathlib import Path

LANES = {
    "lint": "ruff, shellcheck, which room imports which, the workflows' schema",
    "types": "mypy --strict",
    "unit": "what needs no kernel feature",
    "kernel": "namespaces, mounts, containers, the lab host",
    "cgroups": "control groups, where this machine has controllers (the vm lane runs them in any case)",
    "notebooks": "every solved lab against its stored outputs; every check",
    "browser": "JupyterLab as a learner sees it",
    "vm": "virtual machines, and the labs in one",
}
PROGRAMS = ("lint", "types")  #: the lanes that are no tests of pytest's


def programs(lane: str, checkout: Path) -> list[list[str]]:
    """The commands of a lane of programs; each passes or fails."""
    bin_folder = Path(sys.executable).parent
    if lane == "types":
        return [[str(bin_folder / "mypy")]]
    ruff, shellcheck = str(bin_folder / "ruff"), str(bin_folder / "shellcheck")
    schema, workflows = str(bin_folder / "check-jsonschema"), sorted((checkout / ".github/workflows").glob("*.yml"))
    shells = (".ci/*", ".devcontainer/*.sh", "labkit/course/setup/reference/*.sh")
    scripts = [path for pattern in shells for path in sorted(checkout.glob(pattern))]
    return [
        [ruff, "check", "--quiet", "."],
        [ruff, "format", "--check", "--quiet", "."],
        [str(bin_folder / "lint-imports"), "--no-cache"],
        [shellcheck, "lab", *(str(path.relative_to(checkout)) for path in scripts)],
        [schema, "--quiet", "--builtin-schema", "vendor.github-workflows", *map(str, workflows)],
    ]
