"""Lab 07: each likely mistake gets its own message, and other right ways than the course's pass."""

import os
import shutil
from pathlib import Path

import pytest

from labkit import cgroups, host, procfs, rootfs
from labkit.course.authoring.trial import attempt, defined_in
from labkit.course.framework.outcomes import NotYet, Passed
from labkit.process import run_in_child
from tests.requirements import machine_cannot

AS_ROOT = os.geteuid() == 0

BUILD = """
def build(folder, busybox):
    for name in ("bin", "dev", "proc", "tmp"):
        os.mkdir(f"{folder}/{name}")
    shutil.copy2(busybox, f"{folder}/bin/busybox")
    for name in COMMANDS:
        os.symlink("busybox", f"{folder}/bin/{name}")
"""
ENTER = """
def enter(root):
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount(root, root, None, MS_BIND | MS_REC)
    os.chdir(root)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chdir("/")
"""
ESCAPE = """
def escape():
    os.mkdir("deeper")
    os.chroot("deeper")
    for _ in range(50):
        os.chdir("..")
    os.chroot(".")
"""
FURNISH = """
def furnish(root):
    mount("proc", in_root(root, "proc"), "proc")
    mount("tmpfs", in_root(root, "dev"), "tmpfs", 0, "mode=755,size=64k")
    dev = in_root(root, "dev")
    for name in DEVICES:
        open(f"{dev}/{name}", "w").close()
        mount(f"/dev/{name}", f"{dev}/{name}", None, MS_BIND)
"""
#: As courses and runtimes have it that trust the image.
TRUSTING = """
def furnish(root):
    mount("proc", f"{root}/proc", "proc")
    for name in DEVICES:
        open(f"{root}/dev/{name}", "w").close()
        mount(f"/dev/{name}", f"{root}/dev/{name}", None, MS_BIND)
"""


def changed(code: str, old: str, new: str = "") -> str:
    """`code` with one line, or a part of one, exchanged."""
    assert code.count(old) == 1, old
    return code.replace(old, new)


