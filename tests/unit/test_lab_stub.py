"""Which functions count as untouched stubs."""

import functools

import pytest

from labkit.course.framework.stub import is_placeholder, is_stub

STUBS = [
    "...",
    "pass",
    "return",
    "return None",
    "return ...",
    '"""A docstring."""',
    '"""A docstring."""\n    ...',
    "raise NotImplementedError",
    "raise NotImplementedError()",
    "raise NotImplementedError('later')",
    "# a comment\n    pass  # and another",
]
ANSWERS = [
    "return 1",
    "return a",
    "print()",
    "x = 1",
    "raise ValueError",
    "raise NotImplementedError(a)",
    "return [None]",
    "import os",
    "while True: pass",
    "yield",
]


def made(body: str) -> object:
    names: dict[str, object] = {}
    exec(f"def f(a=1, *, b=None):\n    {body}\n", names)
    return names["f"]


@pytest.mark.parametrize("body", STUBS)
def test_stub(body: str) -> None:
    assert is_stub(made(body))


@pytest.mark.parametrize("body", ANSWERS)
def test_answer(body: str) -> None:
    assert not is_stub(made(body))


def test_wrapped_stubs_and_methods() -> None:
    def stub(a: int) -> None: ...

    assert is_stub(functools.partial(stub, 1))
    assert is_stub(functools.lru_cache(stub))


def test_closure_is_looked_into() -> None:
    kept = 1

    def answer() -> int:
        return kept

    assert not is_stub(answer)


@pytest.mark.parametrize("value", [None, 3, "f", int, print, object()])
def test_what_is_no_function_is_no_stub(value: object) -> None:
    assert not is_stub(value)


def test_placeholders() -> None:
    assert is_placeholder(None)
    assert is_placeholder(...)
    assert not is_placeholder(0)
