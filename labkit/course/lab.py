"""The object that a lab's notebook talks to: `lab = Lab("05")`."""

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from labkit import temporary
from labkit.course.framework import magics, rendering, tracebacks
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.exercise_view import Task
from labkit.course.framework.predict import Answer, Prediction
from labkit.course.framework.progress import Progress
from labkit.course.source import lab_source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labkit.course.views.console_view import ConsoleView
    from labkit.course.views.groups_view import GroupsView
    from labkit.course.views.network_view import NetworkView
    from labkit.course.views.view import IsolationView
    from labkit.kvm import Exit
    from labkit.network import Network
    from labkit.vm.persistent import Computer


class Lab:
    """One lab: its predictions, its exercises, its views, and how far the learner has come.

    `lab.NAME` is the exercise NAME, with `check(...)`, `hint()` and `solution()`.
    """

    def __init__(self, number: str, *, exercises: ModuleType | None = None, written_in: Path | None = None) -> None:
        """Open lab `number`, such as "05". The other two are for labs that do not belong to the course."""
        tracebacks.register()
        temporary.remove_abandoned()  # what a notebook whose kernel was killed has left
        self._number = number
        self._progress = Progress(
            say=lambda text: rendering.display(text, rendering.box("not checked", "", rendering.inline(text)))
        )
        self._predictions: dict[str, Prediction] = {}
        self._written_in = written_in
        found = find_exercises(exercises) if exercises else exercises_of(number)
        self._tasks = {kind.name: Task(number, kind, self._progress, self._source) for kind in found}
        magics.register(self._find_prediction)

    def __getattr__(self, name: str) -> Task:
        tasks: dict[str, Task] = self.__dict__.get("_tasks", {})
        if name in tasks:
            return tasks[name]
        known = ", ".join(tasks) or "none"
        raise AttributeError(f"lab {self.__dict__.get('_number')} has no exercise {name!r}; its exercises: {known}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._tasks]

    def __repr__(self) -> str:
        return f"<Lab {self._number}: {', '.join(self._tasks) or 'no exercises'}>"

    def predict(
        self, name: str, question: str, *, choices: list[str] | None = None, number: bool = False, text: bool = False
    ) -> Prediction:
        """Ask for a prediction: one of `choices`, a number, or a sentence. `%%observe NAME` waits for it."""
        if [bool(choices), number, text].count(True) != 1:
            raise ValueError("a prediction takes exactly one of choices=[...], number=True and text=True")
        kind = "choice" if choices else "number" if number else "text"
        prediction = Prediction(self._progress, self._number, name, question, kind, tuple(choices or ()))
        self._predictions[name] = prediction
        prediction.ask()
        return prediction

    def answer(self, name: str, value: Answer) -> None:
        """Commit to an answer by call, as the buttons do."""
        found = self._find_prediction(name)
        if isinstance(found, str):
            raise ValueError(found)
        found.answer(value)

    def view(self, of: Any, *, title: str = "") -> "IsolationView":
        """Show what is isolated: the lab host and a process (a child, a container or a PID) side by side, live."""
        from labkit.course.views.view import IsolationView

        view = IsolationView(of, title=title)
        view.show()
        return view

    def groups(self, *, title: str = "") -> "GroupsView":
        """Show the lab host's control groups, what they use and what their limits are, live."""
        from labkit.course.views.groups_view import GroupsView

        view = GroupsView(title=title)
        view.show()
        return view

    def network(self, *networks: "Network", title: str = "", **names: Any) -> "NetworkView":
        """Show the lab host's networks as a picture, live. `names`: what else a namespace is called, after whom."""
        from labkit.course.views.network_view import NetworkView

        view = NetworkView(networks, names, title=title)
        view.show()
        return view

    def guest(self, *, memory_mib: int = 256) -> "Computer":
        """This lab's guest, booted if none runs, with its console shown. It ends with the notebook."""
        from labkit.course.experiments import notebook_vm

        return notebook_vm.guest(memory_mib, watch=self.console)

    def console(self, computer: "Computer", *, title: str = "") -> "ConsoleView":
        """Show the serial console of a computer that `vm.start` has booted, live, with a line to type into."""
        from labkit.course.views.console_view import ConsoleView

        view = ConsoleView(computer, title=title)
        view.show()
        return view

    def exits(self, stops: "Iterable[Exit]", *, title: str = "") -> None:
        """Show why a virtual machine's guest has stopped, each time, as a table."""
        from labkit.course.views.exits import show_exits

        show_exits(stops, title)

    def recap(self) -> None:
        """Show how far the learner has come in this lab."""
        from labkit.course.framework.recap import show_recap

        show_recap(self._progress.lab(self._number), list(self._tasks.values()), list(self._predictions.values()))

    def _find_prediction(self, name: str) -> Prediction | str:
        if name in self._predictions:
            return self._predictions[name]
        return f"First run the cell that asks for the prediction `{name}`, and answer it; then run this cell again."

    def _source(self) -> Path:
        return self._written_in or lab_source.path_of(self._number)


def find_exercises(module: ModuleType) -> list[type[Exercise]]:
    """The exercises that a module defines, in its order."""
    return [
        member
        for member in vars(module).values()
        if inspect.isclass(member)
        and issubclass(member, Exercise)
        and member.__module__ == module.__name__
        and "name" in vars(member)
    ]


def exercises_of(number: str) -> list[type[Exercise]]:
    """The exercises of lab `number`; none where the lab has no module of exercises."""
    room = f"labkit.course.exercises.lab{number}"
    try:
        module = importlib.import_module(f"{room}.exercises")
    except ModuleNotFoundError as error:
        if error.name not in (room, f"{room}.exercises"):
            raise
        return []
    return find_exercises(module)
