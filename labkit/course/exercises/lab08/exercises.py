"""The exercises of lab 08: boxes from one image, a file that stays deleted, and a layer as an archive."""

import os
from collections.abc import Callable
from typing import Any

from labkit import overlay
from labkit.course.exercises.common.left_behind import read_regular
from labkit.course.exercises.lab08 import layer_checks, overlay_checks
from labkit.course.exercises.lab08.overlay_checks import Place, place
from labkit.course.experiments.overlay_scratch import marks
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet, Passed, Verdict
from labkit.errors import InvalidConfig
from labkit.overlay import Overlay
from labkit.process import Child

__all__ = ["MARKS", "Forget", "Layer", "Pack"]

#: What the options of an overlay end with on this machine: see `labkit.course.experiments.overlay_scratch.marks`.
MARKS = marks()
BOXES = 10


class Layer(Exercise):
    """Ten roots from one image."""

    name = "layer"
    title = "Ten boxes from one image"
    points = 2
    seconds = 60.0
    start = "Begin with the three folders that an overlay needs besides the image: make them in `home`."
    hints = (
        (
            "Two of an overlay's four folders may be shared by all boxes, and two must be each box's own. Which ones? "
            "And where does `home` come in?"
        ),
        (
            "`os.mkdir` three times below `home`: for the changes, for the kernel's work, and to mount on. Then one "
            '`mount("overlay", ..., "overlay", 0, options)`, with `MARKS` at the end of the options, and return the '
            "folder that you have mounted on."
        ),
        (
            'mount("overlay", f"{home}/merged", "overlay", 0, '
            'f"lowerdir={image},upperdir={home}/upper,workdir={home}/work{MARKS}")'
        ),
    )
    because = (
        "The image is the lower layer of all ten and is never written to. What a box changes goes to its own upper "
        "layer, in its home: delete the home, and the box is as new."
    )

    def check(self, layer: Callable[[str, str], object]) -> Verdict:
        """Call it for ten boxes; let a shell in each write and delete, and see who sees what."""
        program = overlay_checks.busybox()
        with place() as here:
            image, *homes = here.make(self.draw_name("image"), *self._names("home"))
            here.do(overlay_checks.build_image, image, program)
            with (
                here.town.spawn(_call_for_each, layer, image, homes) as child,
                here.town.witness(child.pid) as witness,
            ):
                if mistake := self._not_roots(child.value, witness):
                    return mistake
                roots = [os.fspath(root) for root in child.value]
                return _shared_upper(witness, roots, image) or self._look(witness, roots, image, homes)

    def _names(self, prefix: str) -> list[str]:
        first = self.draw_number(0x1000, 0xF000)
        return [f"{prefix}-{first + number:04x}" for number in range(BOXES)]

    def _not_roots(self, roots: list[Any], witness: Child) -> Verdict | None:
        first = roots[0] if isinstance(roots, list) and len(roots) == BOXES else None
        if not isinstance(first, str | os.PathLike):
            return NotYet(
                f"`layer()` returned {first!r}, and not the folder in which the box finds its root.",
                "The caller must know where you have mounted the overlay. What is the last line of the function?",
            )
        if len(set(map(str, roots))) < BOXES:
            return NotYet(
                f"`layer()` gave the same folder, `{first}`, to more than one box.",
                "Each box needs a root of its own. What differs from one call to the next?",
            )
        if witness.call(overlay_checks.kind_of, f"{first}/bin/busybox") == "nothing":
            return NotYet(
                f"In `{first}` there is no `bin/busybox`: it does not show the image.",
                "Has the mount been made, and on the folder that you return? In which option does the image belong?",
            )
        return None

    def _look(self, witness: Child, roots: list[str], image: str, homes: list[str]) -> Verdict:
        before = witness.call(overlay_checks.tree_of, image)
        notes = self._names("note")
        script = "echo {} > /home/note && rm /etc/greeting && cat /etc/motd > /home/copy"
        codes = witness.call(_run_each, roots, [script.format(note) for note in notes])
        failed = next((number for number, code in enumerate(codes) if code), None)
        in_image = witness.call(overlay_checks.tree_of, image)
        if in_image != before:
            return _image_changed(sorted(set(before) ^ set(in_image)))
        if failed == 0 and "upperdir" not in overlay_checks.overlays(witness).get(roots[0], {"upperdir": ""}):
            return NotYet(
                "The shell in the first box could neither write a file nor delete one: its root is read-only.",
                "An overlay without an upper layer has no place for changes. Which two options give it one?",
            )
        read = witness.call(_read_each, [f"{root}/home/note" for root in roots])
        if failed is not None or read != [f"{note}\n" for note in notes]:
            number = failed if failed is not None else next(n for n, note in enumerate(notes) if read[n] != f"{note}\n")
            return NotYet(
                f"The shell in box {number} was to write a note, delete `/etc/greeting` and copy `/etc/motd`. It ended "
                f"with exit code {codes[number]}, and its note now reads {read[number]!r}.",
                "Do the boxes have a folder in common? The image may be shared, since nobody writes to it; which "
                "folders must be each box's own?",
            )
        return _kept_apart(witness, roots, image, homes, notes)


