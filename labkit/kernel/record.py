"""Records: classes of named, typed values that cross from one of our own processes to another.

    class Point(Record):
        x: int
        y: int = 0

    loads(dumps(Point(x=1))) == Point(x=1)

The dataclasses module would serve, but takes 20 ms to load, and typing and named tuples some of that: too much for the
lab host's zygote, whose every page a child's first moment copies, and for a command that starts a container.

What is sent is made by marshal: plain values (None, numbers, texts, bytes, tuples, lists, dicts) and other records. It
is for processes that trust each other. What untrusted code says is read by `labkit.process.plain`.
"""

import importlib
import marshal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_: object) -> "Callable[[type], type]":
        """For type checkers only: typing.dataclass_transform."""
        return lambda cls: cls


@dataclass_transform(kw_only_default=True, frozen_default=True, eq_default=True)
class Record:
    """Named values, given by name; class attributes are their defaults. Not changed after it was made."""

    if not TYPE_CHECKING:

        def __init__(self, **values: object) -> None:
            fields = type(self).__annotations__
            if unknown := values.keys() - fields.keys():
                raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
            for name in fields:
                if name not in values and not hasattr(type(self), name):
                    raise TypeError(f"{type(self).__name__} needs {name}")
            self.__dict__.update(values)

    def replace(self, **changed: "Any") -> "Self":
        """A copy in which some values are others."""
        return type(self)(**{**self.__dict__, **changed})

    def key(self) -> "tuple[object, ...]":
        """What is equal for equal records; where all values are hashable, it is, too."""
        values = [getattr(self, name) for name in type(self).__annotations__]
        return (type(self), *(value.key() if isinstance(value, Record) else value for value in values))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({given})"


_MARK = "\0record"
_classes: "dict[str, type[Record]]" = {}


def dumps(value: object) -> bytes:
    """A plain value or a record as bytes. ValueError: there is something else in it."""
    return marshal.dumps(_packed(value))  # type: ignore[arg-type]


def loads(data: bytes) -> "Any":
    """What `dumps` made bytes of."""
    return _unpacked(marshal.loads(data))


def _packed(value: object) -> object:
    if not isinstance(value, Record):
        return value
    cls = type(value)
    packed = {name: _packed(one) if isinstance(one, Record) else one for name, one in value.__dict__.items()}
    return _MARK, f"{cls.__module__}:{cls.__qualname__}", packed


def _unpacked(value: "Any") -> "Any":
    if not (type(value) is tuple and len(value) == 3 and value[0] == _MARK):
        return value
    _, path, packed = value
    cls = _classes.get(path)
    if cls is None:
        module, _, name = path.partition(":")
        cls = _classes[path] = getattr(importlib.import_module(module), name)
    made = cls.__new__(cls)
    made.__dict__.update({name: _unpacked(one) if type(one) is tuple else one for name, one in packed.items()})
    return made
