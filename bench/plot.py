"""The figures as a picture: an SVG with calibrated axes, that reads well on a light page and on a dark one.

Written by hand, since bars and a line are little to draw: nothing needs to be installed for it.
"""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from bench.sampling import Row

_WIDTH, _LEFT, _RIGHT = 860, 130, 30
_BAR, _STEP = 14, 24
_WAYS = {  # the order of bars, and colours with enough contrast on white and on black
    "C program": "#8a8f98",
    "labkit": "#e08a00",
    "bubblewrap": "#3f8fd2",
    "crun": "#2f9e73",
    "runc": "#a566c9",
}
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 15px } .small { font-size: 11px } .end { text-anchor: end }
  .middle { text-anchor: middle } .page { fill: #ffffff; stroke: #d0d7de } .grid { stroke: #d8dee4 }
  .spread { stroke: #24292f; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .page { fill: #0d1117; stroke: #30363d } .grid { stroke: #30363d }
    .spread { stroke: #e6edf3 }
  }
"""


def write(file: Path, rows: Sequence[Row], machine: str) -> None:
    """Draw what was measured into `file`."""
    panels = [
        _bars(rows, "start", "Start, run true, wait: called from a process of 300 MB and 7 threads", "ms"),
        _bars(rows, "cell", "The same, called from a cell of a notebook", "ms"),
        _bars(rows, "memory", "Memory of an idle container, the kernel's included", "KiB"),
        _lines(rows, "scale", "Start, run true, wait: beside so many running containers", "ms"),
    ]
    parts, top = [], 44
    for draw in panels:
        if draw:
            part, height = draw(top)
            parts.append(part)
            top += height
    words, lines = machine.split(", "), [""]
    for word in words:
        lines[-1:] = [f"{lines[-1]}, {word}".lstrip(", ")] if len(lines[-1]) + len(word) < 125 else [lines[-1], word]
    notes = ["Bars and dots: medians. Thin lines: from the first quartile to the third.", *lines]
    for number, line in enumerate(notes):
        parts.append(_text(20, top + 8 + 16 * number, line, "small"))
    height = top + 8 + 16 * len(notes) + 6
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="Benchmarks of labkit beside a C program, bubblewrap, crun and runc">\n'
        f"<style>{_STYLE}</style>\n"
        f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="6"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


_Panel = Callable[[int], tuple[str, int]]


def _bars(rows: Sequence[Row], benchmark: str, title: str, unit: str) -> _Panel | None:
    found = {row.way: row for row in rows if row.benchmark == benchmark and row.median is not None}
    shown = [found[way] for way in _WAYS if way in found]
    if not shown:
        return None
    scale, marks = _axis(max(row.high or row.median or 0 for row in shown), _LEFT, _WIDTH - _RIGHT - 60)

    def draw(top: int) -> tuple[str, int]:
        bottom = top + _STEP * len(shown)
        parts = [_text(20, top - 14, title, "title")]
        for mark in marks:
            parts.append(_line(scale(mark), top - 4, scale(mark), bottom, "grid"))
            parts.append(_text(scale(mark), bottom + 14, f"{mark:g}", "small middle"))
        parts.append(_text(scale(marks[-1]) + 26, bottom + 14, unit, "small"))
        for number, row in enumerate(shown):
            y = top + _STEP * number
            assert row.median is not None
            width = scale(row.median) - _LEFT
            parts.append(_text(_LEFT - 8, y + 12, row.way, "end"))
            parts.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{_WAYS[row.way]}"/>')
            right = scale(row.median)
            if row.low is not None and row.high is not None:
                parts.append(_line(scale(row.low), y + _BAR / 2, scale(row.high), y + _BAR / 2, "spread"))
                right = scale(row.high)
            parts.append(_text(right + 6, y + 12, f"{row.median:.3g}", "small"))
        return "\n".join(parts), _STEP * len(shown) + 62

    return draw


def _lines(rows: Sequence[Row], benchmark: str, title: str, unit: str) -> _Panel | None:
    found = [row for row in rows if row.benchmark == benchmark and row.way in _WAYS and row.at is not None]
    if not found:
        return None
    counts = sorted({row.at for row in found if row.at is not None})
    across = {count: _LEFT + 40 + (520 * number) // max(1, len(counts) - 1) for number, count in enumerate(counts)}
    height, right = 170, across[counts[-1]]

    def draw(top: int) -> tuple[str, int]:
        bottom = top + height
        scale, marks = _axis(max(row.high or 0 for row in found), bottom, top)
        parts = [
            _text(20, top - 14, title, "title"),
            _text(right + 28, bottom + 16, "containers", "small"),
        ]
        parts.append(_text(_LEFT - 44, scale(marks[-1]) + 4, unit, "small end"))
        for mark in marks:
            parts.append(_line(_LEFT, scale(mark), right + 20, scale(mark), "grid"))
            parts.append(_text(_LEFT - 8, scale(mark) + 4, f"{mark:g}", "small end"))
        for count, x in across.items():
            parts.append(_text(x, bottom + 16, f"{count}", "small middle"))
        taken: list[float] = []
        for way, colour in _WAYS.items():
            dots = sorted((row for row in found if row.way == way), key=lambda row: row.at or 0)
            points = [(across[row.at], row) for row in dots if row.at is not None and row.median is not None]
            if not points:
                continue
            path = " ".join(f"{x},{scale(row.median or 0):.1f}" for x, row in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
            for x, row in points:
                parts.append(_line(x, scale(row.low or 0), x, scale(row.high or 0), "spread"))
                parts.append(f'<circle cx="{x}" cy="{scale(row.median or 0):.1f}" r="4" fill="{colour}"/>')
            x, last = points[-1]
            y = scale(last.median or 0) + 4
            while any(abs(y - other) < 15 for other in taken):  # names that would lie on each other
                y -= 3
            taken.append(y)
            parts.append(_text(x + 28, y, f"{way} {last.median:.3g}", ""))
        return "\n".join(parts), height + 50

    return draw


def _axis(largest: float, begin: float, end: float) -> tuple[Callable[[float], float], list[float]]:
    """From a figure to its place between `begin` (zero) and `end`; and the round figures to be marked."""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if largest / s <= 8)
    marks = [float(step * number) for number in range(int(-(-largest // step)) + 1)]
    return lambda figure: begin + (end - begin) * figure / marks[-1], marks


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'
