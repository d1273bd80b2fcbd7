"""The row of buttons under an exercise: Check again, Hint, Solution."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit.course.framework.exercise_view import Task


def buttons(task: "Task", again: Callable[[], object]) -> Any:
    """The widget under one check of `task`; `again` is that check, done once more."""
    import ipywidgets as widgets

    printed = widgets.Output()
    page = widgets.HTML()

    def button(text: str, tooltip: str, act: Callable[[], None]) -> Any:
        made = widgets.Button(description=text, tooltip=tooltip)

        def clicked(_: Any) -> None:
            made.disabled = True
            try:
                act()
            finally:
                made.disabled = False

        made.on_click(clicked)
        made.add_class(f"labkit-{text.lower().replace(' ', '-')}")
        return made

    def check_again() -> None:
        printed.clear_output()
        with printed:
            again()

    def hint() -> None:
        page.value = task.next_hint()[1]

    def solution() -> None:
        page.value = task.open_solution()[1]

    row = widgets.HBox(
        [
            button("Check again", "Check what the cell above defines now", check_again),
            button("Hint", "A nudge, then where to look, then the line", hint),
            button("Solution", "One good solution, and why; opening it costs nothing", solution),
        ]
    )
    box = widgets.VBox([row, page, printed])
    box.add_class("labkit-exercise")
    return box
