"""What is made of the results of grading: right for honest ones, harmless for hostile ones."""

import base64
import csv
import hashlib
import io
import json
import re
import stat
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from labkit.course.grading import report
from labkit.course.grading.found import NO_LAB, Found
from labkit.course.grading.grade import grade
from labkit.course.grading.report import names, pages, sheets, store, terminal, texts
from labkit.course.grading.report.gradebook import Gradebook, Score, standing
from labkit.course.grading.results import CellRun, Exam, Judged, Replay, Result
from labkit.course.grading.submission import Submission
from labkit.errors import LabkitError
from tests.gradings import EXPECTED, NOT_ATTEMPTED, NOT_CHECKED, NOT_YET, PASSED, a_class, exercise, result

HOSTILE = [
    "</script><script>alert(1)</script>",
    "</style></code></pre><img src=x onerror=alert(1)>",
    "]]><!-- --><![CDATA[",
    "\0\x01\x08\x0b\x1f\x7f\x9b31m",
    "\x1b[31;1mred\x1b[0m \x1b]0;title\x07 \x1b]8;;http://x\x1b\\link \x1bc",
    "\u202egnp.exe \u2066x\u2069 \u200f\u200b\ufeff",
    "\ud800 lone \udfff \ufffe\uffff",
    "=HYPERLINK(\"http://x\",\"y\")",
    "{{ 7 * 7 }} {% raw %}",
    "`a` ``b`` <b>`<i>`",
    "&lt;already&gt; &#0; &x;",
    "a" * 1_000_000,
    "\n" * 50_000,
]  # fmt: skip


# --- what the results say ---------------------------------------------------------------------------------------------


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_scores_have_a_line_per_learner_and_a_column_per_lab_and_exercise() -> None:
    half = Judged("not yet", "seen", "why", 0.5)
    book = Gradebook(
        [
            result("Zoe", "07", exercise("pivot", points=2.0)),
            result("ada", "05", exercise("isolate"), exercise("join", half)),
            result("ada", "07", exercise("pivot", NOT_CHECKED, points=2.0)),
        ]
    )
    assert sheets.scores(book).split("\r\n") == [
        "learner,earned,points,percent,05,05.isolate,05.join,07,07.pivot",
        "ada,1.5,2,75,1.5,1,0.5,0,",
        "Zoe,2,4,50,,,,2,2",
        "",
    ]


def test_exercises_have_the_reasons_of_hidden_checks_and_never_what_these_saw() -> None:
    hidden = Judged("not yet", "SECRET PARAMETERS", "Two boxes at once share a name.", 0.0)
    made = report.files([result("ada", "05", exercise(hidden=(PASSED, hidden)))])
    (row,) = rows(made["exercises.csv"])
    assert (row["outcome"], row["earned"], row["points"]) == ("not yet", "0.67", "1")
    assert row["hidden"] == f"passed: {PASSED.why}; not yet: {hidden.why}"
    for name, text in made.items():
        assert ("SECRET PARAMETERS" in text) == (name == store.NAME), name
        assert (hidden.why in text) == (name not in ("index.html", "scores.csv")), name


def test_who_handed_in_nothing_has_no_points_of_all_and_who_was_refused_too() -> None:
    book = Gradebook(
        [
            result("ada", "05", exercise("isolate"), exercise("join")),
            Result("bob", "05", "", "bob.ipynb", refused="It is no notebook."),
            result("cy", "07", exercise("pivot")),
        ]
    )
    assert [book.total(one) for one in book.learners] == [Score(2, 3), Score(0, 3), Score(1, 3)]
    assert "bob,05,,refused,0,,It is no notebook.," in sheets.exercises(book)
    assert book.progress(book.labs[0].columns[0])["refused"] == 1
    assert book.progress(book.labs[0].columns[0])["nothing"] == 1


