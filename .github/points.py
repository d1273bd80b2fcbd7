#!/usr/bin/env python3
"""Shows what `./lab grade --out FOLDER` has written as a Markdown table, for the summary page of a GitHub run.

With --all it ends with exit code 1 unless every point is earned: GitHub Classroom gives a test's points for code 0.
Needs nothing but Python's own library.
"""

import argparse
import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path

COLUMNS = ("lab", "exercise", "outcome", "earned", "points", "why")
CUT = 200  # characters of a cell; what is shown may come from whoever wrote the notebook


def plain(text: str) -> str:
    """`text` as one line of a Markdown table's cell: no markup, no HTML, no end of the cell in it."""
    line = " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text).split())[:CUT]
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~@&:/])", lambda found: f"&#{ord(found[1])};", line)


def table(rows: Sequence[dict[str, str]]) -> str:
    """The Markdown table, with a line for each exercise."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(plain(row.get(name) or '') for name in COLUMNS)} |" for row in rows]
    return "\n".join(lines)


def read(file: Path) -> list[dict[str, str]]:
    """The lines of a CSV file, by their columns."""
    with file.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Shows graded points as a Markdown table.")
    parser.add_argument("folder", type=Path, help="what --out of ./lab grade was")
    parser.add_argument("--all", action="store_true", help="exit code 1 unless every point is earned")
    options = parser.parse_args(argv)
    try:
        scores, rows = read(options.folder / "scores.csv"), read(options.folder / "exercises.csv")
        earned, points = (sum(float(row[name] or 0) for row in scores) for name in ("earned", "points"))
    except FileNotFoundError as error:
        print(f"Nothing has been graded: there is no {error.filename}.")
        return 1
    except (KeyError, TypeError, ValueError) as error:
        print(f"The tables in {options.folder} are not what ./lab grade writes: {plain(str(error))}")
        return 1
    print(f"**{earned:g} of {points:g} points**\n\n{table(rows)}")
    return 1 if options.all and not 0 < points <= earned else 0


if __name__ == "__main__":
    sys.exit(main())
