"""File names for the pages of learners, whose names may be anything at all."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable

LONGEST = 48  # characters: 192 bytes at most, where a file name may have 255
# Windows opens a device by these names, whatever the extension.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(10))}


def of(learners: Iterable[str]) -> dict[str, str]:
    """A name for each learner's file, without an extension: their own where that is a good one.

    Of letters, digits, spaces, `.`, `-` and `_` alone, and different for different learners also where a file system
    does not tell `Ada` from `ada`. A name that had to be changed carries part of a hash, which does not depend on who
    else is in the class.
    """
    wanted = {learner: _plain(learner) for learner in sorted(set(learners))}
    shared = Counter(name.casefold() for name in wanted.values())
    found: dict[str, str] = {}
    taken: set[str] = set()
    for learner, name in wanted.items():
        changed = name != learner or shared[name.casefold()] > 1
        digest = hashlib.sha256(learner.encode("utf-8", "surrogatepass")).hexdigest()
        final = f"{name}-{digest[:8]}" if changed else name
        if final.casefold() in taken:  # somebody bears a name made to collide
            final = f"{name}-{digest}"
        taken.add(final.casefold())
        found[learner] = final
    return found


def _plain(learner: str) -> str:
    kept = unicodedata.normalize("NFC", learner[: 4 * LONGEST])
    kept = "".join(character if character.isalnum() or character in "._- " else "-" for character in kept)
    kept = kept[:LONGEST].strip(".- ") or "learner"
    return f"_{kept}" if kept.casefold().split(".")[0].strip() in _DEVICES else kept
