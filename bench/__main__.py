"""`./lab bench [NAME] [--rounds N] [--json]`"""

import argparse
import json
import os
import platform

from rich.console import Console
from rich.table import Table

from bench import start
from labkit.errors import LabkitError

BENCHMARKS = {"start": start.measure}


def main() -> int:
    """Run a benchmark and print its table, or with --json the same figures for a program."""
    parser = argparse.ArgumentParser(prog="./lab bench", description="Measure labkit beside the tools people use.")
    parser.add_argument("name", nargs="?", default="start", choices=BENCHMARKS, help="what to measure (default: start)")
    parser.add_argument("--rounds", type=int, default=100, help="how often each way is run (default: 100)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    try:
        rows = BENCHMARKS[options.name](options.rounds)
    except LabkitError as error:
        Console(stderr=True).print(str(error), markup=False)
        return 1
    machine = f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    if options.json:
        print(json.dumps({"benchmark": options.name, "machine": machine, "rows": start.as_json(rows)}, indent=2))
        return 0
    table = Table(
        "way", "median ms", "CPU ms", "of crun", title=f"{options.name}: {options.rounds} rounds on {machine}"
    )
    for row in rows:
        figures = (row.median_ms, row.cpu_ms, row.ratio_to_crun)
        table.add_row(row.name, *("-" if figure is None else f"{figure:g}" for figure in figures))
    Console().print(table)
    for row in rows:
        if row.note:
            Console().print(f"{row.name}: {row.note}", markup=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
