import errno

import pytest

from labkit import constants as c
from labkit import errors


def test_os_error_is_the_subclass_of_its_errno_and_shows_the_call() -> None:
    error = errors.os_error(errno.ENOENT, "mount", None, "/nowhere", "proc", 0, None)
    assert isinstance(error, FileNotFoundError)
    assert "mount(None, '/nowhere', 'proc', 0, None)" in str(error)
    assert "/nowhere does not exist" in error.__notes__[0]


@pytest.mark.parametrize(
    ("call", "number", "arguments", "words"),
    [
        ("unshare", errno.EPERM, (c.CLONE_NEWUTS,), "CAP_SYS_ADMIN"),
        ("unshare", errno.EPERM, (c.CLONE_NEWUSER,), "user namespaces"),
        ("capset", errno.EPERM, (), "never taken"),
        ("prctl", errno.EPERM, (c.PR_CAPBSET_DROP, 5), "CAP_SETPCAP"),
        ("prctl", errno.EPERM, (c.PR_CAP_AMBIENT, 2, 5), "inheritable"),
        ("seccomp", errno.EACCES, (), "no_new_privs"),
        ("seccomp", errno.EINVAL, (), "4096"),
        ("unshare", errno.ENOSPC, (c.CLONE_NEWUTS,), "max_"),
        ("pivot_root", errno.EINVAL, ("/usr/bin/", "/usr/bin"), "not a mount point"),
        ("pivot_root", errno.EINVAL, ("/", "/"), "already"),
        ("mount", errno.ENODEV, (None, "/", "nofs"), "'nofs'"),
        ("mount", errno.EINVAL, (None, "/etc", None, c.MS_PRIVATE), "not a mount point"),
        ("umount2", errno.EBUSY, ("/",), "MNT_DETACH"),
        ("sethostname", errno.EINVAL, ("x",), "64"),
        ("mount_setattr", errno.ENOSYS, (), "kernel"),
    ],
)
def test_known_causes(call: str, number: int, arguments: tuple[object, ...], words: str) -> None:
    note = errors.explain(call, number, arguments)
    assert note
    assert words in note


def test_unknown_causes_have_no_note() -> None:
    assert errors.explain("mount", errno.ENOTBLK) is None
    assert not hasattr(errors.os_error(errno.ENOTBLK, "mount"), "__notes__")


def test_unsupported_is_one_line_that_says_what_to_do() -> None:
    error = errors.Unsupported("no overlay", "modprobe overlay")
    assert str(error) == "no overlay: modprobe overlay"