def test_what_we_could_not_grade_costs_nobody_points() -> None:
    broken = Result("bob", "05", "", "bob.ipynb", refused="The machine is out of memory.", failed=True)
    found = [result("ada", "05", exercise(), exercise("join")), broken]
    book = Gradebook(found)
    assert [book.total(one) for one in book.learners] == [Score(2, 2), Score(0, 0)]
    assert "bob,0,0,,,," in sheets.scores(book)  # not 0 percent: nothing could be earned
    assert "bob,05,,not checked,,,The machine is out of memory.," in sheets.exercises(book)
    assert book.progress(book.labs[0].columns[0])["not checked"] == 1
    (error,) = junit(found).iter("error")
    assert (error.get("type"), error.text) == ("not graded", "The machine is out of memory.")
    for name, text in pages.files(book).items():
        assert ("ot graded" in text.partition("</style>")[2]) == (name != "learners/ada.html"), name


def test_what_is_of_no_lab_is_on_the_page_of_whom_it_is_of_and_in_every_table() -> None:
    unread = grade(
        Found("bob", NO_LAB, Path("bob/x.pdf"), refused="It is a PDF."), Submission(refused="It is a PDF."), Exam("s")
    )
    assert (unread.lab, unread.refused, unread.failed) == (NO_LAB, "It is a PDF.", False)
    found = [result("ada", "05", exercise()), unread]
    book = Gradebook(found)
    assert [book.total(one) for one in book.learners] == [Score(1, 1), Score(0, 1)]
    assert "bob,0,1,0," in sheets.scores(book)
    assert "bob,?,,refused,0,,It is a PDF.," in sheets.exercises(book)
    (failure,) = junit(found).iter("failure")
    assert (failure.get("type"), failure.text) == ("refused", "It is a PDF.")
    made = pages.files(book)
    assert "It is a PDF." in made["index.html"] and "It is a PDF." in made["learners/bob.html"]
    assert "Lab ?" not in made["learners/ada.html"]


def test_of_two_notebooks_the_better_one_counts_and_the_page_says_so() -> None:
    worse = result("ada", "05", exercise(judged=NOT_YET), file="z/second.ipynb")
    book = Gradebook([worse, result("ada", "05", exercise(), file="a/first.ipynb")])
    assert book.total("ada") == Score(1, 1)
    assert "Handed in too: <code>z/second.ipynb</code>, 0 points." in pages.files(book)["learners/ada.html"]


@pytest.mark.parametrize(
    ("own", "hidden", "expected"),
    [
        (PASSED, (), "passed"),
        (PASSED, (PASSED,), "passed"),
        (PASSED, (PASSED, NOT_YET), "not yet"),
        (PASSED, (NOT_CHECKED,), "passed"),
        (NOT_YET, (PASSED,), "not yet"),
        (NOT_ATTEMPTED, (NOT_YET,), "not attempted"),
        (NOT_CHECKED, (PASSED,), "not checked"),
    ],
)
def test_passed_means_that_every_check_has_passed(own: Judged, hidden: tuple[Judged, ...], expected: str) -> None:
    assert standing(exercise(judged=own, hidden=hidden)) == expected


def test_reports_do_not_depend_on_the_order_of_the_results() -> None:
    found = a_class(12)
    assert report.files(found) == report.files(reversed(found))


# --- CSV --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\0=1", "\x1b[0m=1", "＝1"])  # noqa: RUF001
def test_no_cell_is_a_formula(word: str) -> None:
    (row,) = rows(sheets.scores(Gradebook([result(word)])))
    assert row["learner"][0] not in "=+-@\t\r＝ "  # noqa: RUF001
    (row, *_) = rows(sheets.exercises(Gradebook([result("ada", "05", exercise(judged=Judged("not yet", "", word)))])))
    assert row["why"][0] not in "=+-@\t\r＝ "  # noqa: RUF001


def test_csv_is_quoted_as_rfc_4180_has_it() -> None:
    text = sheets.exercises(Gradebook([result('O"Neil, Sh\naun')]))
    assert '\r\n"O""Neil, Sh aun",05,' in text
    assert "\n" not in text.replace("\r\n", "")


# --- JUnit ------------------------------------------------------------------------------------------------------------

ALLOWED: dict[str, tuple[set[str], set[str], set[str]]] = {  # element: attributes it must have, may have; children
    "testsuites": ({"tests", "failures", "errors", "time"}, {"name", "skipped"}, {"testsuite"}),
    "testsuite": ({"name", "tests", "failures", "errors", "skipped", "time"}, set(), {"testcase", "system-out"}),
    "testcase": ({"name", "classname", "time"}, set(), {"failure", "skipped", "error"}),
    "failure": ({"message", "type"}, set(), set()),
    "error": ({"message", "type"}, set(), set()),
    "skipped": ({"message"}, set(), set()),
    "system-out": (set(), set(), set()),
}


def junit(results: list[Result]) -> ET.Element:
    """The parsed file, after the checks that readers of JUnit would fail at."""
    text = report.files(results)["junit.xml"]
    root = ET.fromstring(text.encode())  # expat, as strict as XML 1.0
    assert root.tag == "testsuites"
    for element in root.iter():
        must, may, children = ALLOWED[element.tag]
        assert must <= set(element.attrib) <= must | may, element.tag
        assert {child.tag for child in element} <= children
        if element.tag in ("testsuites", "testsuite"):
            counts = [len(list(element.iter(tag))) for tag in ("testcase", "failure", "error", "skipped")]
            assert [int(element.get(name, "")) for name in ("tests", "failures", "errors", "skipped")] == counts
        if "time" in element.attrib:
            assert float(element.attrib["time"]) >= 0
        if element.tag == "testcase":
            assert len(element) <= 1
    return root


def test_each_outcome_has_its_form_in_junit() -> None:
    graded = [
        exercise("good"),
        exercise("near", NOT_YET),
        exercise("empty", NOT_ATTEMPTED),
        exercise("lacking", NOT_CHECKED),
        exercise("hollow", hidden=(PASSED, NOT_YET)),
    ]
    root = junit([result("ada", "05", *graded, notes=("odd",)), Result("bob", "05", "", "", refused="No notebook.")])
    found = {case.get("name"): None for case in root.iter("testcase")} | {
        case.get("name"): (one.tag, one.get("type"), one.text) for case in root.iter("testcase") for one in case
    }
    assert found == {
        "good": None,
        "near": ("failure", "not yet", f"Seen: {NOT_YET.seen}\n\nWhy not yet: {NOT_YET.why}"),
        "empty": ("failure", "not attempted", f"To begin: {NOT_ATTEMPTED.why}"),
        "lacking": ("skipped", None, f"Why: {NOT_CHECKED.why}"),
        "hollow": ("failure", "hidden check", f"Hidden check 2: not yet. {NOT_YET.why}"),
        "submission": ("failure", "refused", "No notebook."),
    }
    assert [suite.get("name") for suite in root] == ["ada / lab 05", "bob / lab 05"]
    assert root[0].findtext("system-out") == "odd\n1.67 of 4 points"


def test_the_notebooks_run_is_a_suite_of_its_own() -> None:
    cells = (
        CellRun(2, True, "x = 1", ""),
        CellRun(4, False, "1 / 0", "Traceback\nZeroDivisionError: division by zero"),
    )
    root = junit([result(replay=Replay(cells, "It was ended after 120 s."))])
    suite = root[1]
    assert suite.get("name") == "ada / lab 05 / notebook"
    assert [(case.get("name"), [one.get("message") for one in case]) for case in suite] == [
        ("cell 2", []),
        ("cell 4", ["ZeroDivisionError: division by zero"]),
        ("to its end", ["It was ended after 120 s."]),
    ]


# --- hostile texts ----------------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """The elements and attributes that a page has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_data(self, data: str) -> None:
        self.text += data


