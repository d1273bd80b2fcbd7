"""The lab object in plain Python and in IPython: exercises, predictions, `%%observe`, recap."""

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from labkit.course import needs
from labkit.course.framework import rendering, time_limit
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.exercise_view import given_names
from labkit.course.framework.outcomes import NotYet, Passed, Verdict
from labkit.course.lab import Lab
from labkit.errors import InvalidConfig, Unsupported

SOURCE = """\
---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

```{code-cell} ipython3
:exercise: double

def double(n):
    ### BEGIN SOLUTION
    return 2 * n
    ### END SOLUTION
```
"""


class Double(Exercise):
    name = "double"
    title = "Twice as much"
    hints = ("Multiply.", "By two.")
    because = "Two times is twice."

    def check(self, double: Callable[[int], int]) -> Verdict:
        number = self.draw_number(2, 99)
        found = double(number)
        return Passed(f"`{found}`", "Good.") if found == 2 * number else NotYet(f"{found}", "More.")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path))
    monkeypatch.setattr(time_limit, "on_the_lab_host", set)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    module = types.ModuleType(Double.__module__)
    vars(module)["Double"] = Double
    (tmp_path / "90_x.md").write_text(SOURCE)
    return Lab("90", exercises=module, written_in=tmp_path / "90_x.md")


