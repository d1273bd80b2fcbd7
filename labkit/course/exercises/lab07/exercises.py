"""The exercises of lab 07: a root file system, the way out of chroot, pivot_root, /dev and /proc."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit import namespaces, procfs, rootfs, syscalls, temporary
from labkit.constants import CLONE_NEWPID, MS_BIND, MS_REC
from labkit.course.exercises.common.devices import DEVICES, furnished, look_into, mknod_refused, wrong_dev, wrong_proc
from labkit.course.exercises.common.left_behind import mounted, read_regular
from labkit.course.exercises.common.mount_stand_in import InFork, StandIn, in_fork, private_mounts, require_procfs
from labkit.course.exercises.common.old_root import (
    folder_id,
    host_changed,
    identity,
    not_the_root,
    place,
    trace_in_mounts,
    trace_in_process,
)
from labkit.course.exercises.lab07 import hostile_images
from labkit.course.exercises.lab07.root_checks import COMMANDS, FOLDERS, NOT_FOUND, chroot_and_execute, missing, size
from labkit.course.framework import pace
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet, Passed, Verdict
from labkit.process import Child

__all__ = ["COMMANDS", "DEVICES", "Build", "Enter", "Escape", "Furnish"]


class Build(Exercise):
    """A minimal root filesystem."""

    name = "build"
    title = "Build a minimal root filesystem"
    start = "Begin with the folders; then copy `busybox` to where `/bin/busybox` shall be."
    hints = (
        (
            "Three steps: folders, one copied program, and a name in `/bin` for each command. What must a copy keep of "
            "a program besides its bytes?"
        ),
        (
            "`os.makedirs`, `shutil.copy2` (or `shutil.copy`; `shutil.copyfile` forgets that the file may be "
            "executed), and `os.symlink`. A link's text is looked up later, *inside* the new root: what should it say?"
        ),
        '`os.symlink("busybox", f"{folder}/bin/{name}")` for each name in COMMANDS.',
    )
    because = (
        "A relative link means the same inside and outside. The program is static: it needs no library and no loader, "
        "so a single file is enough."
    )

    def check(self, build: Callable[[str, str], object]) -> Verdict:
        """Look at the folder from outside, then have its shell do something in it."""
        busybox = str(rootfs.find("busybox") / "bin" / "busybox")
        with temporary.Folder() as above, StandIn() as town:
            root = Path(above, self.draw_name("root"))
            root.mkdir()
            with town.spawn(build, str(root), busybox):
                pass
            return missing(root) or self._try(town, root)

    def _try(self, town: StandIn, root: Path) -> Verdict:
        token, code = self.draw_name("note"), self.draw_number(3, 99)
        town.hand.call(Path.write_text, root / "tmp" / "in", f"{token}\n")
        # The folder is the proof: only this shell, with this root, writes these bytes to that place.
        script = f"ls / > /tmp/ls && cat /tmp/in > /tmp/out && sleep 0 && exit {code}"
        with town.spawn(chroot_and_execute, str(root), script, wait=False) as child:
            ended = child.wait(pace.scaled(5))
        if ended == NOT_FOUND:
            return NotYet(
                "`/bin/sh` is there and may be executed, and yet `execve` says that there is no such file.",
                "What is missing is the *loader* that the program names in its first bytes, or its libraries: it is "
                "not a static program. The one that you were given is. Was that the one you copied?",
            )
        written = (read_regular(root / "tmp" / "out") or b"").decode(errors="replace").strip()
        if ended != code or written != token:
            return NotYet(
                f"The shell in your root was to list `/`, copy a file and end with exit code {code}. It ended with "
                f"{ended}.",
                "Which command is it missing? Try it: chroot into your folder and execute `/bin/sh`.",
            )
        return Passed(
            "A shell with your folder as its root listed `/`, read a note, wrote it elsewhere and ended with exit "
            f"code {code}. All it needed: {size(root)}.",
            "This is all there is to an image: a folder with the files that a program wants to find.",
        )


class Escape(Exercise):
    """The way out of a chroot."""

    name = "escape"
    title = "Get out of a chroot"
    points = 3
    start = "Begin inside: make a folder, and call `os.chroot` on it without going there."
    hints = (
        (
            "`..` stops at the root, and nowhere else. It stops there only when you *meet* it on the way up. Can you "
            "be in a place from which the way up does not lead through your root?"
        ),
        (
            "Make a folder in the jail and `os.chroot` into it, without `chdir`. Your root is now below you, so it is "
            "not on your way up. Then climb with `..`."
        ),
        '`os.mkdir("deeper")`, `os.chroot("deeper")`, then `os.chdir("..")` some fifty times, then `os.chroot(".")`.',
    )
    because = (
        "A process has a root and a working directory, and `chroot` changes only the first. A second `chroot` into a "
        "folder "
        'below moves the wall to where we are not; the walk up never meets it. The last `chroot(".")` makes the top, '
        "where we then are, the root again."
    )

    def check(self, escape: Callable[[], object]) -> Verdict:
        """Call it in a chroot some folders deep; see from outside which root the process has then."""
        with temporary.Folder() as above, StandIn() as town:
            jail = Path(above, *(self.draw_name("cell") for _ in range(self.draw_number(1, 4))))
            jail.mkdir(parents=True)
            with town.spawn(_into_jail, str(jail), escape) as child:
                if way_out := _way_out(child, jail):
                    return way_out
                if module := child.call(_call_prisoner):
                    return _no_import(module)
                return _escaped(town, child, jail)


_prisoner: list[Callable[[], object]] = []  # in a child


def _into_jail(jail: str, fn: Callable[[], object]) -> None:
    _prisoner.append(fn)
    os.chroot(jail)
    os.chdir("/")


def _call_prisoner() -> str | None:
    return _call(_prisoner[0])


def _way_out(child: Child, jail: Path) -> NotYet | None:
    """Whether somebody has kept a way out before the door was shut: what a cell does besides its function, say."""
    inside = folder_id(jail)
    shut = identity(child.pid, "root") == identity(child.pid, "cwd") == inside
    folders = [one for one in os.listdir(f"/proc/{child.pid}/fd") if os.path.isdir(f"/proc/{child.pid}/fd/{one}")]
    helpers = procfs.descendants(child.pid) or len(procfs.threads(child.pid)) > 1
    if shut and not folders and not helpers:
        return None
    return NotYet(
        "Before the function was called a way out had been kept: a descriptor, a process or a thread outside.",
        "The exercise begins inside. What is done in the cell besides the function does not count.",
    )


def _call(fn: Callable[..., object], *args: Any) -> str | None:
    """Call `fn`; the name of the module that it could not import, or None."""
    try:
        fn(*args)
    except ModuleNotFoundError as error:
        return error.name or "a module"
    return None


def _no_import(module: str) -> NotYet:
    return NotYet(
        f"`import {module}` failed: where the function runs, Python cannot reach its own files any more.",
        "A process with another root finds other files, modules too. Import above the function, in the notebook, or do "
        "without.",
    )


def _escaped(town: StandIn, child: Child, jail: Path) -> Verdict:
    root, there = identity(child.pid, "root"), identity(child.pid, "cwd")
    machine = identity(town.pid, "root")
    if root == machine:
        return Passed(
            f"The root of process {child.pid} is the lab host's root again. It had begun in `{jail.name}`, deep below.",
            "chroot changes where names are looked up. It was made for building systems, not for keeping anybody in: a "
            "process with root's powers walks out.",
        )
    if there == machine:
        return NotYet(
            "The working directory is the lab host's root: you are out. But the process's root is still "
            f"`{place(child.pid, 'root')}`, so every path that begins with `/` leads into the jail.",
            "One call more: how do you make the place where you are your root?",
        )
    if root == folder_id(jail):
        return NotYet(
            "The process has the same root as before: the jail.",
            "Climbing with `..` ends at the root, as the kernel compares each step with it. What if your root were "
            "somewhere that your way up does not pass?",
        )
    if place(child.pid, "root").startswith(str(jail)):
        return NotYet(
            f"The process's root is now `{place(child.pid, 'root')}`: deeper in the jail than before.",
            "The second chroot is a good beginning. You are above your root now, if you did not follow it with "
            "`chdir`. Where does `..` lead from there?",
        )
    return NotYet(
        f"The process's root is now `{place(child.pid, 'root')}`: out of the jail, and not at the top yet.",
        "How many steps up are enough, if you do not know how deep the jail lies? What does `..` do at the very top?",
    )


class Enter(Exercise):
    """pivot_root, with no trace of the old root."""

    name = "enter"
    title = "Move into a root of your own, and leave no trace of the old"
    points = 3
    start = "Begin with a mount namespace of your own, and cut its propagation, as in lab 06."
    hints = (
        (
            "Five things: a mount namespace that leaks nothing, a new root that is a mount point, a working directory "
            "in it, the swap, and the old root unmounted."
        ),
        (
            "The cell with the three attempts has most of it. Two things are easily forgotten: to bind the folder on "
            "itself, and to stand in it (`os.chdir`) before the swap."
        ),
        (
            '`unshare(CLONE_NEWNS)`; `mount(None, "/", None, MS_REC | MS_PRIVATE)`; '
            '`mount(root, root, None, MS_BIND | MS_REC)`; `os.chdir(root)`; `pivot_root(".", ".")`; '
            '`umount2(".", MNT_DETACH)`.'
        ),
    )
    because = (
        'With `pivot_root(".", ".")` the old root lies on top of the new one for a moment, so that no folder is needed '
        "to "
        "put it in. MNT_DETACH takes it away with everything below it, though it is in use. `os.chdir(root)` comes "
        "first, since a working directory is a reference too; the last one only makes sure."
    )

    def check(self, enter: Callable[[str], object]) -> Verdict:
        """Call it in a child; look at its mounts, root, working directory and descriptors from outside."""
        with temporary.Folder() as above, StandIn() as town:
            root = Path(above, self.draw_name("root"))
            for name in ("dev", "proc", "tmp"):
                Path(root, name).mkdir(parents=True)
            Path(root, self.draw_name("note")).write_text("the new root\n")
            folder, names = folder_id(root), set(os.listdir(root))
            with town.spawn(_call, enter, str(root)) as child:
                if child.value:
                    return _no_import(child.value)
                with town.witness(child.pid) as witness:
                    mistake = host_changed(town, child) or not_the_root(child, witness, folder)
                    mistake = mistake or trace_in_mounts(town, witness) or trace_in_process(child.pid)
                mounts = len(procfs.mountinfo(child.pid))
            left = sorted(set(os.listdir(root)) - names)
        if mistake:
            return mistake
        remains = f" One thing remains, an empty folder `{left[0]}`: `os.rmdir` would take it away." if left else ""
        return Passed(
            f"Process {child.pid} sees {mounts} mount{'s' if mounts != 1 else ''}; its root is your folder, and "
            "neither a mount, nor its working directory, nor a descriptor leads back to the lab host's "
            f"files.{remains}",
            "What is not in the mount namespace cannot be named: there is nothing to escape to.",
        )


class Furnish(Exercise):
    """/dev with what a shell needs, and a /proc."""

    name = "furnish"
    title = "A /dev with just what a shell needs, and a /proc"
    points = 2
    start = "Begin with `/proc`: one call, as in lab 06, but below `root`."
    hints = (
        (
            "A device is not a file with contents: it is a name for a driver, and a pair of numbers. Either you make "
            "such a name, or you show the host's in a second place."
        ),
        (
            "To show it: make an empty file, then bind-mount the host's device on it. Where, so that no name of the "
            "image's is in the way? In a `tmpfs` of your own on `/dev`, looked up by `in_root`; and `in_root` once "
            "more finds what is mounted there then. (`os.mknod` makes devices, where you are the real root.)"
        ),
        (
            '`mount("proc", in_root(root, "proc"), "proc")`; `mount("tmpfs", in_root(root, "dev"), "tmpfs")`; '
            '`dev = in_root(root, "dev")`; for each name in DEVICES `open(f"{dev}/{name}", "w").close()`, then '
            '`mount(f"/dev/{name}", f"{dev}/{name}", None, MS_BIND)`.'
        ),
    )
    because = (
        "A bind mount works with and without real root. What is not there cannot be opened: no disk, no memory, no "
        "keyboard of the host. Container engines, too, make a `tmpfs` on `/dev` and put about a dozen names in it: "
        "whatever the image has there is covered."
    )

    def check(self, furnish: Callable[[str], object]) -> Verdict:
        """Call it as PID 1 in a private mount namespace; look at what is below the root there, and around it."""
        require_procfs()
        with temporary.Folder() as above, StandIn() as town:
            verdict = self._look(town, Path(above), furnish)
            if not isinstance(verdict, Passed):
                return verdict
            return self._with_strangers(town, Path(above), furnish) or verdict

    def _root(self, above: Path) -> Path:
        root = above / self.draw_name("root")
        for name in ("bin", *FOLDERS):
            (root / name).mkdir(parents=True)
        return root

    def _look(self, town: StandIn, above: Path, furnish: Callable[[str], object]) -> Verdict:
        root = self._root(above)
        with town.spawn(_prepare, str(root)) as child:
            done: InFork = child.call(in_fork, furnish, str(root), stay=True)
            try:
                done.value_or_raise()
            except PermissionError as error:
                if mistake := mknod_refused(error):
                    return mistake
                raise
            if leaked := town.leaked():
                return NotYet(f"`{leaked[0].mount_point}` leaked to the lab host.", "Which call made it shared again?")
            if not _is_its_pid_1(child, done.pid):
                return NotYet("The process that ran your function is not PID 1 any more.", "It must stay there.")
            with town.witness(done.pid) as witness:
                found = witness.call(look_into, str(root))
                is_procfs = mounted(witness.pid, os.path.realpath(root / "proc")) == "proc"
                return (
                    wrong_dev(found["dev"])
                    or wrong_proc(found["proc"] if is_procfs else {}, done.pid)
                    or furnished(found["dev"])
                )

    def _with_strangers(self, town: StandIn, above: Path, furnish: Callable[[str], object]) -> NotYet | None:
        """Images that lead out: whether or not it refuses one, what is outside stays as it was."""
        for what, make in hostile_images.IMAGES.items():
            root, outside, token = self._root(above), above / self.draw_name("outside"), self.draw_name("token")
            outside.mkdir()
            (outside / hostile_images.KEPT).write_text(token)
            make(root, outside)
            with town.spawn(_prepare, str(root)) as child:
                child.call(in_fork, furnish, str(root), stay=False)
            if mistake := hostile_images.touched(outside, token, what):
                return mistake
        return None


def _is_its_pid_1(child: Child, pid: object) -> bool:
    """Whether what a child says of itself is true: that `pid` is its own child, and the first of a PID namespace."""
    if not isinstance(pid, int) or pid not in procfs.children(child.pid):
        return False
    return procfs.nspid(pid)[-1] == 1 and not namespaces.same("pid", pid, child.pid)


def _prepare(root: str) -> None:
    """A mount namespace of one's own, `root` a mount in it, and a PID namespace for the next child."""
    private_mounts()
    syscalls.mount(root, root, None, MS_BIND | MS_REC)
    syscalls.unshare(CLONE_NEWPID)
