"""Tell a stub that nobody touched from a function that does something."""

import dis
import functools
import inspect
from types import CodeType, FunctionType

_SETUP = {"RESUME", "NOP", "CACHE", "COPY_FREE_VARS", "MAKE_CELL", "NOT_TAKEN"}
_EMPTY_BODIES = (
    "pass",
    "return ...",
    "return NotImplemented",
    "raise NotImplementedError",
    "raise NotImplementedError()",
    "raise NotImplementedError('text')",
)


def is_stub(function: object) -> bool:
    """True where the body does nothing but say that it is missing.

    A body of a docstring, `...`, `pass`, `return`, `return ...` or `raise NotImplementedError` is a stub. What is
    compared is the compiled code, so no source is needed, and comments and layout do not matter. Anything that is
    not a Python function (a class, a builtin, None) is not a stub.
    """
    while isinstance(function, functools.partial):
        function = function.func
    if hasattr(function, "stands_for_stub"):  # what stands for a function that exists in another process
        return bool(function.stands_for_stub)
    if callable(function):
        function = inspect.unwrap(function)
    if not isinstance(function, FunctionType):
        return False
    return _shape(function.__code__) in _stub_shapes()


def is_placeholder(value: object) -> bool:
    """True for what a stub leaves in place of an answer: None or `...`."""
    return value is None or value is ...


def _shape(code: CodeType) -> tuple[tuple[str, object], ...]:
    """The instructions without positions; texts are left out, since a message or docstring may be any."""
    return tuple(
        (step.opname, "" if step.opname == "LOAD_CONST" and isinstance(step.argval, str) else step.argval)
        for step in dis.get_instructions(code)
        if step.opname not in _SETUP
    )


@functools.cache
def _stub_shapes() -> frozenset[tuple[tuple[str, object], ...]]:
    """How this interpreter compiles each empty body: nothing here depends on one Python version's opcodes."""
    shapes = set()
    for body in _EMPTY_BODIES:
        names: dict[str, FunctionType] = {}
        exec(f"def stub():\n    {body}\n", names)
        shapes.add(_shape(names["stub"].__code__))
    return frozenset(shapes)
