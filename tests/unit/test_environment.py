"""environment.yml, for conda, and pyproject.toml, for pip, ask for the same packages.

Nothing is solved against conda-forge here, as that needs its index from the network. The project's workflow does it.
"""

import json
import platform
import subprocess
import sys
import tomllib
from importlib import metadata
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from rattler import BuildString, Channel, MatchSpec, PackageRecord
from rattler.exceptions import InvalidMatchSpecError

from labkit.files import state_folder

CHANNELS = ["conda-forge", "nodefaults"]
# What conda-forge calls otherwise: its name to PyPI's.
PYPI_NAMES = {"psycopg2": "psycopg2-binary"}
# What only the conda form needs: without pip the checkout itself could not be installed.
CONDA_ONLY = {"pip"}
PYTHON = "python"

ENVIRONMENT = (state_folder.checkout() / "environment.yml").read_text()
PYPROJECT = (state_folder.checkout() / "pyproject.toml").read_text()


def conda_specs(environment: str) -> dict[str, MatchSpec]:
    """The specs of an environment.yml by PyPI's names.

    Raises:
        ValueError: an entry is not a spec as conda understands it, or is there twice.
    """
    found: dict[str, MatchSpec] = {}
    for entry in yaml.safe_load(environment)["dependencies"]:
        if not isinstance(entry, str):
            raise ValueError(f"{entry}: the packages come from conda-forge alone")
        try:
            spec = MatchSpec(entry, strict=True)
        except InvalidMatchSpecError as error:
            raise ValueError(f"{entry}: {error}") from None
        name = PYPI_NAMES.get(str(spec.name.normalized), str(spec.name.normalized))
        if name in found:
            raise ValueError(f"{name}: twice in environment.yml")
        found[name] = spec
    return found


def pip_bounds(pyproject: str) -> dict[str, SpecifierSet]:
    """The bounds of a pyproject.toml by name; those of Python itself too.

    Raises:
        ValueError: a requirement has an extra, a marker or an address, which conda has no words for, or is there twice.
    """
    project = tomllib.loads(pyproject)["project"]
    found = {PYTHON: SpecifierSet(project["requires-python"])}
    for text in project["dependencies"]:
        requirement = Requirement(text)
        if requirement.extras or requirement.marker or requirement.url:
            raise ValueError(f"{text}: conda has no words for an extra, a marker or an address")
        name = canonicalize_name(requirement.name)
        if name in found:
            raise ValueError(f"{name}: twice in pyproject.toml")
        found[name] = requirement.specifier
    return found


def differences(environment: str, pyproject: str) -> list[str]:
    """What the two forms do not agree on; an empty list if they ask for the same."""
    try:
        specs, bounds = conda_specs(environment), pip_bounds(pyproject)
    except ValueError as error:
        return [str(error)]
    wrong = []
    if (channels := yaml.safe_load(environment).get("channels")) != CHANNELS:
        wrong.append(f"channels: {channels}, not {CHANNELS}")
    wrong += [f"{name}: only in pyproject.toml" for name in sorted(bounds.keys() - specs.keys())]
    wrong += [f"{name}: only in environment.yml" for name in sorted(specs.keys() - bounds.keys() - CONDA_ONLY)]
    wrong += [f"{name}: missing in environment.yml" for name in sorted(CONDA_ONLY - specs.keys())]
    for name in sorted(specs.keys() & bounds.keys()):
        spec = specs[name]
        if spec.channel and spec.channel.base_url != Channel(CHANNELS[0]).base_url:
            wrong.append(f"{name}: from the channel {spec.channel.name}")
        if spec.build or spec.build_number or spec.subdir or spec.md5 or spec.sha256:
            wrong.append(f"{name}: {spec} asks for one build, which pip cannot")
        try:
            same = SpecifierSet(str(spec.version or "")) == bounds[name]
        except InvalidSpecifier:  # such as 5.9.*, which conda makes of =5.9
            same = False
        if not same:
            wrong.append(f"{name}: conda has '{spec.version or ''}', pip has '{bounds[name]}'")
    return wrong


def test_both_forms_ask_for_the_same() -> None:
    assert differences(ENVIRONMENT, PYPROJECT) == []


