"""The five sets: read by name from outside, set by name, and what survives the execution of a program."""

import errno
import subprocess
from collections.abc import Callable

import pytest

from labkit import capabilities, syscalls
from labkit import constants as c
from labkit.capabilities import Sets
from labkit.errors import InvalidConfig
from labkit.process import run_in_child, spawn

TWO = ("NET_BIND_SERVICE", "SYS_CHROOT")


def test_they_are_read_by_name_from_outside() -> None:
    def prepare() -> None:
        capabilities.assign(
            bounding=(*TWO, "KILL"), permitted=(*TWO, "KILL"), inheritable=TWO, effective=("KILL",), ambient=TWO[:1]
        )

    with spawn(prepare) as child:
        found = capabilities.of(child.pid)
    assert found == Sets(
        effective=("KILL",),
        permitted=("KILL", *TWO),
        inheritable=TWO,
        bounding=("KILL", *TWO),
        ambient=("NET_BIND_SERVICE",),
    )


def test_what_is_not_given_stays_as_far_as_it_can() -> None:
    def body() -> Sets:
        capabilities.assign(inheritable=TWO, ambient=TWO)
        capabilities.assign(permitted=("SYS_CHROOT", "KILL"))
        return capabilities.of("self")

    found = run_in_child(body)
    assert found.effective == found.permitted == ("KILL", "SYS_CHROOT")
    assert found.inheritable == TWO
    assert found.ambient == ("SYS_CHROOT",)
    assert "SYS_ADMIN" in found.bounding


def test_names_and_masks_are_the_same_thing() -> None:
    assert capabilities.names(capabilities.mask(TWO)) == TWO
    assert capabilities.names(0) == ()
    assert capabilities.names(1 << 60) == ("60",)  # a kernel newer than this list


def test_the_bounding_set_does_not_grow() -> None:
    def body() -> None:
        capabilities.assign(bounding=TWO)
        capabilities.assign(bounding=(*TWO, "KILL"))

    with pytest.raises(InvalidConfig, match="the bounding set never grows, and KILL is not in it"):
        run_in_child(body)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: capabilities.assign(permitted=(*TWO, "SYS_ADMIN")),
        lambda: capabilities.assign(effective=("SYS_ADMIN",)),
        lambda: capabilities.assign(ambient=TWO),
        lambda: capabilities.assign(bounding=()),
    ],
)
def test_what_the_kernel_refuses_is_refused(ask: Callable[[], None]) -> None:
    def body() -> int | None:
        capabilities.assign(permitted=TWO)
        try:
            ask()
        except PermissionError as error:
            return error.errno if error.__notes__ else None
        return 0

    assert run_in_child(body) == errno.EPERM


def executed(prepare: Callable[[], None]) -> tuple[str, ...]:
    """What a program that is executed after `prepare` may do."""

    def body() -> str:
        prepare()
        return subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout

    line = next(line for line in run_in_child(body).splitlines() if line.startswith("CapEff"))
    return capabilities.names(int(line.split()[1], 16))


def test_a_root_that_executes_a_program_gets_it_all_back() -> None:
    assert "SYS_ADMIN" in executed(lambda: syscalls.capset(0, 0, 0))


def _without_new_privileges() -> None:
    syscalls.capset(0, 0, 0)
    syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)


def test_but_not_beyond_the_bounding_set_and_not_with_no_new_privs() -> None:
    assert executed(lambda: capabilities.assign(bounding=TWO, permitted=())) == TWO
    assert executed(_without_new_privileges) == ()
    assert executed(lambda: capabilities.keep_only(capabilities.mask(TWO))) == TWO