def _shared_upper(witness: Child, roots: list[str], image: str) -> Verdict | None:
    mounted = overlay_checks.overlays(witness)
    uppers = [mounted[root].get("upperdir", root) for root in roots if root in mounted]
    shared = next((upper for upper in uppers if uppers.count(upper) > 1), None)
    if shared is None:
        return None
    if shared == image:
        return NotYet(
            "Your overlay has the image as its *upper* layer, where changes go: what one box writes is in the image "
            "then, "
            "and in every other box.",
            "Which of the two layers is never written to?",
        )
    return NotYet(
        f"{uppers.count(shared)} boxes keep their changes in one folder, `{os.path.basename(shared)}`: the boxes share "
        "what they write, and disturb the kernel's bookkeeping besides.",
        "The image may be shared, since nobody writes to it. Which of the folders must be each box's own?",
    )


def _call_for_each(layer: Callable[[str, str], object], image: str, homes: list[str]) -> list[object]:
    return [layer(image, home) for home in homes]


def _run_each(roots: list[str], scripts: list[str]) -> list[int]:
    return [overlay_checks.run_in_root(root, script) for root, script in zip(roots, scripts, strict=True)]


def _read_each(paths: list[str]) -> list[str | None]:
    return [overlay_checks.read(path) for path in paths]


def _image_changed(names: list[str]) -> NotYet:
    how = "new" if "note" in names[0] else "gone"
    return NotYet(
        f"The image itself was changed by the boxes: `{names[0]}` is {how} in it.",
        "What the boxes see is the image's own folder, not a layer over it (a bind mount only shows it a second time). "
        "Which mount keeps changes apart?",
    )


def _kept_apart(witness: Child, roots: list[str], image: str, homes: list[str], notes: list[str]) -> Verdict:
    size = witness.call(overlay_checks.used_bytes, image)
    if roots[0] not in overlay_checks.overlays(witness):
        each = witness.call(overlay_checks.used_bytes, roots[0])
        return NotYet(
            f"The boxes do not disturb each other, but the root of each takes {each / 1e6:.1f} MB: as much as the "
            "image. "
            "It is a copy.",
            "Ten boxes, ten copies. Which kind of mount shows one folder ten times, and keeps only what each box "
            "changes?",
        )
    for root, home, note in zip(roots, homes, notes, strict=True):
        if not witness.call(_holds_note, home, root, note):
            return NotYet(
                f"What the box of `{os.path.basename(home)}` has written is not in that folder.",
                "The box's home is where its changes are to be kept. Where is your upperdir?",
            )
    used = sum(witness.call(_used_each, homes, roots))
    return Passed(
        f"Ten shells have written and deleted, each in its own root; the image of {size / 1e6:.0f} MB is as it was. "
        f"What the ten have changed takes {used / 1e3:.0f} kB altogether.",
        "This is how a machine holds a hundred containers of one image: the image once, and the differences.",
    )


def _holds_note(home: str, root: str, note: str) -> bool:
    for above, folders, files in os.walk(home):
        folders[:] = [name for name in folders if os.path.join(above, name) != root]
        if "note" in files and overlay_checks.read(os.path.join(above, "note")) == f"{note}\n":
            return True
    return False


def _used_each(homes: list[str], roots: list[str]) -> list[int]:
    return [overlay_checks.used_bytes(home, without=root) for home, root in zip(homes, roots, strict=True)]


