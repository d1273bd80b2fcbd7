"""What the notebooks import from labkit, and use of it, is there."""

import ast
import importlib
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.course.authoring import release
from labkit.course.source import lab_source

SOURCES = lab_source.all_paths()


def trees(md: Path) -> Iterator[ast.AST]:
    notebook = release.build(md, solved=True)
    for cell in notebook.cells:
        text = "\n".join(line for line in cell.source.split("\n") if not line.startswith(("%", "!")))
        if cell.cell_type == "code":
            yield from ast.walk(ast.parse(text))


def missing(nodes: Iterator[ast.AST]) -> list[str]:
    """Names that are imported from labkit, or looked up in a module of it, and are not there."""
    known: dict[str, object] = {}
    found = []
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("labkit"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                name = alias.name
                if not hasattr(module, name):
                    try:
                        importlib.import_module(f"{node.module}.{name}")
                    except ModuleNotFoundError:
                        found.append(f"{node.module}.{name}")
                        continue
                known[alias.asname or name] = getattr(module, name)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module_ = known.get(node.value.id)
            if isinstance(module_, types.ModuleType) and not hasattr(module_, node.attr):
                found.append(f"{module_.__name__}.{node.attr}")
    return found


@pytest.mark.parametrize("md", SOURCES, ids=[md.stem for md in SOURCES])
def test_what_a_lab_uses_is_there(md: Path) -> None:
    assert missing(trees(md)) == []


def test_what_is_not_there_is_seen() -> None:
    text = "from labkit import host, hots\nfrom labkit.lab import servers\nhost.pid()\nhost.pit()\nservers.bild()"
    gone = ["labkit.hots", "labkit.host.pit", "labkit.course.experiments.servers.bild"]
    assert sorted(missing(ast.walk(ast.parse(text)))) == sorted(gone)
