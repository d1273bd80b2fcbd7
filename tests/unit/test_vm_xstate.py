"""The corrected User Mode Linux: every length changed once, nothing else, or no correction at all."""

import random

import pytest

from labkit.vm import xstate

# The instructions of Debian's 6.1 around each length, and what is to stand there instead.
SETREGSET = bytes.fromhex("48c745f8 880a0000 bf05420000"), bytes.fromhex("48c745f8 00000100 bf05420000")
TO_FRAME = (
    bytes.fromhex("be 40030000 4881c3d8000000 4c89e741ffd6"),
    bytes.fromhex("be 880a0000 4881c3d8000000 4c89e741ffd6"),
)
HEADER = bytes.fromhex("ba 40030000 4889de41ffd54885c0"), bytes.fromhex("ba 880a0000 4889de41ffd54885c0")
FROM_FRAME = bytes.fromhex("ba 40030000 488b75a8 488dbbd8000000"), bytes.fromhex("ba 880a0000 488b75a8 488dbbd8000000")
PLACE = bytes.fromhex("488d97 08fbffff 534883e2f0"), bytes.fromhex("488d97 c0f3ffff 534883e2f0")
SIZE = bytes.fromhex("be f8040000 8945b4"), bytes.fromhex("be 400c0000 8945b4")
PIECES = [SETREGSET, TO_FRAME, HEADER, FROM_FRAME, PLACE, SIZE]


def program(pieces: list[bytes]) -> bytes:
    """The pieces with bytes between them that look like no length."""
    filling = random.Random(7).randbytes(200).replace(b"\xbe", b"\x00").replace(b"\xba", b"\x00")
    return filling.join([b"", *pieces, b""])


def test_every_length_is_corrected_and_nothing_else() -> None:
    assert xstate.corrected(program([old for old, _ in PIECES])) == program([new for _, new in PIECES])


@pytest.mark.parametrize("missing", range(len(PIECES)))
def test_a_program_that_lacks_a_place_is_not_corrected_by_halves(missing: int) -> None:
    pieces = [old for old, _ in PIECES]
    assert xstate.corrected(program(pieces[:missing] + pieces[missing + 1 :])) is None


@pytest.mark.parametrize("twice", range(len(PIECES)))
def test_a_program_with_two_such_places_is_not_guessed_at(twice: int) -> None:
    pieces = [old for old, _ in PIECES]
    assert xstate.corrected(program([*pieces, pieces[twice]])) is None


@pytest.mark.parametrize(
    ("flags", "needed"),
    [("fpu sse avx avx2", False), ("fpu avx avx512f", True), ("avx2 pku", True), ("avx512f amx_bf16 amx_tile", True)],
)
def test_which_processors_need_it(flags: str, needed: bool) -> None:
    assert xstate.needed(f"processor\t: 0\nvmx flags\t: amx_tile\nflags\t\t: {flags}\nbugs\t: pku\n") is needed