MISTAKES = {
    # build
    "no folder for /proc": ("build", changed(BUILD, '"bin", "dev", "proc", "tmp"', '"bin", "dev", "tmp"'), "`/proc`"),
    "one name is missing": ("build", changed(BUILD, "in COMMANDS", "in COMMANDS[:-1]"), "no command"),
    "links to the path on the host": (
        "build",
        changed(BUILD, 'os.symlink("busybox",', 'os.symlink(f"{folder}/bin/busybox",'),
        "leads nowhere",
    ),
    "copied without its mode": ("build", changed(BUILD, "copy2", "copyfile"), "nobody may execute it"),
    "a program that is not static": (
        "build",
        changed(BUILD, "copy2(busybox,", 'copy2("/bin/sh",'),
        "*loader*",
    ),
    # escape
    "only climbs": (
        "escape",
        'def escape():\n    for _ in range(50):\n        os.chdir("..")\n    os.chroot(".")\n',
        "the same root as before",
    ),
    "follows the second chroot": (
        "escape",
        changed(ESCAPE, '    os.chroot("deeper")\n', '    os.chroot("deeper")\n    os.chdir("/")\n'),
        "deeper in the jail",
    ),
    "does not climb": (
        "escape",
        'def escape():\n    os.mkdir("deeper")\n    os.chroot("deeper")\n',
        "deeper in the jail",
    ),
    "no last chroot": ("escape", changed(ESCAPE, '    os.chroot(".")\n'), "One call more"),
    "too few steps": ("escape", changed(ESCAPE, "range(50)", "range(2)"), "not at the top yet"),
    "imports inside": ("escape", "def escape():\n    import wsgiref.simple_server\n", "Import above the function"),
    # enter
    "no mount namespace": (
        "enter",
        changed(ENTER, "    unshare(CLONE_NEWNS)\n"),
        "the lab host's own mount namespace",
    ),
    "no bind mount": (
        "enter",
        changed(ENTER, "    mount(root, root, None, MS_BIND | MS_REC)\n"),
        "Bind-mount it on itself",
    ),
    "shared": (
        "enter",
        changed(ENTER, '    mount(None, "/", None, MS_REC | MS_PRIVATE)\n'),
        "shared mount",
    ),
    "leaks first, private later": (
        "enter",
        """
def enter(root):
    unshare(CLONE_NEWNS)
    mount(root, root, None, MS_BIND | MS_REC)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    os.chdir(root)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chdir("/")
""",
        "leaked",
    ),
    "chroot": (
        "enter",
        """
def enter(root):
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    os.chroot(root)
    os.chdir("/")
""",
        "its mount namespace has not",
    ),
    "only a mount namespace": (
        "enter",
        """
def enter(root):
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    os.chdir(root)
""",
        "exchanges the root mount",
    ),
    "old root still mounted": (
        "enter",
        """
def enter(root):
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount(root, root, None, MS_BIND | MS_REC)
    os.mkdir(f"{root}/old")
    pivot_root(root, f"{root}/old")
    os.chdir("/")
""",
        "The old root is still there",
    ),
    "unmounted without MNT_DETACH": (
        "enter",
        changed(ENTER, 'umount2(".", MNT_DETACH)', 'umount2(".")'),
        "MNT_DETACH waits",
    ),
    "forgotten chdir": (
        "enter",
        """
def enter(root):
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount(root, root, None, MS_BIND | MS_REC)
    os.mkdir(f"{root}/old")
    pivot_root(root, f"{root}/old")
    umount2("/old", MNT_DETACH)
""",
        "working directory is still",
    ),
    "a descriptor left open": (
        "enter",
        changed(ENTER, "    unshare(CLONE_NEWNS)\n", '    os.open("/", os.O_RDONLY)\n    unshare(CLONE_NEWNS)\n'),
        "is still open on a folder",
    ),
    # furnish
    "no /dev": (
        "furnish",
        'def furnish(root):\n    mount("proc", f"{root}/proc", "proc")\n',
        "There is no `/dev/null`",
    ),
    "ordinary files": (
        "furnish",
        changed(FURNISH, '        mount(f"/dev/{name}", f"{dev}/{name}", None, MS_BIND)\n'),
        "is no device",
    ),
    "the whole /dev of the host": (
        "furnish",
        """
def furnish(root):
    mount("proc", f"{root}/proc", "proc")
    mount("/dev", f"{root}/dev", None, MS_BIND | MS_REC)
""",
        "that no shell needs",
    ),
    "one device for all": (
        "furnish",
        changed(FURNISH, 'mount(f"/dev/{name}",', 'mount("/dev/null",'),
        "The pair says",
    ),
    "no /proc": (
        "furnish",
        changed(FURNISH, '    mount("proc", in_root(root, "proc"), "proc")\n'),
        "lists no process",
    ),
    "the host's /proc": (
        "furnish",
        changed(TRUSTING, 'mount("proc", f"{root}/proc", "proc")', 'mount("/proc", f"{root}/proc", None, MS_BIND)'),
        "outer PID namespace",
    ),
    "an absolute second part": (
        "furnish",
        """
def furnish(root):
    mount("proc", os.path.join(root, "/proc"), "proc")
""",
        "There is no `/dev/null`",
    ),
    "a nodev file system": (
        "furnish",
        changed(
            FURNISH,
            "    for name in DEVICES:\n",
            "    for name in DEVICES:\n        from labkit.constants import MS_NODEV, MS_REMOUNT\n",
        )
        + '        mount(None, f"{dev}/{name}", None, MS_BIND | MS_REMOUNT | MS_NODEV)\n',
        "`nodev`",
    ),
    "trusts the image": ("furnish", TRUSTING, "was changed through a link of the image"),
    "looks at the last name only": (
        "furnish",
        changed(
            TRUSTING,
            '        open(f"{root}/dev/{name}", "w").close()\n',
            '        os.close(os.open(f"{root}/dev/{name}", os.O_CREAT | os.O_NOFOLLOW, 0o600))\n',
        ),
        "through a link of the image",
    ),
    "the mount program": (
        "furnish",
        """
def furnish(root):
    import subprocess
    subprocess.run(["mount", "-t", "proc", "proc", f"{root}/proc"], check=True)
    for name in DEVICES:
        subprocess.run(["touch", f"{root}/dev/{name}"], check=True)
        subprocess.run(["mount", "--bind", f"/dev/{name}", f"{root}/dev/{name}"], check=True)
""",
        "was made through a link of the image",
    ),
}
MKNOD = """
def furnish(root):
    mount("proc", in_root(root, "proc"), "proc")
    dev = in_root(root, "dev")
    for name, (major, minor) in DEVICES.items():
        os.mknod(f"{dev}/{name}", 0o666 | stat.S_IFCHR, os.makedev(major, minor))
"""
MISTAKES["mknod"] = ("furnish", MKNOD, "umask took bits") if AS_ROOT else ("furnish", MKNOD, "nobody may make devices")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gets_its_own_message(mistake: str) -> None:
    exercise, code, words = MISTAKES[mistake]
    outcome = attempt("07", exercise, code)
    assert isinstance(outcome, NotYet), outcome
    assert words in outcome.seen + outcome.why, outcome


