"""Layers mounted: writing never reaches the lower ones, what is deleted stays deleted, and nothing stays behind.

Each both as the lab host's root and in a user namespace below it, and both ways to tell the kernel the layers.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit import constants as c
from labkit import host, procfs, syscalls
from labkit.errors import InvalidConfig
from labkit.overlay import Overlay, overlay
from labkit.process import run_in_child
from labkit.program import Program
from tests.requirements import machine_cannot

WAYS = [(user, kernel) for user in ("first user namespace", "own user namespace") for kernel in ("new", "old")]
InThere = Callable[..., Any]


def alone(new_user_namespace: bool, one_by_one: bool | None) -> None:
    """Be in a mount namespace where nothing leaks, and a user namespace if asked for."""
    if new_user_namespace:
        uid, gid = os.geteuid(), os.getegid()
        syscalls.unshare(c.CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            Path(f"/proc/self/{name}").write_text(text)
    syscalls.unshare(c.CLONE_NEWNS)
    syscalls.mount(None, "/", None, c.MS_REC | c.MS_PRIVATE)
    if one_by_one is not None:
        overlay._one_by_one = one_by_one


def attributes_are_kept() -> bool:
    """Whether a tmpfs has user.* attributes."""
    alone(False, None)
    syscalls.mount("tmpfs", "/mnt", "tmpfs")
    try:
        os.setxattr("/mnt", "user.labkit", b"")
    except OSError:
        return False
    return True


@pytest.fixture(params=WAYS, ids=[f"{user}, {kernel} kernel" for user, kernel in WAYS])
def there(request: pytest.FixtureRequest) -> Iterator[InThere]:
    """Call a function in a child that may mount."""
    user, kernel = request.param
    if user == "own user namespace" and not run_in_child(attributes_are_kept):
        # There the kernel marks folders by user.* attributes, and tmpfs has these since Linux 6.6.
        machine_cannot("keep user.* attributes in a tmpfs")

    def call(fn: Callable[..., Any], *args: Any) -> Any:
        def body() -> Any:
            alone(user == "own user namespace", None if kernel == "new" else False)
            return fn(*args)

        return run_in_child(body)

    yield call


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Folders to layer; the names hold what options must not take for their own."""
    for name in ("top:,\\", "bottom", "upper,\\:", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "bottom" / "old").mkdir()
    (tmp_path / "bottom" / "old" / "file").write_text("bottom")
    (tmp_path / "bottom" / "kept").write_text("bottom")
    (tmp_path / "top:,\\" / "kept").write_text("top")
    return tmp_path


def layered(tree: Path, kind: str) -> Overlay:
    lower = [tree / "top:,\\", tree / "bottom"]
    if kind == "read-only":
        return Overlay(lower)
    if kind == "scratch":
        return Overlay.scratch(*lower, scratch_bytes=1 << 20)
    return Overlay(lower, tree / "upper,\\:", tree / "work", volatile=kind == "volatile")


def contents(folder: Path) -> dict[str, str | None]:
    return {str(one.relative_to(folder)): one.read_text() if one.is_file() else None for one in folder.rglob("*")}


def lowers(tree: Path) -> tuple[dict[str, str | None], ...]:
    return tuple(contents(tree / name) for name in ("top:,\\", "bottom"))


def change(one: Overlay, merged: Path) -> dict[str, str | None]:
    overlay.mount(one, merged)
    (merged / "kept").write_text("changed")
    (merged / "old" / "file").unlink()
    (merged / "old").rmdir()
    (merged / "old").mkdir()  # opaque: what was in it below must not come back
    (merged / "new").write_text("new")
    return contents(merged)


@pytest.mark.parametrize("kind", ["upper", "volatile", "scratch"])
def test_changes_never_reach_the_lower_layers(kind: str, tree: Path, there: InThere) -> None:
    before = lowers(tree)
    changed = {"kept": "changed", "new": "new", "old": None}
    assert there(change, layered(tree, kind), tree / "merged") == changed
    assert lowers(tree) == before
    assert contents(tree / "merged") == {}, "the mount was seen outside"


def test_what_was_deleted_stays_deleted(tree: Path, there: InThere) -> None:
    one = layered(tree, "upper")
    there(change, one, tree / "merged")

    def again() -> dict[str, str | None]:
        overlay.mount(one, tree / "merged")
        return contents(tree / "merged")

    assert there(again) == {"kept": "changed", "new": "new", "old": None}


def test_the_topmost_layer_comes_first(tree: Path, there: InThere) -> None:
    def body() -> tuple[dict[str, str | None], str]:
        overlay.mount(layered(tree, "read-only"), tree / "merged")
        try:
            (tree / "merged" / "new").touch()
        except OSError as error:
            return contents(tree / "merged"), os.strerror(error.errno or 0)
        return {}, "written"

    assert there(body) == ({"kept": "top", "old": None, "old/file": "bottom"}, "Read-only file system")


def test_a_single_layer_can_be_shown_read_only(tree: Path, there: InThere) -> None:
    def body() -> tuple[dict[str, str | None], str]:
        overlay.mount(Overlay([tree / "bottom"]), tree / "merged")
        try:
            (tree / "merged" / "new").touch()
        except OSError as error:
            return contents(tree / "merged"), os.strerror(error.errno or 0)
        return {}, "written"

    assert there(body) == ({"kept": "bottom", "old": None, "old/file": "bottom"}, "Read-only file system")


