"""The results as pages: one of the class, and one of each learner.

Whole in themselves: no script at all, nothing from elsewhere, and a Content-Security-Policy that allows nothing but the
page's own style sheet. So whatever a learner has written can, at worst, be read.
"""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from markupsafe import Markup, escape

from labkit.course.framework import rendering
from labkit.course.grading.found import NO_LAB
from labkit.course.grading.report import texts
from labkit.course.grading.report.gradebook import WHY, Column, Gradebook, Lab, standing
from labkit.course.grading.results import Replay, Result

if TYPE_CHECKING:
    from jinja2 import Environment

INDEX = "index.html"
LEARNERS = "learners"  # the folder of their pages
MOST_CELLS = 40  # of failed cells on a page; more have nothing more to say
MOST_NOTES = 40
MOST_HIGHLIGHTED = 20_000  # characters: Pygments takes 2 s for five times as many, and no answer needs them

MARKS = {"passed": "✓", "not yet": "→", "not attempted": "○", "not checked": "!", "refused": "✕", "nothing": "·"}


@dataclass(frozen=True)
class Bar:
    """One part of a bar: from `start`, `width` wide, both in percent."""

    kind: str
    count: int
    start: float
    width: float


def files(book: Gradebook) -> dict[str, str]:
    """Every page: its path within the report's folder, and its text."""
    made = {INDEX: _page("class.html.j2", book=book, bars=lambda column: bars(book, column))}
    for learner in book.learners:
        labs = [
            _of_learner(book, learner, lab) for lab in book.labs if lab.number != NO_LAB or book.result(learner, NO_LAB)
        ]
        made[path(book, learner)] = _page("learner.html.j2", book=book, learner=learner, labs=labs)
    return made


def path(book: Gradebook, learner: str) -> str:
    """Where a learner's page lies within the report's folder."""
    return f"{LEARNERS}/{book.file_names[learner]}.html"


def bars(book: Gradebook, column: Column) -> list[Bar]:
    """How many of the class stand where in an exercise, as the parts of a bar as long as the class is large."""
    made, start = [], 0.0
    for kind, count in book.progress(column).items():
        width = 100 * count / len(book.learners)
        if count:
            made.append(Bar(kind, count, round(start, 3), round(width, 3)))
        start += width
    return made


def replay_summary(replay: Replay | None) -> str:
    """How the notebook's run went, in a few words."""
    if replay is None:
        return "not run"
    failed = sum(not cell.ok for cell in replay.cells)
    if failed:
        return f"{failed} {'cell' if failed == 1 else 'cells'} failed"
    return "did not end" if replay.trouble else "all cells ran"


def highlighted(source: str) -> Markup:
    """Python source as HTML: escaped, its kinds of words as classes where it is not too long for that."""
    if len(source) > MOST_HIGHLIGHTED:
        return escape(texts.text(source, texts.SOURCE_CHARACTERS))
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    lexer = PythonLexer(stripnl=False, ensurenl=False)
    return Markup(highlight(texts.text(source, MOST_HIGHLIGHTED), lexer, HtmlFormatter(nowrap=True)))


def prose(found: str) -> Markup:
    """Text for people as HTML: escaped, `names` between backquotes as code, line ends kept."""
    return Markup(rendering.spans(texts.text(found)))


@dataclass(frozen=True)
class _OfLearner:
    """One lab on a learner's page."""

    lab: Lab
    result: Result | None
    others: tuple[Result, ...]  # handed in too, and not counted


def _of_learner(book: Gradebook, learner: str, lab: Lab) -> _OfLearner:
    counted = book.result(learner, lab.number)
    found = (one for one in book.results if (one.learner, one.lab) == (learner, lab.number))
    return _OfLearner(lab, counted, tuple(one for one in found if one is not counted))


def _page(template: str, **values: object) -> str:
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return str(_templates().get_template(template).render(style=Markup(style), style_digest=digest, **values)) + "\n"


@cache
def _style() -> str:
    loader = _templates().loader
    assert loader is not None
    return loader.get_source(_templates(), "style.css")[0].strip()


@cache
def _templates() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("labkit.course.grading.report"),
        autoescape=True,  # whatever a template is called
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "line": texts.line,
        "text": texts.text,
        "number": texts.number,
        "prose": prose,
        "highlighted": highlighted,
        "replay_summary": replay_summary,
        "href": quote,
    }
    templates.globals |= {
        "MARKS": MARKS,
        "WHY": WHY,
        "MOST_CELLS": MOST_CELLS,
        "MOST_NOTES": MOST_NOTES,
        "standing": standing,
        "path": path,
    }
    return templates
