"""Measured figures as bars: units, words, and what is refused."""

import pytest

from labkit.course.views import figures
from labkit.errors import InvalidConfig


@pytest.mark.parametrize(
    ("value", "family", "words"),
    [
        (3.04, "time", "3.0 ns"),
        (210, "time", "210 ns"),
        (4_200, "time", "4.2 µs"),
        (3_000_000_000_000, "time", "3000 s"),
        (12, "memory", "12 bytes"),
        (1536, "memory", "1.5 KiB"),
        (300 << 20, "memory", "300 MiB"),
    ],
)
def test_a_figure_in_words(value: float, family: str, words: str) -> None:
    assert figures.in_words(value, family) == words


def test_a_terminal_gets_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    figures.show("Start", {"process": 1.5, "guest": None}, unit="ms", notes={"guest": "not here"})
    printed = capsys.readouterr().out
    assert "process      1.5 ms" in printed and "guest" in printed and "not here" in printed
    assert "CPU" in printed, "the machine's line"


def test_the_view_has_it_in_the_smallest_unit() -> None:
    with figures.FiguresView("Start", {"process": 1.5}, "ms", {}) as view:
        assert view.state["rows"] == [["process", 1_500_000.0, ""]] and view.state["family"] == "time"
    with pytest.raises(InvalidConfig, match="no unit"):
        figures.show("Start", {}, unit="years")
