"""`./lab bench [NAME...] [--rounds N] [--json] [--plot FILE.svg]`"""

import json
import os
import platform
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import beside, classroom, memory, plot, rate, scale, start
from bench.sampling import Row
from labkit.arguments import Parser
from labkit.errors import LabkitError

BENCHMARKS = {
    "start": "a container started, run and waited for, in process",
    "cell": "the same from a cell of a notebook",
    "rate": "containers a second, one and two at a time",
    "memory": "what an idle container costs",
    "scale": "a start beside 1, 50 and 500 running containers",
    "beside": "a start, and an exec, alone and beside a container that does its worst",
    "class": "a class graded: an honest notebook alone, beside honest ones, and beside hostile ones",
}
ON_DEMAND = ("class",)  # which takes minutes a round


def measure(names: Collection[str], rounds: int) -> list[Row]:
    """The rows of these benchmarks. "start" and "cell" go in one interleaved run."""
    rows: list[Row] = []
    if kinds := [name for name in names if name in ("start", "cell")]:
        rows += start.measure(rounds, kinds)
    for name, module in (("rate", rate), ("memory", memory), ("scale", scale), ("beside", beside)):
        if name in names:
            rows += module.measure(rounds)
    if "class" in names:
        rows += classroom.measure(rounds)
    return rows


def main() -> int:
    """Run benchmarks and print their tables, or with --json the same figures for a program."""
    parser = Parser(
        prog="./lab bench",
        description="Measure labkit beside the tools people use.",
        epilog="; ".join(f"{name}: {text}" for name, text in BENCHMARKS.items()),
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, help="how often each way is gone (default: 60; of class alone: 1)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the figures into this file, too")
    options = parser.parse_args()
    names = options.names or [name for name in BENCHMARKS if name not in ON_DEMAND]
    rounds = options.rounds if options.rounds is not None else 1 if set(names) <= set(ON_DEMAND) else 60
    if rounds < 1:
        parser.error("--rounds must be 1 or more")
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]!r}, only {', '.join(BENCHMARKS)}")
    load = os.getloadavg()[0]
    try:
        rows = measure(names, rounds)
        if options.plot:
            plot.write(options.plot, rows, machine(load))
    except (LabkitError, OSError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    if options.json:
        figures = {"machine": machine(load), "rounds": rounds, "rows": [asdict(row) for row in rows]}
        print(json.dumps(figures, indent=2))
    else:
        show(rows, rounds, load)
    return 0


def machine(load: float) -> str:
    """This machine in one line, with how busy it was."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return (
        f"Linux {platform.release()}, {os.cpu_count()} CPUs ({model}), Python {platform.python_version()}, "
        f"load {load:.1f} at the beginning, {time.strftime('%Y-%m-%d')}"
    )


def show(rows: Sequence[Row], rounds: int, load: float) -> None:
    """The tables, one for each benchmark."""
    console = Console()
    console.print(f"{rounds} rounds on {machine(load)}", markup=False, highlight=False)
    for name, title in BENCHMARKS.items():
        mine = [row for row in rows if row.benchmark == name]
        measured = [row for row in mine if row.median is not None]
        if not mine:
            continue
        unit = mine[0].unit
        columns: dict[str, Sequence[object]] = {
            "at": [row.at for row in measured],
            f"median {unit}": [row.median for row in measured],
            "quartiles": [None if row.low is None else f"{row.low:g} - {row.high:g}" for row in measured],
            "CPU ms": [row.cpu_ms for row in measured],
            "of crun": [row.ratio_to_crun for row in measured],
        }
        used = {column: values for column, values in columns.items() if any(value is not None for value in values)}
        table = Table("way", *used, title=f"{name}: {title}", title_justify="left")
        for number, row in enumerate(measured):
            table.add_row(row.way, *(_text(values[number]) for values in used.values()))
        console.print(table)
        for row in mine:
            if row.note:
                console.print(f"{row.way}: {row.note}", markup=False, highlight=False)


def _text(value: object) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
