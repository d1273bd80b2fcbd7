"""The ten facts of lab 04: judged by what was found and by nothing else, and told without the place."""

import itertools
from collections.abc import Iterator

import pytest

from labkit.course.exercises.lab04 import isolation_table
from labkit.course.exercises.lab04.isolation_table import Table, compared, read
from labkit.course.experiments import notebook_vm
from labkit.course.experiments.sharing import FACTS, PLACES, Finding, look
from labkit.course.framework.outcomes import NotAttempted, NotYet, Passed
from tests.requirements import need

NAMES = [fact.name for fact in FACTS]
RIGHT = {name: set(places) for name, places in isolation_table.KNOWN.items()}


def found_as(table: dict[str, set[str]]) -> Table:
    """What a look would find on a machine where `table` is right."""
    return {
        name: {place: Finding(place in table[name], f"in the {place}", "on the host") for place in PLACES}
        for name in NAMES
    }


@pytest.fixture(scope="module")
def seen() -> Iterator[Table]:
    """What is found on this machine."""
    need("guest")
    numbers = iter(range(71_000_001, 72_000_000))
    yield look(notebook_vm.guest(128), lambda: next(numbers))
    notebook_vm.end()


def test_this_machine_has_it_as_the_course_says(seen: Table) -> None:
    for name in set(NAMES) - {"cpu"}:  # whose is the guest's processor? KVM hands the machine's own on
        assert {place for place in PLACES if seen[name][place].shared} == RIGHT[name], name
    assert seen["cpu"]["process"].shared
    assert all(one.there and one.host for places in seen.values() for one in places.values())


def test_the_right_table_passes(seen: Table) -> None:
    cpu = {place for place in PLACES if seen["cpu"][place].shared}
    assert isinstance(compared({**RIGHT, "cpu": cpu}, seen), Passed)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_entry_is_told_by_its_kind_and_not_by_its_place(name: str, place: str) -> None:
    outcome = compared({**RIGHT, name: RIGHT[name] ^ {place}}, found_as(RIGHT))
    assert isinstance(outcome, NotYet)
    assert (outcome.seen, outcome.why) == isolation_table._THINK[place, place not in RIGHT[name]]
    assert f"the {place} " in outcome.seen.lower()
    assert not any(f"`{one}`" in outcome.seen + outcome.why for one in NAMES)
    assert f"in the {place}`" not in outcome.seen


def test_no_key_is_built_in() -> None:
    """On a machine where all is the other way round, the other table is right."""
    turned = {name: set(PLACES) - places for name, places in RIGHT.items()}
    assert isinstance(compared(turned, found_as(turned)), Passed)
    assert isinstance(compared(RIGHT, found_as(turned)), NotYet)


def test_of_several_wrong_entries_none_is_told_and_they_are_not_counted() -> None:
    outcomes = [
        compared({**RIGHT, **dict.fromkeys(wrong, RIGHT["files"] | {"container"})}, found_as(RIGHT))
        for count in (1, 2, 3)
        for wrong in itertools.combinations(("hostname", "processes", "ports", "files"), count)
    ]
    assert len({(one.seen, one.why) for one in outcomes if isinstance(one, NotYet)}) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"files": ...}, "no answer for `files` yet"),
        ({"files": None}, "no answer for `files` yet"),
        ({"files": {"host"}}, "names `host`"),
        ({"files": 3}, "is `3`"),
        ({"files": [3]}, "is `[3]`"),
        ({"file": {"process"}}, "a line `file`"),
    ],
)
def test_a_table_that_is_none_is_told(change: dict[str, object], words: str) -> None:
    outcome = read({**RIGHT, **change})
    assert isinstance(outcome, NotYet)
    assert words in outcome.seen


def test_a_table_may_be_written_in_several_ways() -> None:
    assert read({**RIGHT, "files": "process", "ports": ["process"], "hostname": ("process",), "users": {}}) == {
        **RIGHT,
        "users": set(),
    }
    assert isinstance(read([1]), NotYet)


@pytest.mark.parametrize("table", [{}, dict.fromkeys(NAMES, ...), dict.fromkeys(NAMES)])
def test_untouched_is_not_attempted(table: dict[str, object]) -> None:
    assert isinstance(read(table), NotAttempted)