RIGHT = {
    "hard links": (
        "build",
        changed(BUILD, 'os.symlink("busybox",', 'os.link(f"{folder}/bin/busybox",'),
    ),
    "absolute links": ("build", changed(BUILD, 'os.symlink("busybox",', 'os.symlink("/bin/busybox",')),
    "the program installs its own names": (
        "build",
        """
def build(folder, busybox):
    import subprocess
    for name in ("bin", "dev", "proc", "tmp"):
        os.mkdir(f"{folder}/{name}")
    shutil.copy(busybox, f"{folder}/bin/busybox")
    subprocess.run([busybox, "--install", "-s", f"{folder}/bin"], check=True, stdout=subprocess.DEVNULL)
    for name in COMMANDS:
        os.remove(f"{folder}/bin/{name}")
        os.symlink("busybox", f"{folder}/bin/{name}")
""",
    ),
    "a copy of the course's": (
        "build",
        (
            "def build(folder, busybox):\n"
            "    shutil.copytree(os.path.dirname(os.path.dirname(busybox)), folder, symlinks=True, "
            "dirs_exist_ok=True)\n"
        ),
    ),
    "with a descriptor": (
        "escape",
        """
def escape():
    top = os.open("/", os.O_RDONLY)
    os.mkdir("deeper")
    os.chroot("deeper")
    os.fchdir(top)
    while os.stat(".").st_ino != os.stat("..").st_ino or os.stat(".").st_dev != os.stat("..").st_dev:
        os.chdir("..")
    os.chroot(".")
""",
    ),
    "no last chdir, since the first did it": ("enter", changed(ENTER, '    os.chdir("/")\n')),
    "put_old and rmdir": (
        "enter",
        """
def enter(root):
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount(root, root, None, MS_BIND)
    os.mkdir(f"{root}/old")
    pivot_root(root, f"{root}/old")
    os.chdir("/")
    umount2("/old", MNT_DETACH)
    os.rmdir("/old")
""",
    ),
    "with descriptors": (
        "enter",
        """
def enter(root):
    unshare(CLONE_NEWNS)
    rootfs.enter(root, plan=())
""",
    ),
    "slave, and a /proc of its own": (
        "enter",
        """
def enter(root):
    from labkit.constants import MS_SLAVE
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_SLAVE)
    mount(root, root, None, MS_BIND)
    mount("tmpfs", f"{root}/tmp", "tmpfs")
    old = os.open("/", os.O_RDONLY)
    os.chdir(root)
    pivot_root(".", ".")
    os.fchdir(old)
    umount2(".", MNT_DETACH)
    os.chdir("/")
    os.close(old)
""",
    ),
    "an empty folder remains": (
        "enter",
        """
def enter(root):
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount(root, root, None, MS_BIND)
    os.mkdir(f"{root}/old")
    pivot_root(root, f"{root}/old")
    os.chdir("/")
    umount2("/old", MNT_DETACH)
""",
    ),
    "a tmpfs, with more names": (
        "furnish",
        """
def furnish(root):
    mount("proc", f"{root}/proc", "proc")
    mount("tmpfs", f"{root}/dev", "tmpfs", 0, "mode=755")
    for name in [*DEVICES, "full"]:
        open(f"{root}/dev/{name}", "w").close()
        mount(f"/dev/{name}", f"{root}/dev/{name}", None, MS_BIND)
    os.symlink("/proc/self/fd", f"{root}/dev/fd")
    os.mkdir(f"{root}/dev/pts")
""",
    ),
    "only what it has made itself": (
        "furnish",
        """
def furnish(root):
    if os.path.islink(f"{root}/dev") or os.listdir(f"{root}/dev"):
        raise OSError(errno.EEXIST, "the image has a /dev of its own")
"""
        + TRUSTING.partition("\n")[2].partition("\n")[2],
    ),
    "as a process whose root it is": (
        "furnish",
        """
def furnish(root):
    devices = {name: os.open(f"/dev/{name}", os.O_PATH) for name in DEVICES}
    os.chroot(root)
    os.chdir("/")
    mount("proc", "/proc", "proc")
    mount("tmpfs", "/dev", "tmpfs")
    for name, fd in devices.items():
        open(f"/dev/{name}", "w").close()
        mount(f"/proc/self/fd/{fd}", f"/dev/{name}", None, MS_BIND)
""",
    ),
}
if AS_ROOT:
    RIGHT["through another process's root"] = (
        "escape",
        """
def escape():
    os.mkdir("proc")
    mount("proc", "proc", "proc")
    parent = os.getppid()
    os.chroot(f"/proc/{parent}/root")
    os.chdir("/")
""",
    )
    RIGHT["mknod"] = ("furnish", MKNOD + '        os.chmod(f"{dev}/{name}", 0o666)\n')


