"""Networks on another kernel: User Mode Linux has bridges and pairs, and no NAT by nftables, which is said."""

import pytest

from tests.vm.conftest import require
from tests.vm.inside import pytest_inside

pytestmark = pytest.mark.timeout(600)

CHOSEN = "reach_each_other_by_address or find_each_other or hosts_file or says_why or one_direction or the_server_may"


def test_networks_without_nat() -> None:
    require("uml")
    done = pytest_inside("tests/kernel/test_network.py", "tests/kernel/test_ports.py", "-k", CHOSEN)
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout
