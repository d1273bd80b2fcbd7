"""Predictions: the learner commits to an answer before looking.

An answer is stored with the progress the moment it is chosen. None is graded; having made one is.
"""

import math
from collections.abc import Callable
from typing import Any

from labkit.course.framework import rendering
from labkit.course.framework.progress import Progress

Answer = str | float


class Prediction:
    """One question, asked by `lab.predict`, and the learner's answer to it."""

    def __init__(
        self, progress: Progress, number: str, name: str, question: str, kind: str, choices: tuple[str, ...] = ()
    ) -> None:
        self._progress = progress
        self._number = number
        self.name = name
        self.question = question
        self.kind = kind  #: "choice", "number" or "text"
        self.choices = choices

    @property
    def value(self) -> Answer | None:
        """The stored answer, or None before there is one."""
        return self._progress.lab(self._number)["predictions"].get(self.name)

    def answer(self, value: Answer) -> None:
        """Commit to an answer by call, as the buttons do. `ValueError`: it is none of the choices, or no number."""
        self.store(value)
        rendering.display(self.stated(), f"<div>{rendering.inline(self.stated())}</div>")

    def store(self, value: Answer) -> None:
        """Check an answer and store it, without showing anything."""
        self._progress.record_prediction(self._number, self.name, self._sound(value))

    def stated(self) -> str:
        """What was predicted, as a sentence; or that nothing was yet."""
        return f"You predicted: {self._shown(self.value)}" if self.value is not None else "No prediction made yet."

    def _shown(self, value: Answer | None) -> str:
        return f"{value:g}" if isinstance(value, int | float) else f"{value}"

    def _sound(self, value: Answer) -> Answer:
        if self.kind == "choice":
            if value not in self.choices:
                raise ValueError(f"{value!r} is none of the choices: {', '.join(self.choices)}")
            return value
        if self.kind == "number":
            try:
                number = float(value)
            except ValueError:
                raise ValueError(f"{value!r} is not a number") from None
            if not math.isfinite(number):
                raise ValueError(f"{value!r} is not a number that could be measured")
            return number
        if not isinstance(value, str) or not value.strip():
            raise ValueError("a prediction in words has at least one word")
        return value.strip()

    def ask(self) -> None:
        """Show the question, and the means to answer it where a notebook can."""
        listed = "".join(f"\n  - {choice}" for choice in self.choices)
        # As HTML without the choices: they are the radio buttons that follow.
        rendering.display(
            f"Predict: {self.question}{listed}", rendering.box("predict", "", rendering.inline(self.question))
        )
        sample = self.choices[0] if self.choices else 42 if self.kind == "number" else "your words"
        rendering.display(
            f"{self.stated()} (By call: lab.answer({self.name!r}, {sample!r}))",
            widget=_controls(self) if rendering.in_notebook() else None,
        )

    def _ipython_display_(self) -> None:
        return None  # it was shown when it was asked


def _controls(prediction: Prediction) -> Any:
    """Radio buttons, a number field or a text field, that store what is chosen."""
    import ipywidgets as widgets

    state = widgets.HTML()
    wide = widgets.Layout(width="100%", max_width="60em")

    def say(text: str) -> None:
        state.value = rendering.inline(text)

    def commit(value: Answer | None) -> None:
        if value is None:
            return
        try:
            prediction.store(value)
        except ValueError as error:
            say(f"Not stored: {error}.")
        else:
            say(prediction.stated() + ". Now run the next cell.")

    field: Any
    children: list[Any]
    if prediction.kind == "choice":
        value = prediction.value if prediction.value in prediction.choices else None
        # Their labels are plain text, in which backquotes would stand as such.
        options = [(choice.replace("`", ""), choice) for choice in prediction.choices]
        field = widgets.RadioButtons(options=options, value=value, layout=wide)
        field.observe(lambda change: commit(change["new"]), names="value")
        children = [field, state]
    else:
        if prediction.kind == "number":
            field = widgets.FloatText(value=prediction.value or 0.0)
        else:
            field = widgets.Textarea(value=str(prediction.value or ""), placeholder="in your own words", layout=wide)
        button = widgets.Button(description="Predict", button_style="primary")
        on_click: Callable[[Any], None] = lambda _: commit(field.value)  # noqa: E731
        button.on_click(on_click)
        children = [field, button, state]
    say(prediction.stated() if prediction.value is not None else "Choose before you go on; nothing is graded.")
    box = widgets.VBox(children)
    box.add_class("labkit-predict")
    return box
