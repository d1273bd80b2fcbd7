"""Plain data as JSON: how a child answers where code ran in it that nobody vouches for.

A pickle may name anything to be called, and set anything it likes, and no list of what it may name makes it safe. Here
a text is read by the standard library's json, and what is made of it is one of these and nothing else:

    null, true, 1, 1.5, "x"      themselves
    ["list", [...]]              list, tuple, set, frozenset; with pairs: dict, Counter
    ["bytes", "..."]             bytes, bytearray, each byte a character
    ["path", "/x"]               a pathlib.Path
    ["error", name, args, vars]  an exception of the standard library's or of labkit's
    ["record", name, fields]     a named tuple or a data class of labkit's, made without any code of theirs

The reader makes no module be imported, and calls nothing of a record's; an exception is made by its own `__new__`.
"""

import builtins
import collections
import dataclasses
import json
import os
import pathlib
import sys

from labkit.errors import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

VALUE, ERROR = "value", "error"
DEPTH_MAX = 60
#: That an answer passes, or cannot be judged, comes from nobody but whoever judges.
_NOT_FROM_OTHERS = (
    "labkit.course.framework.outcomes:Passed",
    "labkit.course.framework.outcomes:NotAttempted",
    "labkit.course.framework.outcomes:NotChecked",
)

_SEQUENCES: "dict[str, Callable[..., Any]]" = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_PAIRS: "dict[str, Callable[..., Any]]" = {
    "dict": dict,
    "Counter": collections.Counter,
    "OrderedDict": collections.OrderedDict,
}
_BYTES: "dict[str, Callable[..., Any]]" = {"bytes": bytes, "bytearray": bytearray}
_PATHS: "dict[str, Callable[..., Any]]" = {
    "PosixPath": pathlib.PosixPath,
    "PurePosixPath": pathlib.PurePosixPath,
}
_FROM_NUMBERS: "dict[str, Callable[..., Any]]" = {"range": range, "slice": slice, "complex": complex}


class NotPlain(Exception):
    """Something in an answer is no plain data; the text says what."""


# Writing


def dumps(kind: str, value: object, frames: "list[tuple[str, int, str]] | None" = None) -> bytes:
    """An answer: a value, or an exception with the frames it went through, (file, line, function) each.

    `NotPlain`: it holds something else than plain data.
    """
    try:
        text = json.dumps([kind, _written(value), [list(frame) for frame in frames or ()]])
    except RecursionError:
        raise NotPlain("it holds itself, or is nested too deep") from None
    return text.encode()


def _written(value: object) -> object:
    kind = type(value)
    name = kind.__name__
    if value is None or kind in (bool, int, float, str):
        return value
    if isinstance(value, int | str) and isinstance(plain := getattr(value, "value", None), int | str):
        return plain  # of an enumeration that is numbers or texts, such as signal.Signals
    if _SEQUENCES.get(name) is kind:
        return [name, [_written(one) for one in value]]  # type: ignore[attr-defined]
    if _PAIRS.get(name) is kind:
        return [name, [[_written(key), _written(one)] for key, one in value.items()]]  # type: ignore[attr-defined]
    if _BYTES.get(name) is kind:
        return [name, bytes(value).decode("latin-1")]  # type: ignore[call-overload]
    if _PATHS.get(name) is kind:
        return [name, str(value)]
    if isinstance(value, complex):
        return [name, [value.real, value.imag]]
    if isinstance(value, range | slice):
        return [name, [value.start, value.stop, value.step]]
    if value is ...:
        return ["Ellipsis", None]
    if kind is os.uname_result:
        return ["uname_result", [_written(one) for one in value]]  # type: ignore[attr-defined]
    if isinstance(value, Exception):
        return _written_error(value)
    if _is_record(kind):
        fields = tuple(value) if isinstance(value, tuple) else [getattr(value, field) for field in _fields(kind)]
        return ["record", f"{kind.__module__}:{kind.__qualname__}", [_written(one) for one in fields]]
    raise NotPlain(f"it holds a `{name[:80]}`")


def _written_error(error: Exception) -> object:
    kind = type(error)
    if not _is_known_error(kind):
        return _written_error(RuntimeError(f"{kind.__name__}: {error}"))
    said = {key: _written_or_text(one) for key, one in vars(error).items()}
    args = error.args
    if isinstance(error, OSError) and error.filename is not None:
        args = (*args, error.filename)  # which it takes, and does not keep there
    return ["error", f"{kind.__module__}:{kind.__qualname__}", [_written_or_text(one) for one in args], said]


def _written_or_text(value: object) -> object:
    try:
        return _written(value)
    except NotPlain:
        return repr(value)


# Reading


