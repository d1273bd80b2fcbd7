"""`./lab reset`: puts everything back as it was before the labs ran."""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from labkit import host
from labkit.arguments import Parser
from labkit.course.doctor import leftovers
from labkit.files import state_folder
from labkit.vm import persistent

# What `--all` keeps of the state folder: copies of a learner's notebooks are never deleted, nor is what an instructor's
# grades can be come to again with (`labkit.course.grading.exam_seed`).
KEPT = (state_folder.KEPT_NOTEBOOKS, "grading-seed", "setup.lock")


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="./lab reset",
        description="End every lab host of yours, with all that runs, is mounted or linked in it. The machine itself "
        "was never changed by a lab.",
    )
    parser.add_argument(
        "--notebooks", action="store_true", help="fresh notebooks too; those you worked in are copied aside"
    )
    parser.add_argument(
        "--all", action="store_true", help="that, and forget progress and everything built: as after git clone"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args(argv)
    if options.all and not options.yes and not _sure():
        print("Nothing was done.")
        return 1
    ended = host.reset_all()
    print(f"Ended {_count(len(ended), 'lab host')}." if ended else "No lab host was running.")
    computers = persistent.end_all(tempfile.gettempdir())
    if computers:
        print(f"Ended {_count(computers, 'computer')} that ran as a guest.")
    removed = leftovers.remove()
    if removed:
        print(f"Removed what a killed notebook had left: {', '.join(removed)}.")
    code = 0
    if options.notebooks or options.all:
        from labkit.course.authoring import release

        code = release.main(["--no-execute"])
    if options.all:
        removed = clear(state_folder.state())
        print(
            f"Removed from {state_folder.state()}: {', '.join(removed) or 'nothing'}. ./lab builds anew what it needs."
        )
    return code


def clear(state: Path) -> list[str]:
    """Deletes what the course keeps, except copies of a learner's notebooks; returns the names of what went."""
    removed = []
    for path in sorted(state.iterdir()) if state.is_dir() else []:
        if path.name in KEPT:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        removed.append(path.name)
    return removed


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _sure() -> bool:
    if not sys.stdin.isatty():
        print("lab: --all deletes progress; without a terminal to ask on, add --yes.", file=sys.stderr)
        return False
    try:
        return input("Forget all progress, and everything built? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
