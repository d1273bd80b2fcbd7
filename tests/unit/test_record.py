"""Records cross between our own processes: named, typed, with defaults, equal when their values are."""

import pytest

from labkit.kernel.record import Record, dumps, loads


class Inner(Record):
    """A record in a record."""

    words: "tuple[str, ...]" = ()


class Outer(Record):
    """One value without a default, and one of each kind."""

    number: int
    inner: Inner = Inner()
    data: bytes = b""


def test_what_is_sent_arrives() -> None:
    one = Outer(number=-1, inner=Inner(words=("a", "b")), data=b"\0")
    assert loads(dumps(one)) == one
    assert loads(dumps(Outer(number=2))) == Outer(number=2, inner=Inner(words=()), data=b"")
    assert loads(dumps(("plain", 1, None, ["list"], {"key": 1.5}))) == ("plain", 1, None, ["list"], {"key": 1.5})


def test_equal_ones_are_one_key() -> None:
    assert {Outer(number=1): "kept"}[Outer(number=1, data=b"")] == "kept"
    assert Outer(number=1) != Outer(number=2) and Outer(number=1) != Inner()
    assert Outer(number=1).replace(number=2) == Outer(number=2)


def test_a_missing_or_unknown_value_is_an_error() -> None:
    with pytest.raises(TypeError, match="Outer needs number"):
        Outer()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Inner has no letters"):
        Inner(letters="abc")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="unmarshallable"):
        dumps(object())
