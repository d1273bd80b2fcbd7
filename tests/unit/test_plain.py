"""Answers as plain data: what can be written is read as it was, and whatever else is read is refused."""

import collections
import errno
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from labkit.course.exercises.common.mount_stand_in import InFork
from labkit.course.framework.outcomes import Passed
from labkit.errors import InvalidConfig, StartError, Unsupported
from labkit.idmap import IdMap
from labkit.process import plain
from labkit.procfs import Mount

# The same cases in each run, and nothing kept.
steadily = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.sampled_from([...])
)
HASHABLE = st.recursive(
    st.none() | st.integers() | st.text() | st.binary(),
    lambda inside: st.tuples(inside, inside) | st.frozensets(inside),
    max_leaves=5,
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    ATOMS,
    lambda inside: (
        st.lists(inside)
        | st.tuples(inside, inside)
        | st.sets(HASHABLE)
        | st.dictionaries(HASHABLE, inside)
        | st.builds(collections.Counter, st.lists(HASHABLE))
        | st.builds(InFork, inside, inside, st.none(), inside)
        | st.builds(range, st.integers(), st.integers())
        | st.builds(pathlib.PurePosixPath, st.text())
    ),
)


@steadily
@given(VALUES)
def test_what_is_written_is_read_as_it_was(value: Any) -> None:
    kind, found = plain.loads(plain.dumps(plain.VALUE, value))
    assert kind == plain.VALUE
    assert found == value
    assert kinds(found) == kinds(value)


def kinds(value: Any) -> Any:
    """The types in it, which equality leaves out."""
    if isinstance(value, dict):
        return type(value), [(kinds(key), kinds(one)) for key, one in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [kinds(one) for one in value]
    if isinstance(value, set | frozenset):
        return type(value), {kinds(one) for one in value} if all(isinstance(one, int | str) for one in value) else None
    return type(value)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOENT, "No such file", "/x"),
        FileNotFoundError(2, "x"),
        ValueError("one", 2),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        subprocess.CalledProcessError(3, ["ls"]),
        Unsupported("this is not here", "do that"),
        InvalidConfig("no"),
        StartError("x"),
        KeyError(("a", 1)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_comes_back_as_it_was(error: Exception) -> None:
    error.add_note("a note")
    kind, found, frames = plain.loads(plain.dumps(plain.ERROR, error, [("file", 3, "name")]))
    assert (kind, type(found), str(found), found.args) == (plain.ERROR, type(error), str(error), error.args)
    assert vars(found) == vars(error)
    assert frames == [("file", 3, "name")]
    if isinstance(error, OSError):
        assert (found.errno, found.filename) == (error.errno, error.filename)


def test_records_come_back() -> None:
    class Odd(Exception):
        pass

    ids = IdMap([(0, 1000, 1)])
    mount = Mount(1, 2, "8:0", "/", "/", ("rw",), (), "ext4", "x", ("rw",)) if len(Mount._fields) == 10 else None
    for value in (ids, os.uname(), InFork(1, 2, Unsupported("a", "b"), []), mount, pathlib.Path("/x")):
        _, found = plain.loads(plain.dumps(plain.VALUE, value))
        assert type(found) is type(value)
        assert repr(found) == repr(value)
    assert plain.loads(plain.dumps(plain.VALUE, signal.SIGKILL)) == ("value", 9)
    _, found, _ = plain.loads(plain.dumps(plain.ERROR, Odd("said")))
    assert (type(found), str(found)) == (RuntimeError, "Odd: said")


class Own:
    pass


class Text(str):
    pass


@pytest.mark.parametrize("value", [print, Own(), Own, lambda: 1, [{"a": Text("x")}], object(), Passed("a", "b")])
def test_what_is_no_plain_data_is_not_written(value: Any) -> None:
    with pytest.raises(plain.NotPlain, match="it holds a `"):
        plain.dumps(plain.VALUE, value)


def test_what_holds_itself_is_not_written() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(plain.NotPlain, match="holds itself"):
        plain.dumps(plain.VALUE, value)


NAMES = st.sampled_from(
    [
        "record",
        "error",
        "list",
        "dict",
        "bytes",
        "range",
        "value",
        "uname_result",
        "labkit.idmap:IdMap",
        "labkit.errors:Unsupported",
        "labkit.course.framework.outcomes:Passed",
        "builtins:OSError",
        "builtins:eval",
        "os:system",
        "__notes__",
        "__class__",
        "with_traceback",
    ]
)
TREES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | NAMES,
    lambda inside: st.lists(inside) | st.dictionaries(st.text() | NAMES, inside),
)


@steadily
@given(TREES | st.tuples(st.sampled_from(["value", "error"]), TREES, TREES | st.just([])))
@example(["value", ["record", "labkit.course.framework.outcomes:Passed", ["seen", "why"]], []])
@example(["value", ["record", "labkit.idmap:IdMap", [[1, 2]]], []])
@example(["value", ["record", "os:system", ["true"]], []])
@example(["value", ["error", "builtins:SystemExit", [], {}], []])
@example(["value", ["error", "builtins:ValueError", [], {"add_note": 1}], []])
@example(["value", ["error", "builtins:ValueError", [], {"__class__": 1}], []])
@example(["value", ["error", "builtins:ValueError", [], {"__notes__": [1]}], []])
@example(["value", ["set", [["list", []]]], []])
def test_whatever_is_sent_is_plain_data_or_refused(tree: Any) -> None:
    try:
        _, value, *_ = plain.loads(json.dumps(tree).encode())
    except plain.NotPlain:
        return
    assert harmless(value), value


def harmless(value: Any) -> bool:
    if isinstance(value, Exception):
        return harmless(vars(value)) and harmless(value.args) and callable(value.add_note)
    if isinstance(value, dict):
        return all(harmless(key) and harmless(one) for key, one in value.items())
    if type(value) in (list, tuple, set, frozenset, IdMap):
        return all(harmless(one) for one in value)
    if isinstance(value, InFork | Mount):
        return True
    simple = (type(None), bool, int, float, str, bytes, bytearray, complex, range, slice, os.uname_result)
    return value is ... or type(value) in simple or isinstance(value, pathlib.PurePath)


@steadily
@given(st.binary())
@example(b"")
@example(b"[" * 100_000)
@example(b'["value", ' + b"[1," * 50_000)
@example(b"1" * 10_000)
@example(b'["value", 1e999999, []]')
@example(pickle.dumps(("value", 1)))
def test_whatever_bytes_are_sent_are_read_or_refused(message: bytes) -> None:
    try:
        plain.loads(message)
    except plain.NotPlain:
        return


def test_reading_imports_nothing() -> None:
    """A module that the learner's code could have put in the way is never looked for."""
    sys.modules.pop("antigravity", None)
    with pytest.raises(plain.NotPlain):
        plain.loads(b'["value", ["record", "antigravity:fly", [1]], []]')
    assert "antigravity" not in sys.modules
