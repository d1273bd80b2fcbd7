"""Texts that learners wrote, or had a hand in, made harmless to read: in a terminal, a spreadsheet, a page, XML.

What cannot be seen is shown: a control character, a mark that turns the direction of the text around, half of a
surrogate pair. What is too long is cut. Escaping for HTML, XML or CSV is still to be done after this.
"""

import re
import unicodedata

LINE_CHARACTERS = 200
TEXT_CHARACTERS = 8_000
SOURCE_CHARACTERS = 100_000  # an answer is no longer than that

# ECMA-48: a control sequence (colours, the cursor), a command string (a window's title, a link), or a short escape.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_ODD = re.compile(r"[^\n\t\x20-\x7e]")  # what is worth a second look
_JOINERS = "\u200c\u200d"  # several scripts cannot be written without them


def text(found: str, limit: int = TEXT_CHARACTERS) -> str:
    """Text of several lines: line ends as \\n, at most `limit` characters and a word on how many were left out."""
    kept = found[:limit]
    kept = _ANSI.sub("", kept.replace("\r\n", "\n"))
    kept = _ODD.sub(_seen, kept)
    if len(found) > limit:
        kept += f"\n… ({len(found) - limit:,} more characters left out)"
    return kept


def line(found: str, limit: int = LINE_CHARACTERS) -> str:
    """The same in one line, with single spaces."""
    kept = " ".join(text(found[: 4 * limit], 4 * limit).split())
    return kept if len(kept) <= limit and len(found) <= 4 * limit else kept[: limit - 1] + "…"


def number(value: float) -> str:
    """Points as people write them: 3, 2.5, 0.33."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def _seen(match: re.Match[str]) -> str:
    """A character as it is, or a picture of one that has none."""
    character = match[0]
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if character in _JOINERS:
        return character
    if character in "\u2028\u2029":  # a browser may break the line there, other readers would not
        return f"⟨U+{code:04X}⟩"
    match unicodedata.category(character):
        case "Cs":
            return "\ufffd"
        case "Cc" | "Cf" | "Cn":
            return f"⟨U+{code:04X}⟩"
        case _:
            return character
