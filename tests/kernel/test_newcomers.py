"""A process in a container that lies in wait for whoever joins: it reaches nothing, and holds nobody up for long."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit.container import run, start
from labkit.container.container import Container
from tests.kernel.test_container_config import AS_ROOT, MAPPED
from tests.requirements import machine_cannot, need_command

SOURCE = Path(__file__).parent / "data/newcomers.c"
#: A search for the command that takes its time, as an image can have it.
SLOW = {"PATH": ":".join(f"/no/such/folder/{number}" for number in range(1500)) + ":/bin"}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from labkit import rootfs

    need_command("cc")
    image = tmp_path_factory.mktemp("newcomers") / "image"
    shutil.copytree(rootfs.find("busybox"), image, symlinks=True)
    subprocess.run(["cc", "-O2", "-static", "-o", image / "newcomers", SOURCE], check=True)
    return image


def lying_in_wait(image: Path, **config: Any) -> Iterator[Container]:
    with start(["/newcomers"], root=image, capture=True, **config) as container:
        deadline = time.monotonic() + 20
        while "ready" not in container.output.kept("stdout") and time.monotonic() < deadline:
            container.output.pass_on_until(timeout=0.05)
        yield container


def told(container: Container) -> list[str]:
    container.output.drain()
    return container.output.kept("stdout").splitlines()[1:]


@pytest.mark.parametrize("how", ["root", "user", "mapped"])
def test_who_joins_a_container_cannot_be_reached_from_inside(image: Path, how: str) -> None:
    if how == "user" and not AS_ROOT:
        machine_cannot("be another user where one id is mapped")
    config: dict[str, Any] = {"root": {}, "user": {"user": "1000"}, "mapped": MAPPED}[how]
    for container in lying_in_wait(image, **config):
        for _ in range(200):
            container.exec(["true"], env=SLOW).wait(60)
        lines = told(container)
    assert [line for line in lines if line.startswith("reached")] == []
    assert lines.count("met a newcomer") > 3, "it met none before its command ran: that shows nothing"


def test_nor_who_starts_in_the_same_pid_namespace(image: Path) -> None:
    for container in lying_in_wait(image):
        for _ in range(100):
            run(["true"], env=SLOW, namespaces={"pid": container.pid})
        lines = told(container)
    assert [line for line in lines if line.startswith("reached")] == []
    assert lines.count("met a newcomer") > 3, "it met none before its command ran: that shows nothing"