@pytest.fixture
def cells(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Run cells in an IPython of their own."""
    shell: Any = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))  # type: ignore[no-untyped-call]
    monkeypatch.setattr(rendering, "shell", lambda: shell)
    monkeypatch.setattr(rendering, "display", lambda plain, *_, **__: print(plain))
    from labkit.course.framework import magics

    magics.register(lab._find_prediction)
    shell.user_ns["lab"] = lab
    yield shell.run_cell
    InteractiveShell.clear_instance()


def test_exercises_are_attributes_and_an_unknown_one_lists_them(lab: Lab) -> None:
    assert lab.double.title == "Twice as much"
    assert "double" in dir(lab)
    with pytest.raises(AttributeError, match="no exercise 'tripel'; its exercises: double"):
        _ = lab.tripel


def test_a_lab_without_exercises_opens() -> None:
    assert repr(Lab("99")) == "<Lab 99: no exercises>"


def test_check_shows_and_records(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(lab.double.check(lambda n: n), NotYet)
    assert isinstance(lab.double.check(lambda n: n + n), Passed)
    said = capsys.readouterr().out
    assert "double: not yet" in said
    assert "double: passed" in said
    assert "Why it matters: Good." in said
    assert "lab.double.hint()" in said
    assert (lab.double.record["attempts"], lab.double.record["passed"]) == (2, True)


def test_hints_climb_and_the_last_stays(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        lab.double.hint()
    assert capsys.readouterr().out.splitlines() == [
        "Hint 1 of 2: Multiply.",
        "Hint 2 of 2: By two.",
        "Hint 2 of 2: By two.",
    ]
    assert lab.double.record["hints"] == 2


def test_the_solution_comes_from_the_source_and_is_recorded(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.double.solution()
    said = capsys.readouterr().out
    assert "def double(n):\n    return 2 * n" in said
    assert "Two times is twice." in said
    assert lab.double.record["solution_opened"]
    assert lab.double.record["attempts"] == 0


def test_a_missing_source_is_one_sentence(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "90_x.md").unlink()
    lab.double.solution()
    assert "The solution cannot be shown" in capsys.readouterr().out
    assert not lab.double.record["solution_opened"]


@pytest.mark.parametrize(
    ("kind", "good", "stored", "bad"),
    [
        ({"choices": ["a", "b"]}, "b", "b", "c"),
        ({"number": True}, "3.5", 3.5, "many"),
        ({"number": True}, 7, 7.0, "nan"),
        ({"text": True}, " so ", "so", "  "),
    ],
)
def test_predictions(lab: Lab, kind: dict[str, Any], good: Any, stored: Any, bad: Any) -> None:
    prediction = lab.predict("p", "What?", **kind)
    assert prediction.value is None
    with pytest.raises(ValueError):  # the words differ
        prediction.answer(bad)
    assert prediction.value is None
    lab.answer("p", good)
    assert prediction.value == stored
    assert Lab("90").predict("p", "What?", **kind).value == stored, "kept for the next session"


def test_a_prediction_is_of_one_kind(lab: Lab) -> None:
    with pytest.raises(ValueError, match="exactly one of"):
        lab.predict("p", "What?")
    with pytest.raises(ValueError, match="exactly one of"):
        lab.predict("p", "What?", number=True, text=True)
    with pytest.raises(ValueError, match="First run the cell"):
        lab.answer("unknown", 1)


def test_observe_waits_for_the_prediction(
    lab: Lab, cells: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    body = "%%observe p\nmade = 5\nprint('ran')\nmade + 1"
    assert cells(body).success
    assert "First run the cell that asks for the prediction `p`" in capsys.readouterr().out
    lab.predict("p", "What?", choices=["a", "b"])
    assert cells(body).success
    said = capsys.readouterr().out
    assert "First make your prediction `p`" in said
    assert "ran" not in said
    assert "made" not in cells("0").info.raw_cell
    lab.answer("p", "a")
    assert cells(body).success
    said = capsys.readouterr().out
    assert said.index("You predicted: a") < said.index("ran") < said.index("6")
    assert cells("assert made == 5").success, "names stay"


def test_observe_is_as_a_cell_is(lab: Lab, cells: Callable[[str], Any], capsys: pytest.CaptureFixture[str]) -> None:
    lab.predict("p", "What?", choices=["a"]).answer("a")
    failed = cells("%%observe p\nx = 1\nraise KeyError('mine')")
    assert isinstance(failed.error_in_exec, KeyError), "an exception is the cell's own"
    assert cells("assert x == 1").success
    capsys.readouterr()
    cells("%%observe p\n6 * 7;")
    assert "42" not in capsys.readouterr().out, "a trailing semicolon hides the value"
    cells("%%observe p\ndef f():\n    return 1\n")
    assert cells("import inspect; assert 'return 1' in inspect.getsource(f)").success
    assert isinstance(cells("%%observe p\nx = (").error_in_exec, SyntaxError)


def test_recap(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.predict("p", "What?", number=True).answer(3)
    lab.double.check(lambda n: 2 * n)
    lab.double.hint()
    capsys.readouterr()
    lab.recap()
    assert capsys.readouterr().out.splitlines() == [
        "1 of 1 exercises passed, 1 predictions made.",
        "  ✓ Twice as much: passed, hints: 1",
        "  ? What? 3",
    ]


def test_recap_has_predictions_in_the_labs_order(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("zebra", "ape", "cat"):
        lab.predict(name, f"Is it a `{name}`?", text=True)
    for name in ("cat", "zebra", "ape"):
        lab.answer(name, f"{name}!")
    capsys.readouterr()
    lab.recap()
    assert capsys.readouterr().out.splitlines()[2:] == [
        "  ? Is it a `zebra`? zebra!",
        "  ? Is it a `ape`? ape!",
        "  ? Is it a `cat`? cat!",
    ]
    again = Lab("90")
    again.predict("ape", "Is it a `ape`?", text=True)
    capsys.readouterr()
    again.recap()
    assert capsys.readouterr().out.splitlines()[1:] == ["  ? Is it a `ape`? ape!", "  ? cat cat!", "  ? zebra zebra!"]


def test_recap_and_headings_show_backquotes_as_code(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(rendering, "display", lambda plain, html="", **_: shown.append(html))
    lab.predict("p", "Is it `a<b`?", choices=["`yes`", "no"]).answer("`yes`")
    lab.recap()
    assert "Is it <code>a&lt;b</code>?" in shown[-1]
    assert "<code>yes</code>" in shown[-1]
    assert "· <code>one</code>" in rendering.box("hint", "`one`")


def test_choices_stand_once_in_the_front_end(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, str]] = []
    monkeypatch.setattr(rendering, "display", lambda plain, html="", **_: shown.append((plain, html)))
    lab.predict("p", "Which?", choices=["this one", "that one"])
    assert "  - this one\n  - that one" in shown[0][0], "in plain text, where there are no buttons"
    assert not any("one" in html for _, html in shown)


def test_a_trial_is_shown_and_not_recorded(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(lab.double.try_out(lambda n: n), NotYet)
    said = capsys.readouterr().out
    assert "double: not yet" in said
    assert "lab.double.hint()" in said
    assert isinstance(lab.double.check_again((lambda n: n,), "id", record=False), NotYet)
    assert lab.double.record["attempts"] == 0
    assert lab.double.record["outcome"] == "not attempted"


def test_html_is_escaped() -> None:
    outcome = NotYet("<script>alert(1)</script> `a<b`", "one\n\ntwo")
    html = rendering.outcome_html("<b>", outcome)
    assert "<script>" not in html
    assert "<code>a&lt;b</code>" in html
    assert "Not yet" in html
    assert "&lt;b&gt;" in html


def test_a_cell_that_needs_what_is_lacking_says_so_and_the_rest_goes_on(
    lab: Lab, cells: Callable[[str], Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lack: list[Unsupported | None] = [Unsupported("there are no wings", "grow some")]
    monkeypatch.setitem(needs.KNOWN, "wings", lambda: lack[0])
    lab.predict("p", "How high?", number=True)
    lab.answer("p", 3)
    for head in ("%%needs wings", "%%observe p needs wings"):
        capsys.readouterr()
        done = cells(f"{head}\nprint('flying')")
        printed = capsys.readouterr().out
        assert done.success and "flying" not in printed, head
        assert "there are no wings" in printed and "What to do: grow some." in printed
    lack[0] = None
    for head in ("%%needs wings", "%%observe p needs wings"):
        capsys.readouterr()
        assert cells(f"{head}\nprint('flying')\n6 * 7").success
        assert "flying" in capsys.readouterr().out, head
    assert isinstance(cells("%%needs fins\n1").error_in_exec, InvalidConfig)


def test_a_prediction_comes_before_what_is_lacking(
    lab: Lab, cells: Callable[[str], Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(needs.KNOWN, "wings", lambda: Unsupported("there are no wings", "grow some"))
    lab.predict("p", "How high?", number=True)
    cells("%%observe p needs wings\nprint('flying')")
    printed = capsys.readouterr().out
    assert "First make your prediction" in printed and "wings" not in printed


def test_what_a_check_is_given_is_known_by_name() -> None:
    cell = "x = 1\nlab.order.check(ORDER, WHY, 'text', *more)"
    assert given_names(cell, "order") == ("ORDER", "WHY", "", "")
    assert given_names(cell, "other") == ()
    assert given_names("%%observe x\nlab.order.check(y)", "order") == ()
