"""What a layer changes, as a list and as a tar archive; and that no layer leads its reader outside."""

import io
import os
import socket
import stat
import tarfile
from pathlib import Path

import pytest

from labkit import changeset
from labkit.changeset import Change, Skipped
from labkit.errors import InvalidConfig, LabkitError
from labkit.overlay import layer_reader
from tests.requirements import machine_cannot


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    (tmp_path / "upper").mkdir()
    return tmp_path / "upper"


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    (tmp_path / "lower").mkdir()
    return tmp_path / "lower"


def whiteout(path: Path) -> None:
    """Anybody may make the device 0:0, which is none."""
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(0, 0))


def mark(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, f"user.overlay.{name}", value)
    except OSError:
        machine_cannot("keep user.* attributes in the folder for temporary files")


def tar_of(upper: Path) -> tarfile.TarFile:
    buffer = io.BytesIO()
    changeset.as_tar(upper, buffer)
    buffer.seek(0)
    return tarfile.open(fileobj=buffer)


def names(upper: Path) -> list[str]:
    return [member.name for member in tar_of(upper)]


def test_added_modified_deleted(upper: Path, lower: Path) -> None:
    for name in ("changed", "gone", "same", "folder/inner", "was-file"):
        (lower / name).parent.mkdir(exist_ok=True)
        (lower / name).write_text("below")
    (upper / "new").touch()
    (upper / "changed").touch()
    whiteout(upper / "gone")
    whiteout(upper / "never-was")
    (upper / "folder").mkdir()
    (upper / "folder" / "more").touch()
    whiteout(upper / "folder" / "inner")
    (upper / "was-file").mkdir()
    (upper / "was-file" / "x").touch()
    assert changeset.changes(upper, lower) == [
        Change("modified", "changed"),
        Change("modified", "folder"),
        Change("deleted", "folder/inner"),
        Change("added", "folder/more"),
        Change("deleted", "gone"),
        Change("added", "new"),
        Change("modified", "was-file"),
        Change("added", "was-file/x"),
    ]
    assert names(upper) == [
        ".wh.gone",
        ".wh.never-was",
        "changed",
        "folder",
        "folder/.wh.inner",
        "folder/more",
        "new",
        "was-file",
        "was-file/x",
    ]


def test_several_layers_below_hide_each_other(upper: Path, tmp_path: Path) -> None:
    top, bottom = tmp_path / "top", tmp_path / "bottom"
    for layer in (top, bottom):
        layer.mkdir()
    (bottom / "a").touch()
    (bottom / "d").mkdir()
    (bottom / "d" / "x").touch()
    (bottom / "e").mkdir()
    (bottom / "e" / "y").touch()
    whiteout(top / "a")
    (top / "d").mkdir()
    (top / "e").touch()
    for name in ("a", "d/x", "e/y"):
        (upper / name).parent.mkdir(exist_ok=True)
        (upper / name).touch()
    assert changeset.changes(upper, [top, bottom]) == [
        Change("added", "a"),  # it was deleted in between
        Change("modified", "d"),
        Change("modified", "d/x"),
        Change("modified", "e"),
        Change("added", "e/y"),  # a file in between hides the folder
    ]
    assert Change("modified", "a") in changeset.changes(upper, [bottom, top])
    assert {change.kind for change in changeset.changes(upper, [])} == {"added"}


def test_opaque_folders_and_whiteouts_by_attribute(upper: Path, lower: Path) -> None:
    for name in ("o", "x"):
        (lower / name).mkdir()
        (upper / name).mkdir()
        (lower / name / "old").write_text("below")
        (upper / name / "old").touch()
    mark(upper / "o", "opaque", b"y")
    mark(upper / "x", "opaque", b"x")
    mark(upper / "x" / "old", "whiteout", b"y")
    (upper / "plain").touch()
    mark(upper / "plain", "whiteout", b"y")  # only in a folder marked so does it count
    assert changeset.changes(upper, lower) == [
        Change("modified", "o", opaque=True),
        Change("added", "o/old"),
        Change("added", "plain"),
        Change("modified", "x"),
        Change("deleted", "x/old"),
    ]
    assert names(upper) == ["o", "o/.wh..wh..opq", "o/old", "plain", "x", "x/.wh.old"]
    mark(upper, "opaque", b"y")
    assert names(upper)[0] == ".wh..wh..opq"


