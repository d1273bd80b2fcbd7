"""The cell magics: `%%observe` waits for a prediction, `%%needs` for a machine that can run the cell.

`%%observe NAME` runs the cell once its prediction was made, its output under the prediction. `%%needs WHAT` runs it
where this machine has what it needs (the words of `labkit.course.needs`); elsewhere it says what is lacking, and
the rest of the notebook goes on. Both together: `%%observe NAME needs WHAT`.
"""

import ast
from collections.abc import Callable
from typing import Any

from labkit.course import needs
from labkit.course.framework import rendering
from labkit.course.framework.predict import Prediction


def register(find: Callable[[str], Prediction | str]) -> None:
    """Make the magics known to the running IPython; nothing in plain Python. Again is harmless.

    `find(name)` gives the prediction, or a sentence about why there is none.
    """
    shell = rendering.shell()
    if shell is None:
        return

    def observe(line: str, cell: str) -> None:
        name, _, wanted = line.partition(" needs ")
        run(shell, find(name.strip()), cell, wanted)

    def run_where_possible(line: str, cell: str) -> None:
        if not lacks(line):
            _execute(shell, cell)

    shell.register_magic_function(observe, magic_kind="cell", magic_name="observe")
    shell.register_magic_function(run_where_possible, magic_kind="cell", magic_name="needs")


def lacks(wanted: str) -> bool:
    """Whether this machine lacks one of the words in `wanted`; if so, say what, and how to get it."""
    lack = needs.lacking(wanted.split())
    if lack is None:
        return False
    text = f"This machine cannot run this cell: {lack.what}.\n\nWhat to do: {lack.mend}. The rest of the lab goes on."
    rendering.display(text, rendering.box("lacking", "", rendering.inline(text)))
    return True


def run(shell: Any, prediction: Prediction | str, cell: str, wanted: str = "") -> None:
    """Run `cell` as a cell of its own would run, unless its prediction or something it needs is missing."""
    if isinstance(prediction, str):
        rendering.display(prediction, rendering.box("predict", "", rendering.inline(prediction)))
        return
    if prediction.value is None:
        text = f"First make your prediction `{prediction.name}`, then run this cell again."
        rendering.display(text, rendering.box("predict", "", rendering.inline(text)))
        return
    if lacks(wanted):
        return
    rendering.display(
        f"{prediction.stated()}\nWhat happens:",
        rendering.box("observe", prediction.stated().partition(": ")[2], rendering.inline(prediction.question)),
    )
    _execute(shell, cell)


def _execute(shell: Any, cell: str) -> None:
    """Execute the lines of a cell in the user's namespace; the last expression is displayed, exceptions are raised.

    `shell.run_cell` would do so too, but would show an exception and report success, so that "Run all" went on.
    """
    source = shell.transform_cell(cell)
    name = shell.compile.cache(source, shell.execution_count, raw_code=cell)  # so that tracebacks show the lines
    tree = shell.compile.ast_parse(source, name)
    shown: list[ast.stmt] = []
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not _is_quiet(shell, cell):
        shown = [tree.body.pop()]
    namespace = shell.user_ns
    exec(shell.compile(tree, name, "exec"), namespace)
    if shown:
        exec(shell.compile(ast.Interactive(shown), name, "single"), namespace)


def _is_quiet(shell: Any, cell: str) -> bool:
    return bool(shell.displayhook.semicolon_at_end_of_expression(cell))
