"""The exits of a virtual machine's guest, in their order, as a table."""

import html
from collections.abc import Iterable
from itertools import groupby

from labkit.course.framework import rendering
from labkit.kvm import Exit, MmioRead, MmioWrite, PortIn, PortOut

_HEAD = ("exit", "where", "bytes", "data", "times in a row")


def show_exits(stops: Iterable[Exit], title: str = "") -> None:
    """Show them; equal ones that follow each other stand in one line."""
    rows: list[tuple[str, ...]] = [(*_row(stop), str(len(list(same)))) for stop, same in groupby(stops)]
    total = sum(int(row[-1]) for row in rows)
    heading = f"{title or 'Exits'}: {total}"
    widths = [max(len(row[column]) for row in (_HEAD, *rows)) for column in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (_HEAD, *rows)]
    rendering.display("\n".join([heading, *(line.rstrip() for line in lines)]), _as_html(heading, rows))


def _row(stop: Exit) -> tuple[str, str, str, str]:
    match stop:
        case PortOut(port, size, count, data):
            return "port out", f"port {port:#x}", str(size * count), f"{data!r}"
        case PortIn(port, size, count):
            return "port in", f"port {port:#x}", str(size * count), "asked for"
        case MmioWrite(address, data):
            return "memory write", f"address {address:#x}", str(len(data)), f"{data!r}"
        case MmioRead(address, size):
            return "memory read", f"address {address:#x}", str(size), "asked for"
        case _:
            return str(stop), "", "", ""


def _as_html(heading: str, rows: list[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag} style='text-align:left'>{html.escape(one)}</{tag}>" for one in cells) + "</tr>"

    table = line(_HEAD, "th") + "".join(line(row, "td") for row in rows)
    return f"<div><b>{html.escape(heading)}</b><table style='margin:6px 0'>{table}</table></div>"