def test_a_member_is_what_the_file_is(upper: Path) -> None:
    (upper / "file").write_bytes(b"contents")
    (upper / "file").chmod(0o4751)
    os.utime(upper / "file", (1, 86_399.75))
    os.link(upper / "file", upper / "second")
    (upper / "link").symlink_to("/etc/passwd")
    os.mkfifo(upper / "fifo", 0o640)
    (upper / "fifo").chmod(0o640)
    (upper / "folder").mkdir()
    (upper / "folder").chmod(0o1777)
    found = {member.name: member for member in tar_of(upper)}
    file = found["file"]
    assert (file.mode, file.mtime, file.size, file.uid, file.gid) == (0o4751, 86_399, 8, os.getuid(), os.getgid())
    assert (file.uname, file.gname) == ("", "")
    assert (found["second"].type, found["second"].linkname) == (tarfile.LNKTYPE, "file")
    assert (found["link"].type, found["link"].linkname) == (tarfile.SYMTYPE, "/etc/passwd")
    assert (found["fifo"].type, found["fifo"].mode) == (tarfile.FIFOTYPE, 0o640)
    assert (found["folder"].type, found["folder"].mode) == (tarfile.DIRTYPE, 0o1777)
    contents = tar_of(upper).extractfile("file")
    assert contents
    assert contents.read() == b"contents"


def test_attributes_travel_and_the_overlays_own_do_not(upper: Path) -> None:
    (upper / "file").touch()
    mark(upper / "file", "origin", b"x")
    os.setxattr(upper / "file", "user.note", b"\xff\0y")
    (member,) = tar_of(upper)
    assert {name: value for name, value in member.pax_headers.items() if name.startswith("SCHILY")} == {
        "SCHILY.xattr.user.note": b"\xff\0y".decode("utf-8", "surrogateescape")
    }


