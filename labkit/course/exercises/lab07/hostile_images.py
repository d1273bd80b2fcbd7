"""Images whose /dev leads out of them, as a stranger may make one: for lab 07's last exercise."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from labkit.course.framework.outcomes import NotYet

KEPT = "kept"


def links_for_names(root: Path, outside: Path) -> None:
    """Each name in /dev is a link out of the image: to a file that exists, and to ones that do not yet."""
    up = os.path.relpath(outside, root / "dev")
    (root / "dev" / "null").symlink_to(f"{up}/{KEPT}")
    for name in ("zero", "random", "urandom", "tty"):
        (root / "dev" / name).symlink_to(outside / f"no-{name}")


def link_for_folder(root: Path, outside: Path) -> None:
    """All of /dev is a link out of the image."""
    (root / "dev").rmdir()
    (root / "dev").symlink_to(outside)


#: What a stranger's image may be: how it is made, and what the learner is told of it.
IMAGES: dict[str, Callable[[Path, Path], None]] = {
    "the names in its `/dev` are links": links_for_names,
    "its `/dev` is a link": link_for_folder,
}


def touched(outside: Path, token: str, what: str) -> NotYet | None:
    """What has become of the folder `outside`, in which a file KEPT with the text `token` was."""
    why = (
        "A link is followed by whoever opens it, and starts from *their* root. You are still in the host's: `in_root` "
        "looks a folder up as the box will. What do you do to the names in it that the image has already?"
    )
    kept = os.lstat(outside / KEPT)
    if not stat.S_ISREG(kept.st_mode) or kept.st_size != len(token) or (outside / KEPT).read_text() != token:
        return NotYet(
            f"With an image of a stranger's ({what}), a file outside of `root` was changed through a link of the "
            f"image: it had {len(token)} bytes, and now has {kept.st_size}.",
            why,
        )
    if made := sorted(set(os.listdir(outside)) - {KEPT}):
        return NotYet(
            f"With an image of a stranger's ({what}), `{made[0]}` was made through a link of the image, outside of "
            "`root`.",
            why,
        )
    return None