@pytest.mark.parametrize("way", RIGHT)
def test_another_right_way_passes(way: str) -> None:
    exercise, code = RIGHT[way]
    outcome = attempt("07", exercise, code)
    assert isinstance(outcome, Passed), outcome


def test_what_remains_is_said() -> None:
    exercise, code = RIGHT["an empty folder remains"]
    outcome = attempt("07", exercise, code)
    assert isinstance(outcome, Passed)
    assert "empty folder `old`" in outcome.seen


def test_the_worst_mistakes_do_not_reach_the_lab_host() -> None:
    lab_host = host.pid()
    before = procfs.mountinfo(lab_host)
    for mistake in ("no mount namespace", "leaks first, private later"):
        exercise, code, _ = MISTAKES[mistake]
        attempt("07", exercise, code)
    assert host.pid() == lab_host
    assert procfs.mountinfo(lab_host) == before


@pytest.mark.parametrize("number", ["07", "08", "09", "11"])
def test_the_boxes_of_the_labs_furnish_the_image_and_not_what_it_links_to(number: str, tmp_path: Path) -> None:
    """/dev leads out of the image: the box resolves it as those inside do, where the same path is a folder, too."""
    if number == "09" and cgroups.unsupported():
        machine_cannot("have control groups, which the box of lab 09 needs")
    image, outside = tmp_path / "image", tmp_path / "outside"
    shutil.copytree(rootfs.find("busybox"), image, symlinks=True)
    outside.mkdir()
    (outside / "null").write_text("the host's own")
    inside = image / str(outside).lstrip("/")
    inside.mkdir(parents=True)
    for name in ("null", "zero"):
        (inside / name).symlink_to(outside / "null")
    shutil.rmtree(image / "dev")
    (image / "dev").symlink_to(outside)
    names = defined_in(number)
    more = {"08": (str(tmp_path / "home"),), "09": ({},)}.get(number, ())
    (tmp_path / "home").mkdir()
    command = ["/bin/sh", "-c", "[ -c /dev/null ] && [ -c /dev/zero ] && [ -e /proc/self/stat ]"]
    assert run_in_child(names["box"], command, "box-test", str(image), *more) == 0
    assert [one.name for one in outside.iterdir()] == ["null"]
    assert (outside / "null").read_text() == "the host's own"
