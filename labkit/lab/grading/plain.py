"""Reading the answer of a child in which code ran that nobody vouches for.

`labkit.process` reads answers by unpickling, and a pickle may name anything to be imported and called. Here it may name
a few kinds of things that do nothing when they are made: plain values, exceptions, and this package's own records.
"""

import builtins
import collections
import io
import os
import pathlib
import pickle
import sys
from dataclasses import is_dataclass
from typing import Any

from labkit.errors import ChildDied

ANSWER_BYTES_MAX = 16 << 20

_VALUES: dict[tuple[str, str], Any] = (
    {
        (kind.__module__, kind.__qualname__): kind
        for kind in (bytearray, complex, frozenset, range, set, slice, collections.Counter, collections.OrderedDict)
    }
    | {("builtins", "Ellipsis"): ...}
    | {("posix", "uname_result"): os.uname_result}
    | {("pathlib", name): getattr(pathlib, name) for name in ("PosixPath", "PurePosixPath", "Path", "PurePath")}
)


def loads(message: bytes) -> Any:
    """What a child has answered. `ChildDied`: it is no plain data, or no answer at all."""
    if len(message) > ANSWER_BYTES_MAX:
        raise ChildDied(f"its answer has {len(message)} bytes, and {ANSWER_BYTES_MAX} are read at most")
    try:
        answer = _Reader(io.BytesIO(message)).load()
    except _Refused as error:
        raise ChildDied(f"its answer is no plain data: it holds a `{error}`") from None
    except Exception as error:  # whatever a broken pickle may lead to
        raise ChildDied(f"its answer cannot be read ({type(error).__name__})") from None
    match answer:
        case ("value", _):
            return answer
        case ("error", Exception(), list() as frames) if all(_is_frame(frame) for frame in frames):
            return answer
    raise ChildDied("its answer is none")


def _is_frame(frame: object) -> bool:
    match frame:
        case (str(), int(), str()):
            return True
    return False


class _Refused(Exception):
    pass


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _VALUES:
            return _VALUES[module, name]
        found = None
        if module == "builtins":
            found = vars(builtins).get(name)
        elif module in sys.modules and "." not in name:
            found = vars(sys.modules[module]).get(name)
        if isinstance(found, type) and found.__module__ == module:
            if issubclass(found, Exception) and (module.startswith("labkit.") or _is_standard(module)):
                return found
            if module.startswith("labkit.") and _is_record(found):
                return found
        if module == "labkit.child" and name == "code_of_file":
            raise _Refused("function")
        raise _Refused(f"{module}.{name}"[:100])

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("persistent id")


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def _is_record(kind: type) -> bool:
    """A named tuple, or a data class that does nothing when it is made."""
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return True
    return (is_dataclass(kind) and not hasattr(kind, "__post_init__")) or getattr(kind, "travels", False)
