"""System calls with their arguments, and how a list of them lies in memory for the loop that carries them out.

All 64-bit words, the texts behind them::

    [0]      address of the call that failed, 0 until then
    [1...]   the calls, 9 words each: number, addresses of six arguments, address for the result, may it fail
    ...      the arguments and results: constants, values, blocks, addresses of texts and blocks
    ...      the texts
"""

import ctypes
import mmap
import os
import struct

from labkit import constants as c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Argument: TypeAlias = "int | str | bytes | Value | Block | tuple[str, ...] | None"
    Part: TypeAlias = "int | str | bytes | Value | Block"

WORDS_PER_CALL = 9
_MASK = (1 << 64) - 1


class Value:
    """What a call of a program will return, or a parameter set before each run; `word` is its place in memory."""

    __slots__ = ("name", "word")

    def __init__(self, name: str) -> None:
        self.name, self.word = name, -1

    def __repr__(self) -> str:
        return self.name


class Block:
    """A structure in memory, whose address is passed: 64-bit words, each a number or the address of a text or block.

    A `Value` as a part lives in that word: a call may read it there, or write it. (Both processors that labkit knows
    are little-endian, so a 32-bit field is the lower half of its word.)
    """

    __slots__ = ("parts",)

    def __init__(self, *parts: "Part") -> None:
        self.parts = parts


class Call:
    """One system call of a program."""

    __slots__ = ("arguments", "may_fail", "name", "result", "step")

    def __init__(self, name: str, arguments: "tuple[Argument, ...]", result: Value, may_fail: bool, step: str) -> None:
        self.name, self.arguments, self.result, self.may_fail, self.step = name, arguments, result, may_fail, step

    def __str__(self) -> str:
        shown = ", ".join(_show(argument) for argument in self.arguments)
        return f"{self.name}({shown})" + (f" = {self.result}" if self.result.name else "")


def lay_out(calls: "list[Call]") -> "tuple[mmap.mmap, int]":
    """The memory that holds `calls`, shared with children to come, and its address."""
    return _Layout(calls).memory()


def record(position: int) -> int:
    """The word at which the call at `position` begins."""
    return 1 + WORDS_PER_CALL * position


class _Layout:
    def __init__(self, calls: "list[Call]") -> None:
        self.words: list[int] = [0] * record(len(calls))
        self.texts = bytearray()
        self.text_addresses: list[tuple[int, int]] = []  # (word, offset): words that hold the address of a text
        self.word_addresses: list[tuple[int, int]] = []  # (word, word): words that hold the address of a word
        self.places: dict[object, int] = {}  # what is there already
        for call in calls:
            _forget_places((call.result, *call.arguments))
        # Blocks first: a value that is part of one has its place there.
        for call in calls:
            for argument in call.arguments:
                if isinstance(argument, Block | tuple):
                    self.place(argument)
        for position, call in enumerate(calls):
            first = record(position)
            self.words[first] = c.SYSCALL_NUMBERS[call.name]
            arguments = (*call.arguments, *(0,) * (6 - len(call.arguments)))
            for number, argument in enumerate((*arguments, call.result), start=1):
                self.word_addresses.append((first + number, self.place(argument)))
            self.words[first + 8] = int(call.may_fail)

    def place(self, argument: "Argument") -> int:
        """The word that holds `argument`, or its address where it is a text or a block."""
        if isinstance(argument, Value):
            if argument.word < 0:
                argument.word = self.add(0)
            return argument.word
        if argument not in self.places:
            if isinstance(argument, str | bytes):
                self.places[argument] = word = self.add(0)
                self.text_addresses.append((word, self.text(argument)))
            elif isinstance(argument, Block | tuple):
                block = argument if isinstance(argument, Block) else Block(*argument, 0)
                first = self.block(block)
                self.places[argument] = word = self.add(0)
                self.word_addresses.append((word, first))
            else:
                self.places[argument] = self.add(argument or 0)
        return self.places[argument]

    def block(self, block: "Block") -> int:
        """The first word of `block`."""
        first = len(self.words)
        self.words.extend([0] * len(block.parts))
        for word, part in enumerate(block.parts, start=first):
            if isinstance(part, Value):
                assert part.word < 0, f"the value {part} is part of two blocks"
                part.word = word
            elif isinstance(part, str | bytes):
                self.text_addresses.append((word, self.text(part)))
            elif isinstance(part, Block):
                self.word_addresses.append((word, self.block(part)))
            else:
                self.words[word] = part
        return first

    def add(self, number: int) -> int:
        self.words.append(number)
        return len(self.words) - 1

    def text(self, text: str | bytes) -> int:
        self.texts.extend(bytes(-len(self.texts) % 8))  # aligned, as structures must be
        offset = len(self.texts)
        self.texts.extend(os.fsencode(text) + b"\0")
        return offset

    def memory(self) -> "tuple[mmap.mmap, int]":
        size_of_words = 8 * len(self.words)
        memory = mmap.mmap(-1, size_of_words + len(self.texts))
        base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for word, offset in self.text_addresses:
            self.words[word] = base + size_of_words + offset
        for word, to in self.word_addresses:
            self.words[word] = base + 8 * to
        struct.pack_into(f"={len(self.words)}Q", memory, 0, *(word & _MASK for word in self.words))
        memory[size_of_words:] = bytes(self.texts)
        return memory, base


def _forget_places(parts: "tuple[object, ...]") -> None:
    for part in parts:
        if isinstance(part, Value):
            part.word = -1
        elif isinstance(part, Block):
            _forget_places(part.parts)


def _show(argument: "Argument") -> str:
    if isinstance(argument, bytes):
        return f"<{len(argument)} bytes>"
    if isinstance(argument, int) and argument > 0xFFFF:
        return hex(argument)
    if argument is None:
        return "NULL"
    if isinstance(argument, Block):
        return f"<{len(argument.parts)} words>"
    if isinstance(argument, int | str | Value):
        return repr(argument) if isinstance(argument, str) else str(argument)
    return "[" + ", ".join(repr(text) for text in argument) + "]"
