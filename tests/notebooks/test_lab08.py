"""Lab 08: each likely mistake gets its own message, and other right ways than the course's pass."""

import os

import pytest

from labkit import host, procfs
from labkit.course.authoring.trial import attempt
from labkit.course.exercises.lab08 import overlay_checks
from labkit.course.exercises.lab08.exercises import MARKS
from labkit.course.framework.outcomes import NotYet, Passed

LAYER = """
def layer(image, home):
    for name in ("upper", "work", "merged"):
        os.mkdir(f"{home}/{name}")
    options = f"lowerdir={image},upperdir={home}/upper,workdir={home}/work"
    mount("overlay", f"{home}/merged", "overlay", 0, options + MARKS)
    return f"{home}/merged"
"""
FORGET = """
def forget(name, image, home):
    options = f"lowerdir={image},upperdir={home}/upper,workdir={home}/work"
    mount("overlay", f"{home}/merged", "overlay", 0, options + MARKS)
    os.remove(f"{home}/merged/{name}")
    umount2(f"{home}/merged", MNT_DETACH)
"""
PACK = """
def pack(upper, archive):
    with tarfile.open(archive, "w") as tar:
        for above, folders, files in os.walk(upper):
            for name in sorted([*folders, *files]):
                path = os.path.join(above, name)
                inside = os.path.relpath(path, upper)
                found = os.lstat(path)
                if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
                    gone = os.path.join(os.path.dirname(inside), ".wh." + name)
                    tar.addfile(tarfile.TarInfo(gone))
                    continue
                tar.add(path, inside, recursive=False)
                if stat.S_ISDIR(found.st_mode) and is_opaque(path):
                    tar.addfile(tarfile.TarInfo(f"{inside}/.wh..wh..opq"))
"""
MOUNT = '    mount("overlay", f"{home}/merged", "overlay", 0, options + MARKS)\n'
OPTIONS = '"lowerdir={image},upperdir={home}/upper,workdir={home}/work"'


def changed(code: str, old: str, new: str = "") -> str:
    """`code` with one line, or a part of one, exchanged."""
    assert code.count(old) == 1, old
    return code.replace(old, new)