class Forget(Exercise):
    """A file that stays deleted."""

    name = "forget"
    title = "Delete a file so that it stays deleted"
    start = "Begin by showing the box's root again: mount its overlay, as you did in the first exercise."
    hints = (
        (
            "There are two files of this name: one in the image, and a changed one in the box's upper layer. Deleting "
            "one of "
            "them leaves the other. What is there in the upper layer when a program in a box deletes a file of the "
            "image?"
        ),
        (
            "The kernel makes a whiteout when a file is deleted in `merged`. So mount the overlay and delete it there. "
            "Or make "
            "the whiteout yourself: it is a device file with the numbers 0 and 0."
        ),
        (
            'mount("overlay", f"{home}/merged", "overlay", 0, '
            'f"lowerdir={image},upperdir={home}/upper,workdir={home}/work{MARKS}"), then '
            'os.remove(f"{home}/merged/{name}")'
        ),
    )
    because = (
        "Deleting in `merged` is deleting as a program in the box does it: the kernel removes the upper file and "
        "leaves a "
        "whiteout, in one step. The image keeps its file, for everybody else."
    )

    def check(self, forget: Callable[[str, str, str], object]) -> Verdict:
        """Call it; then mount the layers afresh and see what a box finds."""
        with place() as here:
            image, home, *_ = here.make("image", "home", "home/upper", "home/work", "home/merged")
            name, other = f"{self.draw_name('letter')}.txt", f"{self.draw_name('note')}.txt"
            for path, text in (
                (f"{image}/{name}", "from the image"),
                (f"{image}/{other}", "from the image"),
                (f"{home}/upper/{name}", "changed by the box"),
                (f"{home}/upper/mine.txt", "new in the box"),
            ):
                here.do(overlay_checks.write, path, text)
            with here.town.spawn(forget, name, image, home) as child, here.town.witness(child.pid) as witness:
                in_merged = witness.call(overlay_checks.kind_of, f"{home}/merged/{name}")
                witness.call(overlay_checks.unmount_below, home)
                if mistake := _not_only_there(witness, name, other, image, home):
                    return mistake
            return _mounted_again(here, name, other, image, home, in_merged)


def _not_only_there(witness: Child, name: str, other: str, image: str, home: str) -> Verdict | None:
    if witness.call(overlay_checks.read, f"{image}/{name}") != "from the image":
        return NotYet(
            f"`{name}` is gone from the image itself, or changed there: now every box has lost it.",
            "The image belongs to all. Deleting for one box must leave its mark in that box's own layer. Which "
            "folder is "
            "that?",
        )
    lost = [
        one
        for one in (f"{image}/{other}", f"{home}/upper/mine.txt")
        if witness.call(overlay_checks.kind_of, one) == "nothing"
    ]
    if lost:
        return NotYet(
            f"`{os.path.basename(lost[0])}` is gone too, and it was to stay.",
            f"Only `{name}` is to be deleted. What did you remove besides?",
        )
    if witness.call(overlay_checks.kind_of, f"{home}/upper/.wh.{name}") != "nothing":
        return NotYet(
            f"The upper layer holds a file `.wh.{name}`, and the kernel knows nothing of that: a box would see it as a "
            "file of that name.",
            "So a deletion is written in an *archive*, where no device can be relied on. On disk the kernel wants "
            "another "
            "mark. Which one did you see in the upper layer, after something was deleted?",
        )
    return None


