"""A refusal for lack of privilege says which of three it was: no capability, the wrong namespace, a filter."""

from collections.abc import Callable

import pytest

from labkit import bpf, capabilities, libseccomp, seccomp, syscalls
from labkit import constants as c
from labkit.process import run_in_child


def refusal(prepare: Callable[[], None], call: Callable[[], object]) -> str:
    """The note on what `call` is refused with in a child after `prepare`."""

    def body() -> str:
        prepare()
        try:
            call()
        except PermissionError as error:
            return " ".join(error.__notes__)
        return "it was not refused"

    return run_in_child(body)


def rename() -> None:
    syscalls.sethostname("other")


def test_without_the_capability() -> None:
    said = refusal(lambda: capabilities.keep_only(0), rename)
    assert "CAP_SYS_ADMIN" in said
    assert said.endswith("lacks it.")


def test_with_it_in_the_wrong_namespace() -> None:
    said = refusal(lambda: syscalls.unshare(c.CLONE_NEWUSER), rename)
    assert "has it there, but what is changed belongs to a user namespace further out" in said


def test_with_a_filter_before_it() -> None:
    def prepare() -> None:
        numbers = {name: number for number, name in libseccomp.known(libseccomp.native()).items()}
        seccomp.load(bpf.assemble("ld [nr]\njeq #sethostname, no\nret allow\nno: ret errno #EPERM", numbers))

    assert "a filter of system calls is on it" in refusal(prepare, rename)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: syscalls.capset(1, 1, 0), "never taken"),
        (lambda: syscalls.prctl(c.PR_CAPBSET_DROP, 0), "Dropping a capability from the bounding set takes CAP_SETPCAP"),
        (lambda: syscalls.prctl(c.PR_CAP_AMBIENT, 2, 0), "permitted and inheritable"),
        (lambda: syscalls.unshare(c.CLONE_NEWNET), "Making a namespace other than a user namespace"),
        (lambda: syscalls.set_interface_up("lo"), "CAP_NET_ADMIN"),
    ],
)
def test_what_each_call_takes(call: Callable[[], None], words: str) -> None:
    assert words in refusal(lambda: syscalls.capset(0, 0, 0), call)
