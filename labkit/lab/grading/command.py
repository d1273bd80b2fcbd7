"""`./lab grade`: what was handed in, graded; scores, pages and JUnit written; a table at the end."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.arguments import Parser
from labkit.errors import LabkitError
from labkit.lab.grading.results import Exam, Result

if TYPE_CHECKING:
    from labkit.lab.grading.collect import Found

DEFAULT_OUT = Path("graded")
EXPLAINED = """\
FOLDER may hold notebooks called after learners, a folder for each learner, or be a checkout of the course or nbgrader's
course folder. One NOTEBOOK alone is explained in full here, and written down only with --out. Pages, scores.csv,
exercises.csv, junit.xml and results.json go into the folder of --out, "graded" if none is named.

Exit code: 0 when grading went well, whatever the points; 1 when something could not be graded because of this machine;
2 for wrong usage; 130 when it was interrupted.
"""


class Usage(LabkitError):
    """What was asked for makes no sense: exit code 2."""


def parser() -> Parser:
    """The command line."""
    made = Parser(
        prog="./lab grade",
        description="Grade notebooks that were handed in. Nothing of them runs outside of a container.",
        epilog=EXPLAINED,
    )
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("paths", metavar="FOLDER_OR_NOTEBOOK", nargs="+", type=Path)
    made.add_argument("--out", metavar="DIR", type=Path, help="where the report goes (default: graded)")
    made.add_argument("--seed", metavar="TEXT", help="what learners' parameters are drawn from (default: kept here)")
    made.add_argument("--hidden", metavar="FOLDER", type=Path, help="hidden checks of your own: FOLDER/labNN.py")
    made.add_argument("--lab", metavar="NN", action="append", default=[], help="only this lab; may be repeated")
    made.add_argument("--jobs", metavar="N", type=int, default=0, help="at once (default: one per processor)")
    made.add_argument("--no-replay", action="store_true", help="leave out the whole notebook's run; faster")
    made.add_argument("--scheduler", metavar="ADDRESS", default="", help="a Dask scheduler, host:port")
    made.add_argument(
        "--report-only", action="store_true", help="make the pages anew from the results.json in the folder named"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Grade, and say how it went. Returns the exit code."""
    options = parser().parse_args(argv)
    try:
        if options.report_only:
            return _report_only(options)
        return _grade(options)
    except Usage as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2


def _grade(options: argparse.Namespace) -> int:
    from labkit.lab.grading import seed
    from labkit.lab.grading.many import grade_all
    from labkit.lab.grading.report import store, terminal

    _check(options)
    labs = tuple(_lab(word) for word in options.lab)
    found = _find(options.paths, labs)
    single = len(found) == 1 and len(options.paths) == 1 and options.paths[0].is_file()
    out: Path | None = options.out or (None if single else DEFAULT_OUT)
    if out:
        _claim(out)
    had_results = out is not None and (out / store.NAME).exists()
    exam = Exam(
        seed=options.seed or seed.of_this_machine(),
        hidden=str(options.hidden.resolve()) if options.hidden else "",
        replay=not options.no_replay,
        only=labs,
    )
    if single:
        and_then = ", then the whole notebook" if exam.replay else ""
        print(f"Grading {_readable(found[0].path)}: each exercise in a container of its own{and_then}.\n", flush=True)
    else:
        print(f"{len(found)} {'notebook' if len(found) == 1 else 'notebooks'} to grade.", flush=True)
    ended: list[Result] = []

    def tell(result: Result) -> None:
        ended.append(result)
        if not single:
            print(terminal.ended(result, len(ended), len(found)), flush=True)

    try:
        results = grade_all(found, exam, options.jobs, options.scheduler, tell)
    except (KeyboardInterrupt, LabkitError):
        if out:
            _stopped(ended, len(found), out, had_results)
        raise
    _show(results, out, in_full=single)
    return 1 if any(failed(result) for result in results) else 0