def loads(message: bytes) -> "tuple[Any, ...]":
    """`(VALUE, value)` or `(ERROR, exception, frames)`. `NotPlain`: the message is something else."""
    try:
        answer = json.loads(message)
        match answer:
            case ["value", value, []]:
                return VALUE, _read(value, 0)
            case ["error", error, [*frames]]:
                read = _read(error, 0)
                if isinstance(read, Exception):
                    return ERROR, read, [_frame(frame) for frame in frames]
    except NotPlain:
        raise
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError, AttributeError) as error:
        raise NotPlain(f"it cannot be read ({type(error).__name__})") from None
    raise NotPlain("it is no answer")


def _frame(frame: object) -> tuple[str, int, str]:
    match frame:
        case [str() as file, int() as line, str() as name]:
            return file, line, name
    raise NotPlain("it is no answer")


def _read(value: object, depth: int) -> "Any":
    if depth > DEPTH_MAX:
        raise NotPlain("it is nested too deep")
    if not isinstance(value, list):
        if isinstance(value, dict):
            raise NotPlain("it is no answer")
        return value
    match value:
        case [str() as kind, [*inside]] if kind in _SEQUENCES:
            return _SEQUENCES[kind](_read(one, depth + 1) for one in inside)
        case [str() as kind, [*inside]] if kind in _PAIRS:
            pairs = [(_read(key, depth + 1), _read(one, depth + 1)) for key, one in inside]
            return _PAIRS[kind](dict(pairs))
        case [str() as kind, str() as text] if kind in _BYTES:
            return _BYTES[kind](text.encode("latin-1"))
        case [str() as kind, str() as text] if kind in _PATHS:
            return _PATHS[kind](text)
        case [str() as kind, [*inside]] if kind in _FROM_NUMBERS and all(_is_number(one) for one in inside):
            return _FROM_NUMBERS[kind](*inside)
        case ["Ellipsis", None]:
            return ...
        case ["uname_result", [str(), str(), str(), str(), str()] as inside]:
            return os.uname_result(inside)
        case ["error", str() as name, [*args], dict() as said]:
            return _read_error(name, [_read(one, depth + 1) for one in args], said, depth)
        case ["record", str() as name, [*inside]]:
            return _read_record(name, [_read(one, depth + 1) for one in inside])
    raise NotPlain("it is no answer")


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, int | float)


def _read_error(name: str, args: "list[Any]", said: "dict[str, Any]", depth: int) -> Exception:
    kind = _class_named(name)
    if not _is_known_error(kind):
        raise NotPlain(f"it holds a `{name[:80]}`")
    # The built-in ones keep what they are told in `__init__`, too; those of others may do anything there.
    error: Exception = kind(*args) if kind.__module__ == "builtins" else kind.__new__(kind, *args)
    error.args = tuple(args) if not error.args else error.args
    for key, value in said.items():
        if key != "__notes__" and (key.startswith("__") or callable(getattr(kind, key, None))):
            raise NotPlain("it is no answer")
        vars(error)[key] = _read(value, depth + 1)
    notes = vars(error).get("__notes__", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise NotPlain("it is no answer")
    str(error)  # of what it says of itself something may be missing
    return error


def _read_record(name: str, values: "list[Any]") -> object:
    kind = _class_named(name)
    if not _is_record(kind):
        raise NotPlain(f"it holds a `{name[:80]}`")
    if kind.__dict__.get("checks_itself"):
        try:
            return kind(values)
        except InvalidConfig as error:
            raise NotPlain(str(error)) from None
    fields = _fields(kind)
    if len(values) != len(fields):
        raise NotPlain("it is no answer")
    if issubclass(kind, tuple):
        return tuple.__new__(kind, values)
    record = object.__new__(kind)
    for field, value in zip(fields, values, strict=True):
        object.__setattr__(record, field, value)
    return record


# Which classes


def _class_named(name: str) -> "Any":
    """The class of that name in a module that has been imported already; None where there is none."""
    module, _, qualname = name.partition(":")
    if "." in qualname:
        return None
    found = vars(sys.modules[module]).get(qualname) if module in sys.modules else None
    return found if isinstance(found, type) and (found.__module__, found.__qualname__) == (module, qualname) else None


def _is_known_error(kind: "Any") -> bool:
    if (
        kind is None
        or not issubclass(kind, Exception)
        or _class_named(f"{kind.__module__}:{kind.__qualname__}") is None
    ):
        return False
    module = kind.__module__
    return module == builtins.__name__ or module.startswith("labkit.") or _is_standard(module)


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def _is_record(kind: "Any") -> bool:
    """A named tuple, a data class, or a tuple that checks itself, of labkit's."""
    if kind is None or not kind.__module__.startswith("labkit."):
        return False
    if f"{kind.__module__}:{kind.__qualname__}" in _NOT_FROM_OTHERS:
        return False
    return bool(kind.__dict__.get("checks_itself")) or _fields(kind) != ()


def _fields(kind: "Any") -> tuple[str, ...]:
    if issubclass(kind, tuple):
        return tuple(getattr(kind, "_fields", ()))
    if not dataclasses.is_dataclass(kind) or hasattr(kind, "__post_init__"):
        return ()
    return tuple(field.name for field in dataclasses.fields(kind))
