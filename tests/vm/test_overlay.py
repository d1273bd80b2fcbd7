"""Overlays on an older kernel, which takes all layers as one text of mount(2), and on files that lie on an overlay."""

import pytest

from tests.vm.conftest import require
from tests.vm.inside import SECONDS, pytest_inside


@pytest.mark.timeout(SECONDS + 60)
def test_layers_on_an_older_kernel() -> None:
    require("uml")
    done = pytest_inside(
        "tests/kernel/test_overlay.py",
        "tests/kernel/test_container_overlay.py",
        "-k",
        "(first and new) or many_layers or trying or ten_from or upper_layer or refusals or layers_on",
    )
    assert done.exit_code == 0, done.stdout + done.stderr
