"""Why mount(2) refused an overlay. To most mistakes it says EINVAL; which one it was, its options and folders show."""

import os
from errno import EINVAL, ELOOP, ENOENT

_FOLDERS = ("lowerdir", "upperdir", "workdir")


def cause(number: int, data: str) -> str | None:
    """The likely cause of the errno, for the options `data` of an overlay, as sentences; None where none is known."""
    options = dict(option.partition("=")[::2] for option in data.split(","))
    if number == ENOENT:
        return _missing(options)
    if number == ELOOP:
        return "The layers overlap: one of them is inside another one, or is named twice."
    return _invalid(options) if number == EINVAL else None


def _missing(options: dict[str, str]) -> str | None:
    for name in _FOLDERS:
        for path in options.get(name, "").split(":"):
            if path and not os.path.isdir(path):
                return (
                    f"{name}: there is no folder {path}. All of an overlay's folders must exist before it is mounted."
                )
    return None


def _invalid(options: dict[str, str]) -> str:
    upper, work = options.get("upperdir"), options.get("workdir")
    if "lowerdir" not in options:
        return "An overlay needs lowerdir=FOLDER, or several folders with a colon between them, the topmost first."
    if upper and not work:
        return "An overlay with an upperdir needs a workdir too: an empty folder beside it."
    if not upper and ":" not in options["lowerdir"]:
        return "Without an upperdir an overlay needs two lower layers at least: a single one is only itself."
    if upper and work and os.path.isdir(upper) and os.path.isdir(work):
        if os.stat(upper).st_dev != os.stat(work).st_dev:
            return f"upperdir and workdir must lie on one file system, and {upper} and {work} do not."
        if os.path.commonpath([upper, work]) in (upper, work):
            return "upperdir and workdir must be two folders side by side: neither may be the other, or lie inside it."
    return (
        "The kernel does not know one of these options, or cannot keep changes on the file system of upperdir: an "
        "overlay itself, as all files of an outer container are, is none that can. Its log, dmesg, says which."
    )
