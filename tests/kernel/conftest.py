"""Every kernel test leaves the machine as it found it: processes, mounts, interfaces, descriptors."""

import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from labkit import host, procfs, rootfs
from labkit.course.grading import sandbox
from labkit.errors import Unsupported
from tests.requirements import machine_cannot


class Held(NamedTuple):
    """What a test could leave behind."""

    children: list[int]
    hosts: list[int]
    mounts: list[tuple[str, str, str]]
    interfaces: list[str]
    host_name: str
    descriptors: dict[str, str]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test that leaves a process, lab host, mount, interface or descriptor, or another host name."""
    before = held()
    yield
    assert held() == before


def held() -> Held:
    """What this process and machine hold once the lab host is gone."""
    host.reset()
    gc.collect()
    ours = set(procfs.descendants(os.getpid()))
    mounts = [(mount.mount_point, mount.filesystem, mount.source) for mount in procfs.mountinfo()]
    hosts = [pid for pid in host.running() if pid in ours]
    interfaces = sorted(name for _, name in socket.if_nameindex())
    return Held(sorted(ours), hosts, mounts, interfaces, socket.gethostname(), descriptors())


def descriptors() -> dict[str, str]:
    """This process's descriptors, and what each is open on."""
    found = {}
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found[fd.name] = os.readlink(fd)
        except FileNotFoundError:
            continue  # the descriptor of this very listing
    return found


@pytest.fixture
def busybox() -> Path:
    """The course's root filesystem."""
    try:
        return rootfs.find("busybox")
    except Unsupported as error:
        pytest.skip(str(error))


@pytest.fixture
def rooms() -> Iterator[None]:
    """Rooms for grading can be made here, and none outlives its test."""
    if lack := sandbox.unsupported():
        machine_cannot(lack.what)
    before = set(procfs.descendants(host.pid()))
    yield
    assert set(procfs.descendants(host.pid())) <= before