def test_scratch_is_forgotten_limited_and_looks_like_the_image(tree: Path, there: InThere) -> None:
    (tree / "top:,\\").chmod(0o751)

    def body() -> tuple[Any, ...]:
        before = procfs.mountinfo()
        overlay.mount(layered(tree, "scratch"), tree / "merged")
        new = [one.mount_point for one in procfs.mountinfo() if one not in before]
        mode = os.stat(tree / "merged").st_mode & 0o7777
        try:
            (tree / "merged" / "big").write_bytes(bytes(2 << 20))
        except OSError as error:
            refused = os.strerror(error.errno or 0)
        syscalls.umount2(str(tree / "merged"))
        return new, oct(mode), refused, procfs.mountinfo() == before

    merged, full = str(tree / "merged"), "No space left on device"
    assert there(body) == ([merged], oct(0o751), full, True)


def test_no_descriptor_is_left(tree: Path, there: InThere) -> None:
    def body() -> bool:
        before = set(os.listdir("/proc/self/fd"))
        overlay.mount(layered(tree, "scratch"), tree / "merged")
        try:
            overlay.mount(Overlay([tree / "bottom"]), "/proc/self/fdinfo/none")
        except InvalidConfig:
            return set(os.listdir("/proc/self/fd")) == before
        return False

    assert there(body)


def test_many_layers(tmp_path: Path, there: InThere) -> None:
    names = [f"{number:03}" for number in range(120)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    (tmp_path / "merged").mkdir()

    def body() -> list[str]:
        os.chdir(tmp_path)
        overlay.mount(Overlay([tmp_path / name for name in names[:40]]), tmp_path / "merged")
        return sorted(os.listdir("merged"))

    assert there(body) == names[:40]
    if overlay_takes_many():
        everything = Overlay([tmp_path / name for name in names])
        assert run_in_child(lambda: _listing(everything, tmp_path / "merged")) == names


def overlay_takes_many() -> bool:
    return run_in_child(overlay._knows_lowerdir_plus)


def _listing(one: Overlay, merged: Path) -> list[str]:
    alone(False, None)
    overlay.mount(one, merged)
    return sorted(os.listdir(merged))


def test_the_way_is_found_by_trying() -> None:
    """Kernels before 6.5 keep any option unread until the end, and must not be taken for one that knows it."""
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if not (6, 5) <= release < (6, 7):
        assert overlay_takes_many() == (release >= (6, 7))


def test_an_upper_in_use_and_an_upper_on_an_overlay_are_refused(tree: Path, there: InThere) -> None:
    def body() -> list[str]:
        one = layered(tree, "upper")
        overlay.mount(one, tree / "merged")
        said = []
        (tree / "merged" / "u").mkdir()
        (tree / "merged" / "w").mkdir()
        on_it = Overlay([tree / "bottom"], tree / "merged" / "u", tree / "merged" / "w")
        for wrong in (one, on_it):
            try:
                overlay.mount(wrong, tree / "merged")
            except InvalidConfig as error:
                said.append(str(error))
        return said

    in_use, on_overlay = there(body)
    assert in_use == f"upper, {tree}/upper,\\:, is in use: it is that of the overlay on {tree}/merged"
    assert "lies on an overlay itself" in on_overlay


def test_planted_attributes_lead_nowhere(tree: Path) -> None:
    """A layer from elsewhere may say by an attribute that a folder's contents are another's, or a file's data are."""
    (tree / "bottom" / "secret").mkdir(mode=0o700)
    (tree / "bottom" / "secret" / "file").write_text("secret")

    def body() -> list[str]:
        in_first = overlay._in_first_user_namespace()
        prefix = "trusted" if in_first else "user"
        planted = tree / "upper,\\:" / "public"
        planted.mkdir()
        try:
            os.setxattr(planted, f"{prefix}.overlay.redirect", b"/secret")
        except OSError:
            return []  # this file system has no such attributes
        alone(False, None)
        overlay.mount(layered(tree, "upper"), tree / "merged")
        try:
            return os.listdir(tree / "merged" / "public")
        except PermissionError:
            return []  # the kernel will not even show what it would have to follow

    assert run_in_child(body) == []


def test_refused_options_and_unknown_file_systems_explain_themselves(tree: Path) -> None:
    def options() -> None:
        alone(False, None)
        syscalls.mount("overlay", str(tree / "merged"), "overlay", 0, f"lowerdir={tree}/bottom,upperdir={tree}/work")

    with pytest.raises(OSError) as refused:
        run_in_child(options)
    assert "needs a workdir too" in refused.value.__notes__[0]

    def unknown() -> None:
        syscalls.fsopen("nosuchfs")

    with pytest.raises(OSError) as refused:
        run_in_child(unknown)
    assert "knows no file system 'nosuchfs'" in refused.value.__notes__[0]

    def conflict() -> None:
        alone(False, None)
        program = Program()
        context = program.call("fsopen", "overlay", c.FSOPEN_CLOEXEC, returns="overlay_context")
        program.call("fsconfig", context, c.FSCONFIG_CMD_CREATE, None, None, 0)
        program.perform()

    with pytest.raises(OSError) as refused:
        run_in_child(conflict)
    assert "dmesg" in refused.value.__notes__[0]


def test_on_the_lab_host_a_mount_ends_with_it(tree: Path) -> None:
    run_in_child(overlay.mount, layered(tree, "upper"), tree / "merged")
    assert run_in_child((tree / "merged" / "kept").read_text) == "top"
    host.reset()
    assert contents(tree / "merged") == {}
