"""The pages for people: each command that they name exists with its options, and each link leads somewhere."""

import re
from pathlib import Path

import pytest

from labkit.files import state_folder
from tests.commands import wrong_commands

CHECKOUT = state_folder.checkout()
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
# Commands stand in `code`, or in lines indented by four or between fences.
COMMAND = re.compile(
    r"`((?:[^`\n]* )?\./lab(?: [^`\n]*)?)`|^(?:    |[^`\n|]*&& )?((?:sudo )?\./lab [^`\n]*)$", re.MULTILINE
)


def commands(text: str) -> str:
    """The commands in a page, one a line, without what a reader fills in."""
    found = [code or line for code, line in COMMAND.findall(text)]
    return "\n".join(re.sub(r"\s#.*", "", line) for line in found)


def broken_links(page: Path, text: str) -> list[str]:
    """The links of a page to files that are not there, or to headings that no page has."""
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, heading = target.partition("#")
        if "://" in target:
            continue
        file = page.parent / name if name else page
        headings = (
            [line for line in file.read_text().splitlines() if line.startswith("#")]
            if heading and file.is_file()
            else []
        )
        if not file.exists() or (heading and heading not in map(anchor, headings)):
            wrong.append(target)
    return wrong


def anchor(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_what_exists(page: Path) -> None:
    text = page.read_text()
    assert wrong_commands(commands(text)) == []
    assert broken_links(page, text) == []


def test_what_does_not_exist_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "Type `./lab frobnicate`:\n\n    ./lab doctor --jsn\n\n[a](b.md) [c](#here) [d](#there)\n\n## Here!\n"
    page.write_text(text)
    assert wrong_commands(commands(text)) == ["no command ./lab frobnicate", "no option --jsn of ./lab doctor"]
    assert broken_links(page, text) == ["b.md", "#there"]
