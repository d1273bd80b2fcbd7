"""A learner's archive, unpacked in memory on the image's tree: does it give what the box saw? For lab 08.

Nothing of it is ever written anywhere, so it may hold what it likes.
"""

import io
import posixpath
import tarfile
from collections.abc import Iterator
from typing import Any

from labkit.course.framework.outcomes import NotYet, Passed, Verdict

Tree = dict[str, tuple[str, object]]
_MEMBERS_MAX, _BYTES_MAX = 1000, 16 << 20  # the whole image has 3 MB
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"


def judge(packed: bytes | None, image: Tree, merged: Tree, in_upper: set[str], named: dict[str, str]) -> Verdict:
    """The verdict on an archive; `image` and `merged` are what it begins with and must lead to."""
    if packed is None:
        return NotYet(
            "There is no file at the path `archive`.", '`tarfile.open(archive, "w")` makes it. Was it called?'
        )
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            members = list(_members(tar))
    except _TooMuch as error:
        return NotYet(f"The archive holds {error}.", "The layer has a handful of small files. What else is in it?")
    except Exception as error:  # of tarfile, or of what unpacks a compressed one
        return NotYet(
            f"What is at the path `archive` is no tar archive: {error}.", "Was it closed? A `with` does that."
        )
    members = [one for one in members if one[0] != "."]
    return _wrong_names(members, image, in_upper, named) or _compare(members, image, merged, named)


class _TooMuch(Exception):
    pass


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo, bytes]]:
    """Each member: its name, itself, its contents. A small archive may unpack to no end, so there is one."""
    total = 0
    for number, member in enumerate(tar):
        total += member.size
        if number >= _MEMBERS_MAX or total > _BYTES_MAX:
            raise _TooMuch(f"more than {_MEMBERS_MAX} members, or {_BYTES_MAX >> 20} MiB")
        file = tar.extractfile(member) if member.isreg() else None
        yield posixpath.normpath(member.name), member, file.read(_BYTES_MAX) if file else b""


def _wrong_names(members: list[Any], image: Tree, in_upper: set[str], named: dict[str, str]) -> Verdict | None:
    if not members:
        return NotYet("The archive is empty.", "Which folder holds what the box has changed?")
    door = f"home/{named['door']}"
    for name, member, _ in members:
        if name.startswith(("/", "..")) or "home/upper" in name:
            return NotYet(
                f"The archive has a member `{name}`: the path on this host.",
                "Whoever unpacks it has other folders. Names must be relative to the layer: what does "
                "`os.path.relpath` "
                "give, and which argument of `tar.add` is the name?",
            )
        if name.startswith(f"{door}/") or (name == door and not member.issym()):
            return NotYet(
                f"`{door}` is a symbolic link in the layer, and you have packed what it points to: a file of the "
                "host's is "
                "in the archive now.",
                "Whoever fills a layer can point its links anywhere. Which calls look at a link itself, and which "
                "follow "
                "it? (`os.lstat`, `tar.add` without `dereference`; `os.path.isdir` follows.)",
            )
        if member.ischr():
            return NotYet(
                f"The archive has a device, `{name}`: you have packed the whiteout as it is.",
                "An archive says that a file is gone by a name: an empty member `.wh.` and the file's name, in the "
                "same "
                "folder. How do you recognise the whiteout?",
            )
    unchanged = [
        name
        for name, member, _ in members
        if member.isreg() and name in image and name not in in_upper and WHITEOUT not in name
    ]
    if unchanged:
        return NotYet(
            f"The archive holds {len(unchanged)} files that the box has never changed, such as `{unchanged[0]}`.",
            "That is the whole root, not the difference. Which of the four folders holds the changes alone?",
        )
    return None


def _unpack(members: list[Any], image: Tree) -> Tree:
    tree = dict(image)
    for name, _, _ in members:  # deletions first: they are about what lies below
        folder, base = posixpath.split(name)
        if base == OPAQUE:
            _remove(tree, folder, itself=False)
        elif base.startswith(WHITEOUT):
            _remove(tree, posixpath.join(folder, base.removeprefix(WHITEOUT)), itself=True)
    for name, member, contents in members:
        if posixpath.basename(name).startswith(WHITEOUT):
            continue
        if member.isdir():
            tree[name] = ("folder", None)
        elif member.issym():
            tree[name] = ("link", member.linkname)
        elif member.islnk():
            tree[name] = tree.get(posixpath.normpath(member.linkname), ("file", b""))
        else:
            tree[name] = ("file", contents)
    return tree


def _remove(tree: Tree, path: str, itself: bool) -> None:
    for name in list(tree):
        if name.startswith(f"{path}/") or (itself and name == path):
            del tree[name]


def _compare(members: list[Any], image: Tree, merged: Tree, named: dict[str, str]) -> Verdict:
    unpacked = _unpack(members, image)
    back = sorted(set(unpacked) - set(merged))
    if "etc/motd" in back:
        return NotYet(
            "Unpacked on the image, the archive gives back `etc/motd`, which the box has deleted.",
            "Nothing in the archive says that it is gone. What is in the upper layer in its place, and how does an "
            "archive "
            "say the same?",
        )
    if back and back[0].startswith("var/log"):
        return NotYet(
            f"Unpacked on the image, the archive gives back `{back[0]}`: the box had deleted the folder `var/log` "
            "and made "
            "a new one.",
            "The new folder is *opaque*: nothing of the old one shows through. An archive says so by an empty member "
            "`.wh..wh..opq` in that folder. How do you recognise it in the upper layer?",
        )
    if back:
        return NotYet(
            f"Unpacked on the image, the archive gives `{back[0]}`, which the box does not have.",
            "Which member of the archive is it, and where does it come from?",
        )
    missing = sorted(set(merged) - set(unpacked))
    if missing:
        return NotYet(
            f"Unpacked on the image, the archive gives no `{missing[0]}`, and the box had one.",
            "Does the walk reach every folder, and folders and files alike? Or is something taken for a deletion "
            "that is "
            "none?",
        )
    different = sorted(name for name in merged if merged[name] != unpacked[name])
    if different:
        return NotYet(
            f"Unpacked on the image, `{different[0]}` is not what the box had there.",
            f"In the archive it is a {unpacked[different[0]][0]}, in the box a {merged[different[0]][0]}. Was its "
            "contents "
            "packed, or only its name?",
        )
    size = sum(len(contents) for _, _, contents in members)
    gone = sum(WHITEOUT in name for name, _, _ in members)
    return Passed(
        f"The archive has {len(members)} members, {gone} of which stand for something deleted, and {size} bytes of "
        "contents. Unpacked on the image it gives what the box saw, name by name.",
        "So a layer travels: nothing of the image itself has to be sent to who has it already.",
    )