def everywhere(word: str) -> list[Result]:
    """A result that has `word` wherever a learner could have put it, and one that was refused."""
    judged = Judged("not yet", word, word, 0.5)
    graded = exercise("isolate", judged, title=word, hidden=(judged,), expected=word, answer=word)
    replay = Replay((CellRun(1, False, word, word),), word)
    return [
        result(word, "05", graded, title=word, file=word, notes=(word,) * 60, replay=replay, digest=word),
        Result(word + "2", "05", word, word, refused=word, notes=(word,)),
    ]


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_stay_texts(word: str) -> None:
    made = report.files(everywhere(word))
    junit(everywhere(word))
    assert len(made) == 7
    for name, text in made.items():
        text.encode("utf-8")  # no half of a surrogate pair
        assert len(text) < 3_000_000 or name == store.NAME, f"{name} has {len(text)} characters"
        assert not re.search(
            "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]", text
        )
        assert name in ("scores.csv", "exercises.csv") or "\r" not in text
    for ours in ("index.html", *(name for name in made if name.startswith("learners/"))):
        page = Elements(made[ours])
        kinds = {tag for tag, _ in page.found}
        assert not kinds & {"script", "img", "iframe", "object", "b", "i", "link", "base", "form"}
        assert not [name for _, attributes in page.found for name in attributes if name.startswith("on")]
        assert not [attributes for _, attributes in page.found if "style" in attributes]
        for _, attributes in page.found:
            if href := attributes.get("href"):
                assert re.match(r"#|learners/[^/]+\.html|\.\./index\.html$", href), href
        assert "7 * 7" not in word or word in page.text
    again = [Result.from_json(one) for one in json.loads(made[store.NAME])["results"]]
    assert again == list(Gradebook(everywhere(word)).results)


def test_what_is_cut_says_so() -> None:
    made = report.files(everywhere("a" * 1_000_000))
    page = next(text for name, text in made.items() if name.startswith("learners/") and "Answer" in text)
    assert "… (992,000 more characters left out)" in page
    assert "… and 20 more." in page
    assert len(texts.line("b" * 500)) == texts.LINE_CHARACTERS
    assert texts.line("x" * 200) == "x" * 200


def test_what_cannot_be_seen_is_shown() -> None:
    assert texts.text("a\0b\x7fc\x85d\u202ee\ud800f\r\ng\rh") == "a␀b␡c⟨U+0085⟩d⟨U+202E⟩e\ufffdf\ng␍h"
    assert texts.line("\x1b[2J\x1b]0;x\x07one\n\ttwo\u2028three") == "one two⟨U+2028⟩three"
    assert texts.line("한국어 עברית नमस्ते 👩\u200d🔬") == "한국어 עברית नमस्ते 👩\u200d🔬"


# --- pages ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_texts() -> dict[str, str]:
    return {name: text for name, text in report.files(a_class(50)).items() if name.endswith(".html")}


def test_pages_allow_nothing_but_their_own_style(page_texts: dict[str, str]) -> None:
    assert len(page_texts) == 51
    for text in page_texts.values():
        (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in text
        assert "http:" not in text and "https:" not in text and "url(" not in text and "@import" not in text


def test_pages_are_well_formed_for_screen_readers(page_texts: dict[str, str]) -> None:
    for text in page_texts.values():
        page = Elements(text)
        tags = [tag for tag, _ in page.found]
        assert tags.count("table") == tags.count("caption")
        assert tags.count("h1") == tags.count("main") == 1
        assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.found if tag == "th")
        levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
        assert all(after <= before + 1 for before, after in pairwise(levels))
        assert len(page.ids) == len(set(page.ids))
        named = [attributes["aria-labelledby"] for _, attributes in page.found if "aria-labelledby" in attributes]
        assert set(named) <= set(page.ids)


def test_every_link_leads_somewhere(page_texts: dict[str, str]) -> None:
    from urllib.parse import unquote, urljoin

    ids = {name: set(Elements(text).ids) for name, text in page_texts.items()}
    for name, text in page_texts.items():
        hrefs = [attributes["href"] for tag, attributes in Elements(text).found if tag == "a"]
        assert hrefs
        for href in hrefs:
            path, _, anchor = urljoin(name, href).partition("#")
            assert unquote(path) in page_texts, href
            assert not anchor or unquote(anchor) in ids[unquote(path)], href


def test_marks_have_words(page_texts: dict[str, str]) -> None:
    index = page_texts["index.html"]
    for mark, word in (
        ("✓", "passed"),
        ("→", "not yet"),
        ("○", "not attempted"),
        ("!", "not checked"),
        ("✕", "refused"),
    ):
        assert f'<span aria-hidden="true">{mark}</span> {word}' in index
    assert re.search(r"</span> \d+ handed in nothing</span>", index)
    assert "It is not JSON" not in index and "it is not JSON" in index


def test_bars_are_as_long_as_the_class() -> None:
    book = Gradebook(a_class(50))
    for lab in book.labs:
        for column in lab.columns:
            made = pages.bars(book, column)
            assert sum(bar.count for bar in made) == 50
            assert sum(bar.width for bar in made) == pytest.approx(100)
            assert made[0].start == 0 and made[-1].start + made[-1].width == pytest.approx(100)


def test_a_learners_page_has_all_there_is_to_learn() -> None:
    graded = exercise("isolate", NOT_YET, hidden=(NOT_ATTEMPTED,))
    cells = (CellRun(3, True, "fine", ""), CellRun(5, False, "1 / 0", "ZeroDivisionError"))
    book = Gradebook([result("ada", "05", graded, replay=Replay(cells), notes=("a note",))])
    text = pages.files(book)["learners/ada.html"]
    shown = " ".join(Elements(text).text.partition("The class")[2].split())
    for expected in (
        "→ not yet A hostname of its own isolate 0/1",
        "AskedA process whose hostname is another than the lab host's.",
        "SeenThe lab host is called box-7f3a too. Why not yetWhich of the two calls makes a new place?",
        "Hidden check ○ not attempted Begin with the call",
        "unshare(CLONE_NEWUTS) # first the place",
        "1 cell failed",
        "Cell 5 failed 1 / 0 ZeroDivisionError",
        "Notes a note",
    ):
        assert expected in shown, shown
    assert '<span class="k">def</span>' in text  # highlighted
    assert "Cell 3" not in shown


# --- the terminal -----------------------------------------------------------------------------------------------------


def in_terminal(*parts: RenderableType, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(*parts)
    return out.getvalue()


@pytest.mark.parametrize("word", [*HOSTILE, "[red]x[/red] [link=http://x]y[/link] [/]"], ids=range(len(HOSTILE) + 1))
def test_nothing_that_a_learner_wrote_moves_the_cursor(word: str) -> None:
    found = everywhere(word)
    failed = Result(word, "05", word, word, refused=word, failed=True)
    shown = [terminal.ended(one, 1, 2) for one in (*found, failed)]
    assert all(len(one) < 400 and "\n" not in one for one in shown)
    full = (in_terminal(terminal.in_full(one)) for one in (*found, failed))
    tables = (in_terminal(terminal.table(Gradebook(some))) for some in (found, found[:1], [failed]))
    for text in (*shown, *full, *tables):
        text.encode("utf-8")
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200f\u2028-\u202e\u2066-\u2069\ufeff]", text)
        assert len(text) < 200_000
        assert "[red]" not in word or "[red]" in text


def test_a_learner_sees_each_exercise_in_full() -> None:
    graded = [exercise("isolate"), exercise("join", NOT_YET, hidden=(NOT_YET,)), exercise("rename", NOT_ATTEMPTED)]
    replay = Replay((CellRun(5, False, "1 / 0", "ZeroDivisionError: division by zero"),))
    shown = in_terminal(terminal.in_full(result("ada", "05", *graded, notes=("a note",), replay=replay)))
    for expected in (
        "Lab 05: A name of one's own",
        "✓ passed  A hostname of its own (isolate)  1/1",
        "→ not yet  A hostname of its own (join)  0/1",
        f"  Asked: {EXPECTED}",
        f"  Seen: {NOT_YET.seen}",
        f"  Why not yet: {NOT_YET.why}",
        f"  Hidden check 1: → not yet {NOT_YET.why}",
        f"  To begin: {NOT_ATTEMPTED.why}",
        "  · a note",
        "1 cell failed. No points come from it.",
        "    ZeroDivisionError: division by zero",
        "1 of 3 points",
    ):
        assert expected in shown, shown


def test_a_class_is_a_table_and_a_large_one_a_summary() -> None:
    shown = in_terminal(terminal.table(Gradebook(a_class(30))))
    assert "05 A name of one's own" in shown and "Turing" in shown and "✕ refused" in shown and "· nothing" in shown
    shown = in_terminal(terminal.table(Gradebook(a_class(200))))
    assert "Turing" not in shown and "200 learners: the pages have each of them." in shown