AGREED_ENVIRONMENT = """
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python>=3.11
  - pip
  - jupytext>=1.16,<2
  - psutil>=5.9.8
  - psycopg2>=2.9.9,<3
  - rich>=13.7
"""
AGREED_PYPROJECT = """
[project]
requires-python = ">=3.11"
dependencies = [
    "jupytext>=1.16,<2",
    "psutil>=5.9.8",
    "psycopg2-binary>=2.9.9,<3",
    "rich>=13.7",
]
"""


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("environment", "- psutil>=5.9.8", "- psutil>=5.9.7", "psutil: conda has '>=5.9.7', pip has '>=5.9.8'"),
        ("environment", "- psutil>=5.9.8", "- psutil", "psutil: conda has '', pip has '>=5.9.8'"),
        ("environment", "- psutil>=5.9.8", "- psutil=5.9", "psutil: conda has '5.9.*'"),
        ("environment", "- psutil>=5.9.8", "- psutil>>5.9", "psutil>>5.9: "),
        ("environment", "- psutil>=5.9.8", "- psutil[linux]>=5.9.8", "psutil[linux]>=5.9.8: "),
        ("environment", "- psutil>=5.9.8", "- psutil >=5.9.8 py311_0", "asks for one build"),
        ("environment", "- psutil>=5.9.8", "- bioconda::psutil>=5.9.8", "psutil: from the channel bioconda"),
        ("environment", "- psutil>=5.9.8", "- pip:\n    - psutil>=5.9.8", "come from conda-forge alone"),
        ("environment", "  - psutil>=5.9.8\n", "", "psutil: only in pyproject.toml"),
        ("environment", "- psutil>=5.9.8", "- psutil>=5.9.8\n  - psutil", "psutil: twice in environment.yml"),
        ("environment", "- psutil>=5.9.8", "- psutil>=5.9.8\n  - numpy", "numpy: only in environment.yml"),
        ("environment", "- psycopg2>=", "- psycopg>=", "psycopg2-binary: only in pyproject.toml"),
        ("environment", "  - pip\n", "", "pip: missing in environment.yml"),
        ("environment", "- python>=3.11", "- python>=3.12", "python: conda has '>=3.12', pip has '>=3.11'"),
        ("environment", "- conda-forge", "- defaults", "channels: "),
        ("environment", "  - nodefaults\n", "", "channels: "),
        ("pyproject", '"jupytext>=1.16,<2"', '"jupytext>=1.16"', "jupytext: conda has '>=1.16,<2', pip has '>=1.16'"),
        ("pyproject", '"rich>=13.7"', "\"rich>=13.7; python_version>'3'\"", "conda has no words"),
        ("pyproject", '"rich>=13.7"', '"rich[jupyter]>=13.7"', "conda has no words"),
        ("pyproject", '    "rich>=13.7",\n', "", "rich: only in environment.yml"),
        ("pyproject", '"rich>=13.7"', '"rich>=13.7", "Rich"', "rich: twice in pyproject.toml"),
        ("pyproject", 'requires-python = ">=3.11"', 'requires-python = ">=3.12"', "python: conda has '>=3.11'"),
    ],
)
def test_each_kind_of_difference_is_found(file: str, old: str, new: str, complaint: str) -> None:
    texts = {"environment": AGREED_ENVIRONMENT, "pyproject": AGREED_PYPROJECT}
    assert differences(**texts) == [] and old in texts[file]
    texts[file] = texts[file].replace(old, new, 1)
    found = differences(**texts)
    assert any(complaint in line for line in found), found


def test_spelling_is_no_difference() -> None:
    spelled = AGREED_ENVIRONMENT.replace("- jupytext>=1.16,<2", "- conda-forge::Jupytext <2.0,>=1.16")
    assert spelled != AGREED_ENVIRONMENT and differences(spelled, AGREED_PYPROJECT) == []


def test_what_is_installed_satisfies_both_forms() -> None:
    bounds, wrong = pip_bounds(PYPROJECT), []
    for name, spec in conda_specs(ENVIRONMENT).items():
        version = platform.python_version() if name == PYTHON else metadata.version(name)
        record = PackageRecord(str(spec.name.normalized), version, BuildString("0"), 0, "linux-64")
        if not spec.matches(record):
            wrong.append(f"conda would not take {name} {version}")
        if name in bounds and not bounds[name].contains(version, prereleases=True):
            wrong.append(f"pip would not take {name} {version}")
    assert wrong == []


def test_pip_resolves_its_form_from_what_is_installed() -> None:
    """pip's own resolver, with no index: it would have to install something, or say that nothing fits."""
    wanted = [f"{name}{bounds}" for name, bounds in pip_bounds(PYPROJECT).items() if name != PYTHON]
    pip = [sys.executable, "-I", "-m", "pip", "install", "--dry-run", "--no-index", "--quiet", "--report", "-"]
    done = subprocess.run([*pip, *wanted], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["install"] == []
