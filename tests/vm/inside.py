"""Run tests inside a virtual machine: those of what this machine's own kernel does not have."""

import sys
from typing import Any

import pytest

from labkit import vm
from labkit.files import state_folder

MEMORY_MIB = 1536
SECONDS = 900


def pytest_inside(*arguments: str, user: str | None = None, kind: str = "uml") -> vm.Completed:
    """Run pytest with `arguments` in a machine that has this machine's files; skips are failures there too."""
    checkout = state_folder.checkout()
    return vm.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        kind=kind,
        cwd=checkout,
        env={
            "PYTHONPATH": str(checkout),
            "LABKIT_STATE": str(state_folder.state()),
            "LABKIT_NO_SKIPS": "1",
            "HOME": "/tmp",
            "NO_COLOR": "1",
        },
        user=user,
        memory_mib=MEMORY_MIB,
        capture=True,
        timeout=SECONDS,
    )


def asked_for(request: pytest.FixtureRequest, parameter: str) -> list[Any]:
    """The values of `parameter` in the tests of this module that will run: what `-k` left out need not be begun."""
    here = [item for item in request.session.items if isinstance(item, pytest.Function)]
    here = [item for item in here if item.path == request.path and hasattr(item, "callspec")]
    return [item.callspec.params[parameter] for item in here if parameter in item.callspec.params]
