"""A process in a container that lies in wait for whoever joins: it reaches nothing, and holds nobody up for long."""

import shutil
import subprocess
import threading
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
        until(lambda: "ready" in kept(container))
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


@pytest.mark.parametrize("how", ["root", "mapped"])
def test_starts_do_not_wait_for_one_that_is_held_up(image: Path, how: str) -> None:
    config: dict[str, Any] = {"root": {}, "mapped": MAPPED}[how]
    with start(["/newcomers", "keep"], root=image, capture=True, **config) as container:
        until(lambda: "ready" in kept(container))
        refused: list[Exception] = []

        def join() -> None:
            try:
                for _ in range(100):
                    container.exec(["true"], env=SLOW).wait(60)
            except Exception as error:
                refused.append(error)

        joining = threading.Thread(target=join)
        joining.start()
        until(lambda: "met a newcomer" in kept(container))
        for _ in range(10):
            assert run(["true"], **config).exit_code == 0
        with start(["sleep", "60"], **config) as other:
            assert other.exec(["true"]).wait(60) == 0
        assert joining.is_alive(), f"it was not held up for as long as the others took: {refused}"
        container.kill()
        joining.join(60)
    assert refused, "it went on without a container"
    assert run(["true"], **config).exit_code == 0


def test_starts_do_not_wait_for_the_search_of_a_command(image: Path) -> None:
    for number in range(30):
        (image / f"link{number}").symlink_to("./" * 1900 + f"link{number + 1}")
    (image / "link30").mkdir()
    searching = threading.Thread(target=lambda: run(["true"], root=image, env={"PATH": "/link0:" * 1500 + "/bin"}))
    searching.start()
    for _ in range(5):
        assert run(["true"]).exit_code == 0
    assert searching.is_alive(), "the search was too short to show anything"
    searching.join(60)


def kept(container: Container) -> str:
    container.output.pass_on_until(timeout=0.05)
    return container.output.kept("stdout")


def until(condition: Any) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