def test_each_submission_has_a_line() -> None:
    assert terminal.ended(result(), 7, 150) == "  7/150  ada  lab 05  1/1  2.5 s"
    assert "1/1, 1 not checked" in terminal.ended(result("ada", "05", exercise(), exercise("x", NOT_CHECKED)), 1, 1)
    assert "refused: No notebook." in terminal.ended(Result("bob", "05", "", "", refused="No notebook."), 1, 1)


# --- names of files ---------------------------------------------------------------------------------------------------


def test_good_names_are_kept() -> None:
    assert names.of(["ada", "Alan Turing", "김하늘", "o_k-2.x"]) == {
        one: one for one in ["ada", "Alan Turing", "김하늘", "o_k-2.x"]
    }


def test_names_of_files_are_safe_and_different() -> None:
    hostile = [
        "../../x", "..", ".", "", "/etc/passwd", "x" * 300, "x" * 301, "a/b", "a-b", "Ada", "ada", "ADA",
        "nul", "Con.x", "COM1",
        "\0", "\ud800", "e\u0301", "\u00e9", ".hidden", "a b ", "漢" * 300, "-rf", "a\nb", "\u202e",
    ]  # fmt: skip
    hostile += [names.of([one])[one] for one in ("a/b", "../../x")]  # somebody bears the name that another is given
    found = names.of(hostile)
    assert len({name.casefold() for name in found.values()}) == len(hostile)
    for name in found.values():
        assert re.fullmatch(r"[\w. -]+", name) and name[0] not in ".- " and name[-1] not in ". "
        assert len(f"{name}.html".encode()) < 255
        assert name.casefold().split(".")[0] not in ("nul", "con", "com1")
    assert names.of([".hidden"])[".hidden"] == found[".hidden"], "a page keeps its name whoever else is in the class"


# --- files ------------------------------------------------------------------------------------------------------------


def test_pages_can_be_made_anew_from_the_results_alone(tmp_path: Path) -> None:
    report.write(a_class(7), tmp_path / "one")
    report.write(store.read(tmp_path / "one"), tmp_path / "two")
    one, two = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two and len(one) == 12
    for path in (tmp_path / "one").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, "scores are nobody else's business"


def test_what_is_no_longer_in_the_class_has_no_page(tmp_path: Path) -> None:
    report.write([result("ada"), result("bob")], tmp_path)
    report.write([result("ada")], tmp_path)
    assert [path.name for path in (tmp_path / "learners").iterdir()] == ["ada.html"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(LabkitError, match=r"not from an earlier grading and nothing was written"):
        report.write([result()], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(LabkitError, match="is no folder"):
        report.write([result()], tmp_path / "thesis.txt")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": "x", "results": []}', '{"format": "labkit grading 1", "results": [{}]}', "\xff"],
)
def test_results_that_cannot_be_read_are_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(LabkitError, match="There are no results in"):
        store.read(tmp_path)
    (tmp_path / store.NAME).write_bytes(text.encode("latin-1"))
    with pytest.raises(LabkitError, match=r"cannot be read .* Grade again"):
        store.read(tmp_path)


def test_results_go_through_json_and_back(tmp_path: Path) -> None:
    found: list[Any] = [*a_class(5), *everywhere("\ud800\0")]
    report.write(found, tmp_path)
    assert store.read(tmp_path) == list(Gradebook(found).results)


def test_what_was_passed_over_is_on_the_page_and_stays_with_the_results(tmp_path: Path) -> None:
    said = ["bob.ipynb: <script>alert(1)</script>", "3 files were looked at: 1 to grade."]
    report.write([result("ada")], tmp_path, said)
    page = (tmp_path / "index.html").read_text()
    assert 'id="passed-over"' in page and "bob.ipynb: &lt;script&gt;" in page and "<script>alert" not in page
    assert store.said(tmp_path) == said
    assert 'id="passed-over"' not in report.files([result("ada")])["index.html"]