def test_devices(upper: Path) -> None:
    try:
        os.mknod(upper / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(upper / "disk", stat.S_IFBLK | 0o600, os.makedev(254, 77))
    except PermissionError:
        machine_cannot("make device files as this user")
    found = {member.name: (member.type, member.devmajor, member.devminor) for member in tar_of(upper)}
    assert found == {"null": (tarfile.CHRTYPE, 1, 3), "disk": (tarfile.BLKTYPE, 254, 77)}


def test_what_an_archive_cannot_carry_is_said(upper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(upper)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    (upper / ".wh.passwd").touch()  # unpacked again it would delete passwd
    (upper / ".wh..wh..opq").mkdir()
    (upper / ".wh..wh..opq" / "inner").touch()
    (upper / "kept").touch()
    buffer = io.BytesIO()
    skipped = changeset.as_tar(upper, buffer)
    assert [one.path for one in skipped] == [".wh..wh..opq", ".wh.passwd", "socket"]
    assert all(isinstance(one, Skipped) and one.why for one in skipped)
    assert names(upper) == ["kept"]


def test_the_same_layer_gives_the_same_bytes(upper: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    for folder, order in ((upper, ("b", "a", "ä", "c\n")), (again, ("c\n", "ä", "a", "b"))):
        for name in order:
            (folder / name).write_text(name)
            os.utime(folder / name, (0, 1000.5 if folder is upper else 1000.25))
    first, second = io.BytesIO(), io.BytesIO()
    changeset.as_tar(upper, first)
    changeset.as_tar(again, second)
    assert first.getvalue() == second.getvalue()


def test_hostile_names_and_links_lead_nowhere(upper: Path, lower: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    odd = ["new\nline", "-rf", "..x", "back\\slash", " ", "\x7f", os.fsdecode(b"\xff\xfe"), "x" * 255]
    for name in odd:
        (upper / name).write_text("odd")
    (upper / "out").symlink_to(outside)
    (upper / "up").symlink_to("../outside")
    (upper / "etc").mkdir()
    (upper / "etc" / "secret").touch()
    (lower / "etc").symlink_to(outside)  # below, the folder is a way out
    before = {path: path.stat() for path in outside.rglob("*")}
    found = changeset.changes(upper, lower)
    assert {change.path for change in found} == {*odd, "out", "up", "etc", "etc/secret"}
    assert Change("modified", "etc") in found
    assert Change("added", "etc/secret") in found, "the link below was followed"
    members = {member.name: member for member in tar_of(upper)}
    assert set(members) == {*odd, "out", "up", "etc", "etc/secret"}
    assert members["out"].issym()
    assert not any(name.startswith("out/") for name in members)
    assert {path: path.stat() for path in outside.rglob("*")} == before


def test_a_folder_exchanged_for_a_link_meanwhile(upper: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    with layer_reader.opened(upper) as top:
        (upper / "folder").symlink_to(outside)
        with pytest.raises(LabkitError, match="'folder' was replaced"):
            layer_reader.entries_of(top, "folder")
        (upper / "file").write_text("mine")
        (entry,) = (one for one in layer_reader.entries_of(top, "") if one.name == "file")
        (upper / "file").unlink()
        (upper / "file").symlink_to(outside / "secret")
        with pytest.raises(LabkitError, match="'file' was replaced"), layer_reader.contents(top, entry):
            pass
        (upper / "file").unlink()
        with pytest.raises(LabkitError, match="'file' was replaced"), layer_reader.contents(top, entry):
            pass


def test_a_file_that_shrinks_while_it_is_read(upper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (upper / "log").write_bytes(bytes(1000))
    contents = layer_reader.contents

    def shrunk(top: int, entry: layer_reader.Entry):  # type: ignore[no-untyped-def]
        os.truncate(upper / "log", 10)
        return contents(top, entry)

    monkeypatch.setattr(layer_reader, "contents", shrunk)
    with pytest.raises(LabkitError, match="'log' changed while it was read"):
        changeset.as_tar(upper, io.BytesIO())


def test_too_deep_is_said(upper: Path) -> None:
    here = os.open(upper, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    with pytest.raises(LabkitError, match="deeper than a path can name"):
        changeset.as_tar(upper, io.BytesIO())


@pytest.mark.parametrize(
    ("attribute", "setting"), [("redirect", "redirect_dir=nofollow"), ("metacopy", "metacopy=off")]
)
def test_a_layer_that_points_into_those_below_is_refused(attribute: str, setting: str, upper: Path) -> None:
    (upper / "folder").mkdir()
    mark(upper / "folder", attribute, b"/elsewhere")
    for act in (lambda: changeset.as_tar(upper, io.BytesIO()), lambda: changeset.changes(upper, [])):
        with pytest.raises(LabkitError, match=setting):
            act()


def test_what_is_no_layer(upper: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(upper)
    (tmp_path / "file").touch()
    for wrong in ("missing", "link", "file"):
        with pytest.raises(InvalidConfig, match="is not a folder"):
            changeset.changes(tmp_path / wrong, [])
        with pytest.raises(InvalidConfig, match="is not a folder"):
            changeset.changes(upper, [tmp_path / wrong])


def test_no_descriptor_is_left(upper: Path, lower: Path) -> None:
    (upper / "a").mkdir()
    (upper / "a" / "b").touch()
    before = set(os.listdir("/proc/self/fd"))
    changeset.changes(upper, lower)
    changeset.as_tar(upper, io.BytesIO())
    assert set(os.listdir("/proc/self/fd")) == before
