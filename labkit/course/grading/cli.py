"""`./lab grade`: what was handed in, graded; scores, pages and JUnit written; a table at the end."""

import argparse
import importlib.util
import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.arguments import Parser
from labkit.course.grading.results import Exam, Result
from labkit.errors import LabkitError

if TYPE_CHECKING:
    from labkit.course.grading.found import Found

DEFAULT_OUT = Path("graded")
EXPLAINED = """\
FOLDER may hold notebooks called after learners, a folder for each learner, or be a checkout of the course or nbgrader's
course folder. One NOTEBOOK alone is explained in full here, and written down only with --out. Pages, scores.csv,
exercises.csv, junit.xml and results.json go into the folder of --out, "graded" if none is named.

Exit code: 0 when grading went well, whatever the points; 1 when something could not be graded because of this machine;
2 for wrong usage; 130 when it was interrupted, 143 when it was terminated: what was graded until then is kept.
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
    from labkit.course.grading import exam_seed
    from labkit.course.grading.class_run import grade_all
    from labkit.course.grading.report import store, terminal

    _check(options)
    labs = tuple(_lab(word) for word in options.lab)
    found, said = _find(options.paths, labs)
    single = len(found) == 1 and len(options.paths) == 1 and options.paths[0].is_file()
    out: Path | None = options.out or (None if single else DEFAULT_OUT)
    if out:
        _claim(out)
    had_results = out is not None and (out / store.NAME).exists()
    exam = Exam(
        seed=options.seed or exam_seed.of_this_machine(),
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
        with _terminated():
            results = grade_all(found, exam, options.jobs, options.scheduler, tell)
    except (KeyboardInterrupt, LabkitError) as error:
        if out:
            _stopped(ended, found, out, had_results, said)
        if isinstance(error, _Terminated):
            return 128 + error.signal
        raise
    if not single:
        said.append(_outcomes(results))
    _show(results, out, in_full=single, said=said)
    return 1 if any(failed(result) for result in results) else 0


def _outcomes(results: Sequence[Result]) -> str:
    """What became of all that was to be graded."""
    refused = sum(bool(one.refused) and not one.failed for one in results)
    not_graded = sum(one.failed for one in results)
    text = f"Of {len(results)} to grade {len(results) - refused - not_graded} were graded and {refused} refused"
    return f"{text}; {not_graded} could not be graded here." if not_graded else f"{text}."


class _Terminated(KeyboardInterrupt):
    def __init__(self, number: int) -> None:
        self.signal = number


@contextmanager
def _terminated() -> Iterator[None]:
    """Raise `_Terminated` at SIGTERM and SIGHUP in the body, and end the workers: they have not been told."""

    def stop(number: int, frame: object) -> None:
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise _Terminated(number)

    heeded = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is not signal.SIG_IGN]  # nohup(1)
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report_only(options: argparse.Namespace) -> int:
    from labkit.course.grading.report import store

    if len(options.paths) != 1 or not options.paths[0].is_dir():
        raise Usage("--report-only takes one folder, that of an earlier report")
    results = store.read(options.paths[0])
    out: Path = options.out or options.paths[0]
    _claim(out)
    _show(results, out, in_full=False, said=store.said(options.paths[0]))
    return 0


def _show(results: Sequence[Result], out: Path | None, in_full: bool, said: Sequence[str]) -> None:
    from rich.console import Console

    from labkit.course.grading import report
    from labkit.course.grading.report import terminal
    from labkit.course.grading.report.gradebook import Gradebook

    if out:
        _write(results, out, said)
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
    if not number.isdecimal() or not importlib.util.find_spec(f"labkit.course.exercises.lab{number}"):
        raise Usage(f"there is no lab {word!r}; the labs are 00, 01, 02 and so on")
    return number


def _find(paths: Sequence[Path], labs: Sequence[str]) -> "tuple[list[Found], list[str]]":
    """The submissions, and what was said of files that are none."""
    from labkit.course.grading.discover import NO_LAB, Tally
    from labkit.course.grading.report.texts import line
    from labkit.course.grading.submission import find

    said: list[str] = []

    def say(sentence: str) -> None:
        said.append(line(sentence, 500))
        print(f"lab: {said[-1]}", file=sys.stderr)

    tally = Tally()
    found = find(paths, say, tally)
    wanted = [one for one in found if not labs or one.lab in (*labs, NO_LAB)]
    if not wanted:
        where = ", ".join(_readable(path) for path in paths)
        of = f" of lab {', '.join(labs)}" if labs else ""
        raise Usage(f"there is no notebook{of} in {where}. ./lab grade --help says which folders it knows.")
    if tally.files > 1:
        parts = [f"{len(wanted)} to grade"]
        parts += [f"{len(found) - len(wanted)} of other labs"] if len(found) > len(wanted) else []
        parts += [f"{len(tally.passed_over)} passed over"] if tally.passed_over else []
        parts += [f"{len(tally.others)} beside them that are no notebooks"] if tally.others else []
        if lost := tally.left - len(found):
            parts.append(f"{lost} unaccounted for, which is a fault of ours: please report it")
        said.append(f"{tally.files} files were looked at: {', '.join(parts)}.")
        if len(parts) > 1:
            print(said[-1])
    return wanted, said


def _claim(out: Path) -> None:
    from labkit.course.grading.report import store

    try:
        store.claim(out)
    except LabkitError as error:
        raise Usage(str(error)) from None


def _write(results: Sequence[Result], out: Path, said: Sequence[str]) -> None:
    from labkit.course.grading import report

    try:
        report.write(results, out, said)
    except OSError as error:
        raise LabkitError(f"the report cannot be written into {_readable(out)}: {error.strerror}") from None


def _stopped(
    ended: Sequence[Result], found: "Sequence[Found]", out: Path, had_results: bool, said: Sequence[str]
) -> None:
    """Keep what was graded before grading was stopped: beside an earlier report, which was whole, not in its place."""
    if not ended:
        return
    if had_results:
        out = out.with_name(f"{out.name}.stopped")
        _claim(out)
    graded = {(one.learner, one.lab) for one in ended}
    missing = [f"{one.learner} (lab {one.lab})" for one in found if (one.learner, one.lab) not in graded]
    stopped = f"Stopped after {len(ended)} of {len(found)}. Not graded: {', '.join(missing)}"
    _write(ended, out, [stopped, *said])
    print(f"lab: stopped after {len(ended)} of {len(found)}; these are in {_readable(out)}.", file=sys.stderr)


def _readable(path: Path) -> str:
    from labkit.course.grading.report.texts import line

    return line(str(path), 500)