def _report_only(options: argparse.Namespace) -> int:
    from labkit.lab.grading.report import store

    if len(options.paths) != 1 or not options.paths[0].is_dir():
        raise Usage("--report-only takes one folder, that of an earlier report")
    results = store.read(options.paths[0])
    out: Path = options.out or options.paths[0]
    _claim(out)
    _show(results, out, in_full=False)
    return 0


def _show(results: Sequence[Result], out: Path | None, in_full: bool) -> None:
    from rich.console import Console

    from labkit.lab.grading import report
    from labkit.lab.grading.report import terminal
    from labkit.lab.grading.report.gradebook import Gradebook

    if out:
        _write(results, out)
    console = Console(highlight=False)
    if in_full:
        console.print(terminal.in_full(results[0]))
    else:
        console.print(terminal.table(Gradebook(results)))
    if out:
        print(f"The pages: {out / report.pages.INDEX}    The scores: {out / 'scores.csv'}")


def failed(result: Result) -> bool:
    """Whether something of a submission could not be graded, and that was not the submission's fault."""
    verdicts = [judged for one in result.exercises for judged in (one.judged, *one.hidden)]
    return result.failed or any(judged.outcome == "not checked" for judged in verdicts)


def _check(options: argparse.Namespace) -> None:
    for path in options.paths:
        if not path.exists():
            raise Usage(f"there is no {_readable(path)}")
    if options.jobs < 0:
        raise Usage("--jobs takes how many to grade at once: 1, or more")
    if options.hidden and not options.hidden.is_dir():
        raise Usage(f"there is no folder {_readable(options.hidden)}; hidden checks are in FOLDER/labNN.py")
    if options.hidden and not any(options.hidden.glob("lab[0-9][0-9].py")):
        raise Usage(f"there are no hidden checks in {_readable(options.hidden)}; they are in FOLDER/labNN.py")
    if options.seed == "":
        raise Usage("--seed takes a text, which must not be empty")


def _lab(word: str) -> str:
    number = word.removeprefix("lab").zfill(2)
    if not number.isdecimal() or not importlib.util.find_spec(f"labkit.lab.exercises.lab{number}"):
        raise Usage(f"there is no lab {word!r}; the labs are 00, 01, 02 and so on")
    return number


def _find(paths: Sequence[Path], labs: Sequence[str]) -> "list[Found]":
    from labkit.lab.grading.report.texts import line
    from labkit.lab.grading.submission import find

    found = find(paths, lambda sentence: print(f"lab: {line(sentence, 500)}", file=sys.stderr))
    wanted = [one for one in found if not labs or one.lab in labs]
    if not wanted:
        where = ", ".join(_readable(path) for path in paths)
        of = f" of lab {', '.join(labs)}" if labs else ""
        raise Usage(f"there is no notebook{of} in {where}. ./lab grade --help says which folders it knows.")
    return wanted


def _claim(out: Path) -> None:
    from labkit.lab.grading.report import store

    try:
        store.claim(out)
    except LabkitError as error:
        raise Usage(str(error)) from None


def _write(results: Sequence[Result], out: Path) -> None:
    from labkit.lab.grading import report

    try:
        report.write(results, out)
    except OSError as error:
        raise LabkitError(f"the report cannot be written into {_readable(out)}: {error.strerror}") from None


def _stopped(ended: Sequence[Result], total: int, out: Path, had_results: bool) -> None:
    """Keep what was graded before grading was stopped, but not in the place of an earlier report, which was whole."""
    if ended and not had_results:
        _write(ended, out)
        print(f"lab: stopped after {len(ended)} of {total}; these are in {_readable(out)}.", file=sys.stderr)
    elif had_results:
        print(f"lab: stopped after {len(ended)} of {total}; {_readable(out)} is as it was.", file=sys.stderr)


def _readable(path: Path) -> str:
    from labkit.lab.grading.report.texts import line

    return line(str(path), 500)
