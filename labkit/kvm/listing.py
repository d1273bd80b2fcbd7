"""Guest code: bytes for the processor, and beside each what it means.

A listing has one line per instruction: address, bytes, and in words. The bytes are what runs. A test disassembles
them and compares, so the words beside them are true::

    1000  00 d8     add    al,bl     ; al becomes al + bl
    1002  f4        hlt
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from labkit.errors import InvalidConfig

Mode = Literal["real", "protected", "long"]
_LINE = re.compile(
    r"(?P<address>[0-9a-f]{4,}) {2}(?P<bytes>[0-9a-f]{2}(?: [0-9a-f]{2})*)(?: {2,}(?P<text>[^;]+?))? *(?:;.*)?"
)
_LABEL = re.compile(r"(?P<label>[a-z_]+): *(?:;.*)?")


@dataclass(frozen=True)
class Instruction:
    """One line of a listing."""

    address: int
    code: bytes
    text: str  #: mnemonic and operands; with a leading dot: these bytes are data


@dataclass(frozen=True)
class Code:
    """A piece of code that begins at `origin`, with the listing it was made of."""

    origin: int
    code: bytes
    listing: str
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]  #: the names of addresses

    def __str__(self) -> str:
        return self.listing


@dataclass(frozen=True)
class Guest:
    """What a machine is given to run: pieces of code, the first of which it begins with, and the processor's mode."""

    name: str
    parts: tuple[Code, ...]
    mode: Mode = "real"
    registers: dict[str, int] = field(default_factory=dict)  #: what they hold when it begins

    @property
    def entry(self) -> int:
        """The address of the first instruction."""
        return self.parts[0].origin

    @property
    def end(self) -> int:
        """The first address behind all of it."""
        return max(part.origin + len(part.code) for part in self.parts)

    def label(self, name: str) -> int | None:
        """The address that a listing names so; None where none does."""
        return next((part.labels[name] for part in self.parts if name in part.labels), None)

    def __str__(self) -> str:
        return "\n".join(part.listing for part in self.parts)


def code(listing: str) -> Code:
    """The code that a listing describes. `InvalidConfig`: a line is none, or its address does not follow."""
    text = "\n".join(line.rstrip() for line in listing.strip("\n").splitlines())
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    waiting: list[str] = []  # labels whose address is that of the next instruction
    for line in map(str.strip, text.splitlines()):
        if found := _LABEL.fullmatch(line):
            waiting.append(found["label"])
        elif found := _LINE.fullmatch(line):
            address, data = int(found["address"], 16), bytes.fromhex(found["bytes"])
            if instructions and address != _end(instructions):
                raise InvalidConfig(f"{_end(instructions):04x} comes next in the listing, not: {line}")
            instructions.append(Instruction(address, data, (found["text"] or "").strip()))
            labels |= dict.fromkeys(waiting, address)
            waiting = []
        elif line and not line.startswith(";"):
            raise InvalidConfig(f"this is no line of a listing (address, bytes, instruction): {line}")
    if not instructions:
        raise InvalidConfig("a listing has at least one instruction")
    joined = b"".join(one.code for one in instructions)
    return Code(instructions[0].address, joined, text, tuple(instructions), labels)


def _end(instructions: list[Instruction]) -> int:
    return instructions[-1].address + len(instructions[-1].code)