def _mounted_again(here: Place, name: str, other: str, image: str, home: str, in_merged: str) -> Verdict:
    try:
        here.do(overlay.mount, Overlay([image], f"{home}/upper", f"{home}/work"), f"{home}/merged")
    except InvalidConfig as error:
        return NotYet(f"The layers cannot be mounted any more: {error}.", "What has happened to the box's folders?")
    merged, in_upper = f"{home}/merged/{name}", here.do(overlay_checks.kind_of, f"{home}/upper/{name}")
    shown, text = here.do(overlay_checks.kind_of, merged), here.do(overlay_checks.read, merged)
    if shown == "nothing":
        return Passed(
            f"The layers were mounted afresh, and there is no `{name}`; the image still has it. The upper layer "
            "holds a "
            "whiteout of that name: a device 0:0.",
            "An upper layer can only add. So it adds a mark that says: not this one.",
        )
    if text == "from the image":
        gone_at_first = " It was gone from `merged` as long as that was mounted." if in_merged == "nothing" else ""
        return NotYet(
            f"Mounted afresh, the box finds `{name}` again, with the image's contents.{gone_at_first}",
            "The upper layer holds nothing of that name now, so what lies below shows through. Delete it where a "
            "program in "
            "the box would: which of the four folders is that?",
        )
    if text == "changed by the box":
        return NotYet(
            f"Mounted afresh, the box still finds `{name}`, as it had changed it.",
            "Nothing has been deleted yet. In which folder does a program of the box see the file?",
        )
    return NotYet(
        f"Mounted afresh, the box finds `{name}`: it is a {shown}. The upper layer has a {in_upper} of that name.",
        "An empty file is a file, and only one device is taken for a whiteout: the one whose two numbers are 0. Or "
        "have "
        "the kernel make it, by deleting the file in `merged`.",
    )


class Pack(Exercise):
    """A layer as an archive."""

    name = "pack"
    title = "What a box has changed, as a tar archive"
    points = 3
    seconds = 30.0
    start = 'Begin with `tarfile.open(archive, "w")` and a walk through `upper`, adding each name.'
    hints = (
        (
            "What is to be in the archive is what is in the upper layer, name by name, with two exceptions that "
            "stand for "
            "something *missing*. Which are these?"
        ),
        (
            "Walk with `os.walk(upper)`, and look at each name with `os.lstat`, which follows no link. A whiteout "
            "becomes an "
            "empty member `.wh.NAME`; an opaque folder gets a member `.wh..wh..opq` in it. All else: `tar.add(path, "
            "inside, "
            "recursive=False)`, where `inside` is the path relative to `upper`."
        ),
        (
            'For a whiteout: tar.addfile(tarfile.TarInfo(os.path.join(os.path.dirname(inside), ".wh." + name))); '
            'for an opaque folder, after adding it: tar.addfile(tarfile.TarInfo(inside + "/.wh..wh..opq"))'
        ),
    )
    because = (
        "An archive can carry devices, but not everybody may unpack them, and another file system may have other "
        "marks. So "
        "images write a deletion as a name. This is the format of every layer that you will ever pull from a registry."
    )

    def check(self, pack: Callable[[str, str], object]) -> Verdict:
        """Have a box change things, pack its layer, and unpack that, in memory, on the image."""
        with place() as here:
            image, home, _, _, merged, outside = here.make(
                "image", "home", "home/upper", "home/work", "home/merged", self.draw_name("outside")
            )
            here.do(overlay_checks.build_image, image, overlay_checks.busybox())
            here.do(overlay.mount, Overlay([image], f"{home}/upper", f"{home}/work"), merged)
            here.do(overlay_checks.write, f"{outside}/secret", "of the host")
            named = {what: self.draw_name(what) for what in ("new", "folder", "door")}
            here.do(_live_in, merged, named, outside)
            image_tree, merged_tree = here.do(overlay_checks.tree_of, image), here.do(overlay_checks.tree_of, merged)
            archive = f"{here.path}/layer.tar"
            with here.town.spawn(pack, f"{home}/upper", archive):
                pass
            packed = here.do(_bytes_of, archive)
            changed = here.do(overlay_checks.tree_of, f"{home}/upper")
        return layer_checks.judge(packed, image_tree, merged_tree, set(changed), named)


def _live_in(merged: str, named: dict[str, str], outside: str) -> None:
    """There: what a box does to its files in a short life."""
    overlay_checks.write(f"{merged}/home/{named['new']}", "new\n")
    overlay_checks.write(f"{merged}/etc/greeting", "changed\n")
    os.remove(f"{merged}/etc/motd")
    os.remove(f"{merged}/var/log/old")
    os.rmdir(f"{merged}/var/log")
    os.mkdir(f"{merged}/var/log")  # opaque
    overlay_checks.write(f"{merged}/var/log/{named['folder']}", "young\n")
    os.symlink(outside, f"{merged}/home/{named['door']}")


def _bytes_of(path: str) -> bytes | None:
    return read_regular(path, 16 << 20)