MISTAKES = {
    # layer
    "returns nothing": ("layer", changed(LAYER, '    return f"{home}/merged"\n'), "returned None"),
    "mounts nothing": ("layer", changed(LAYER, MOUNT), "does not show the image"),
    "returns the wrong folder": (
        "layer",
        changed(LAYER, 'return f"{home}/merged"', 'return f"{home}/upper"'),
        "does not show the image",
    ),
    "no folder upper": (
        "layer",
        changed(LAYER, '("upper", "work", "merged")', '("work", "merged")'),
        "upperdir: there is no folder",
    ),
    "no mount point": ("layer", changed(LAYER, '("upper", "work", "merged")', '("upper", "work")'), "must exist"),
    "no workdir": ("layer", changed(LAYER, ",workdir={home}/work"), "needs a workdir too"),
    "no lowerdir": ("layer", changed(LAYER, "lowerdir={image},"), "needs lowerdir=FOLDER"),
    "work inside upper": (
        "layer",
        changed(changed(LAYER, '"work", "merged"', '"upper/work", "merged"'), "{home}/work", "{home}/upper/work"),
        "side by side",
    ),
    "only lower": ("layer", changed(LAYER, ",upperdir={home}/upper,workdir={home}/work"), "two lower layers"),
    "lower twice, no upper": (
        "layer",
        changed(LAYER, OPTIONS, '"lowerdir={image}:{home}/upper"'),
        "its root is read-only",
    ),
    "the image above": (
        "layer",
        changed(LAYER, OPTIONS, '"lowerdir={home}/upper,upperdir={image},workdir={image}-work"').replace(
            "    options", '    os.makedirs(f"{image}-work", exist_ok=True)\n    options'
        ),
        "*upper* layer",
    ),
    "a bind mount": (
        "layer",
        changed(LAYER, MOUNT, '    mount(image, f"{home}/merged", None, MS_BIND)\n'),
        "only shows it a second time",
    ),
    "the image itself": ("layer", "def layer(image, home):\n    return image\n", "the same folder"),
    "a link": (
        "layer",
        'def layer(image, home):\n    os.symlink(image, f"{home}/merged")\n    return f"{home}/merged"\n',
        "The image itself was changed",
    ),
    "a copy": (
        "layer",
        """
def layer(image, home):
    shutil.copytree(image, f"{home}/merged", symlinks=True)
    return f"{home}/merged"
""",
        "It is a copy",
    ),
    "one upper for all": (
        "layer",
        """
def layer(image, home):
    os.mkdir(f"{home}/merged")
    for name in ("upper", "work"):
        os.makedirs(f"{image}-{name}", exist_ok=True)
    options = f"lowerdir={image},upperdir={image}-upper,workdir={image}-work"
    mount("overlay", f"{home}/merged", "overlay", 0, options + MARKS)
    return f"{home}/merged"
""",
        "the boxes share what they write",
    ),
    "changes are kept elsewhere": (
        "layer",
        """
def layer(image, home):
    os.mkdir(f"{home}/merged")
    for name in ("upper", "work"):
        os.makedirs(f"{home}-{name}")
    options = f"lowerdir={image},upperdir={home}-upper,workdir={home}-work"
    mount("overlay", f"{home}/merged", "overlay", 0, options + MARKS)
    return f"{home}/merged"
""",
        "is not in that folder",
    ),
    # forget
    "deletes it in the image": (
        "forget",
        'def forget(name, image, home):\n    os.remove(f"{image}/{name}")\n',
        "every box has lost it",
    ),
    "deletes it in the upper layer": (
        "forget",
        'def forget(name, image, home):\n    os.remove(f"{home}/upper/{name}")\n',
        "with the image's contents",
    ),
    "deletes it in both": (
        "forget",
        'def forget(name, image, home):\n    os.remove(f"{home}/upper/{name}")\n    os.remove(f"{image}/{name}")\n',
        "every box has lost it",
    ),
    "deletes nothing": (
        "forget",
        changed(FORGET, '    os.remove(f"{home}/merged/{name}")\n'),
        "Nothing has been deleted yet",
    ),
    "deletes all": (
        "forget",
        changed(FORGET, 'os.remove(f"{home}/merged/{name}")', 'shutil.rmtree(f"{home}/upper")')
        + '    os.mkdir(f"{home}/upper")\n',
        "was to stay",
    ),
    "empties it": (
        "forget",
        changed(FORGET, 'os.remove(f"{home}/merged/{name}")', 'open(f"{home}/merged/{name}", "w").close()'),
        "An empty file is a file",
    ),
    "an archive's mark": (
        "forget",
        """
def forget(name, image, home):
    os.remove(f"{home}/upper/{name}")
    open(f"{home}/upper/.wh.{name}", "w").close()
""",
        "So a deletion is written in an *archive*",
    ),
    "looks at merged without mounting": (
        "forget",
        'def forget(name, image, home):\n    os.remove(f"{home}/merged/{name}")\n',
        "FileNotFoundError",
    ),
    "deletes, and then the layer is emptied": (
        "forget",
        changed(FORGET, "    umount2", '    os.remove(f"{home}/upper/{name}")\n    umount2'),
        "It was gone from `merged` as long as",
    ),
    # pack
    "no archive": ("pack", "def pack(upper, archive):\n    list(os.walk(upper))\n", "There is no file at the path"),
    "no tar": ("pack", 'def pack(upper, archive):\n    open(archive, "w").write("x" * 2000)\n', "is no tar archive"),
    "an empty archive": ("pack", 'def pack(upper, archive):\n    tarfile.open(archive, "w").close()\n', "is empty"),
    "whole paths": (
        "pack",
        changed(PACK, "inside = os.path.relpath(path, upper)", "inside = path"),
        "the path on this host",
    ),
    "whiteouts as they are": (
        "pack",
        'def pack(upper, archive):\n    with tarfile.open(archive, "w") as tar:\n        tar.add(upper, ".")\n',
        "packed the whiteout as it is",
    ),
    "whiteouts left out": (
        "pack",
        changed(PACK, "                    tar.addfile(tarfile.TarInfo(gone))\n"),
        "gives back `etc/motd`",
    ),
    "a whiteout at the top": (
        "pack",
        changed(PACK, 'os.path.join(os.path.dirname(inside), ".wh." + name)', '".wh." + name'),
        "gives back `etc/motd`",
    ),
    "not opaque": (
        "pack",
        changed(PACK, "stat.S_ISDIR(found.st_mode) and is_opaque(path)", "False"),
        "is *opaque*",
    ),
    "follows links": (
        "pack",
        changed(PACK, 'tarfile.open(archive, "w")', 'tarfile.open(archive, "w", dereference=True)'),
        "you have packed what it points to",
    ),
    "names without contents": (
        "pack",
        changed(PACK, "tar.add(path, inside, recursive=False)", "tar.addfile(tar.gettarinfo(path, inside))").replace(
            "tar.gettarinfo(path, inside)", "_empty(tar.gettarinfo(path, inside))"
        )
        + "\n\ndef _empty(info):\n    info.size = 0\n    return info\n",
        "only its name",
    ),
    "not the folders below": (
        "pack",
        changed(
            PACK, "                path = os", "                if above != upper: continue\n                path = os"
        ),
        "gives back `etc/motd`",
    ),
    "everything that is seen": (
        "pack",
        changed(PACK, "os.walk(upper)", 'os.walk(upper.replace("/upper", "/merged"))').replace(
            "os.path.relpath(path, upper)", 'os.path.relpath(path, upper.replace("/upper", "/merged"))'
        ),
        "never changed",
    ),
    "files alone": (
        "pack",
        changed(PACK, "sorted([*folders, *files])", "sorted(files)"),
        "The new folder is *opaque*",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gets_its_own_message(mistake: str) -> None:
    exercise, code, words = MISTAKES[mistake]
    outcome = attempt("08", exercise, code)
    assert isinstance(outcome, NotYet), outcome
    assert words in outcome.seen + outcome.why, outcome


RIGHT = {
    "in a mount namespace of its own": (
        "layer",
        changed(
            LAYER,
            "    for name",
            '    unshare(CLONE_NEWNS)\n    mount(None, "/", None, MS_REC | MS_PRIVATE)\n    for name',
        ),
    ),
    "mounted on the home itself": (
        "layer",
        """
def layer(image, home):
    for name in ("a", "b"):
        os.mkdir(f"{home}/{name}")
    mount("overlay", home, "overlay", 0, f"lowerdir={image},upperdir={home}/a,workdir={home}/b{MARKS}")
    return home
""",
    ),
    "the package": (
        "layer",
        """
def layer(image, home):
    from labkit import overlay
    for name in ("upper", "work", "merged"):
        os.mkdir(f"{home}/{name}")
    overlay.mount(Overlay([image], f"{home}/upper", f"{home}/work"), f"{home}/merged")
    return f"{home}/merged"
""",
    ),
    "the mount program": (
        "layer",
        """
def layer(image, home):
    import subprocess
    for name in ("upper", "work", "merged"):
        os.mkdir(f"{home}/{name}")
    options = f"lowerdir={image},upperdir={home}/upper,workdir={home}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", options + MARKS, "overlay", f"{home}/merged"], check=True)
    return Path(home, "merged")
""",
    ),
    "a tmpfs for the changes": (
        "layer",
        changed(LAYER, "    for name", '    mount("tmpfs", home, "tmpfs")\n    for name'),
    ),
    "left mounted": ("forget", changed(FORGET, '    umount2(f"{home}/merged", MNT_DETACH)\n')),
    "a whiteout by hand": (
        "forget",
        """
def forget(name, image, home):
    os.remove(f"{home}/upper/{name}")
    os.mknod(f"{home}/upper/{name}", stat.S_IFCHR | 0o600, os.makedev(0, 0))
""",
    ),
    "in a mount namespace, and renamed away first": (
        "forget",
        """
def forget(name, image, home):
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    options = f"lowerdir={image},upperdir={home}/upper,workdir={home}/work"
    mount("overlay", f"{home}/merged", "overlay", 0, options + MARKS)
    os.rename(f"{home}/merged/{name}", f"{home}/merged/other")
    os.remove(f"{home}/merged/other")
""",
    ),
    "compressed, with leading dots": (
        "pack",
        changed(PACK, 'tarfile.open(archive, "w")', 'tarfile.open(archive, "w:gz")').replace(
            "inside = os.path.relpath(path, upper)", 'inside = "./" + os.path.relpath(path, upper)'
        ),
    ),
    "the package's changeset": (
        "pack",
        'def pack(upper, archive):\n    with open(archive, "wb") as file:\n        changeset.as_tar(upper, file)\n',
    ),
    "marks last": (
        "pack",
        """
def pack(upper, archive):
    marks = []
    with tarfile.open(archive, "w") as tar:
        for path in sorted(Path(upper).rglob("*")):
            inside = path.relative_to(upper)
            if path.is_char_device() and not path.is_symlink():
                marks.append(inside.with_name(".wh." + path.name))
                continue
            tar.add(path, str(inside), recursive=False)
            if path.is_dir() and not path.is_symlink() and is_opaque(str(path)):
                marks.append(inside / ".wh..wh..opq")
        for mark in marks:
            tar.addfile(tarfile.TarInfo(str(mark)))
""",
    ),
}


@pytest.mark.parametrize("way", RIGHT)
def test_another_right_way_passes(way: str) -> None:
    exercise, code = RIGHT[way]
    outcome = attempt("08", exercise, code)
    assert isinstance(outcome, Passed), outcome


def test_checks_mount_nothing_on_the_lab_host() -> None:
    lab_host = host.pid()
    before = procfs.mountinfo(lab_host)
    for mistake in ("one upper for all", "a bind mount", "the image above"):
        exercise, code, _ = MISTAKES[mistake]
        attempt("08", exercise, code)
    assert attempt("08", "layer", LAYER).word == "passed"
    assert procfs.mountinfo(lab_host) == before


def test_a_place_is_found_where_files_lie_on_an_overlay(tmp_path_factory: pytest.TempPathFactory) -> None:
    """As in a container, whose own files lie on an overlay: there the workshop is a tmpfs."""
    with overlay_checks.place() as here:
        lower, upper, work, merged = here.make("lower", "upper", "work", "merged")
        options = f"lowerdir={lower},upperdir={upper},workdir={work}{MARKS}"
        here.do(_mount_overlay, merged, options)
        found = here.do(_room_in, merged)
    assert found == ("overlay", "tmpfs")


def _mount_overlay(merged: str, options: str) -> None:
    from labkit.syscalls import mount

    mount("overlay", merged, "overlay", 0, options)


def _room_in(folder: str) -> tuple[str, str]:
    from labkit.course.experiments.overlay_scratch import make_room

    os.mkdir(f"{folder}/tmp")
    before = [one.filesystem for one in procfs.mountinfo() if one.mount_point == folder][-1]
    make_room(f"{folder}/tmp")
    return before, [one.filesystem for one in procfs.mountinfo() if one.mount_point == f"{folder}/tmp"][-1]
