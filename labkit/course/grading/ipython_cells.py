"""What IPython understands in a cell besides Python: magics, shell lines, help, `await`.

A cell is what IPython runs. In a room there is no IPython: what a line asks of it is left out, and the rest counts.
"""

import re
from typing import Any

#: Cell magics that run what is below them as Python, and those of the course.
_AROUND_PYTHON = re.compile(r"\A\s*%%(?:time|capture|observe|needs|prun)\b.*")
_LINE = re.compile(r"\s*(?:!|\?|%%?[A-Za-z]|[\w, ]+=\s*(?:!|%[A-Za-z])|\w[\w.]*\?\??\s*$)")


def is_for_ipython(line: str) -> bool:
    """Whether a line is a magic, a shell line or a question, or assigns what one of these gives.

    `%%observe` and `%%needs` are the course's own.
    """
    return bool(_LINE.match(line)) and not re.match(r"\s*%%(?:observe|needs)\b", line)


def python(cell: str) -> str:
    """The Python of a cell as IPython would have it run: what is asked of IPython calls `get_ipython()`.

    Line numbers stay. Where the cell is what neither understands it is given back as it is, for Python to say why.
    """
    text = _AROUND_PYTHON.sub("", cell)
    if not any(is_for_ipython(line) for line in text.split("\n")):
        return text
    from IPython.core.inputtransformer2 import TransformerManager

    empty = re.match(r"(?:[ \t]*\n)*", text)  # lines at the beginning, which IPython drops
    lines = empty[0].count("\n") if empty else 0
    try:
        return "\n" * lines + str(TransformerManager().transform_cell(text))  # type: ignore[no-untyped-call]
    except (SyntaxError, ValueError, RecursionError):
        return text


class Absent:
    """In the place of IPython's shell: whatever is asked of it, there is nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: [] if name.startswith("getoutput") else None
