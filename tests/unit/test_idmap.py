"""Id maps: what makes one, what is refused, and which ids a user has."""

from pathlib import Path

import pytest

from labkit import idmap
from labkit.errors import InvalidConfig, LabkitError
from labkit.idmap import IdMap


def test_it_translates_both_ways() -> None:
    map_ = IdMap([(0, 1000, 1), (1, 100000, 65536)])
    assert [map_.outside(inside) for inside in (0, 1, 65536, 65537)] == [1000, 100000, 165535, None]
    assert [map_.inside(outside) for outside in (1000, 100000, 165535, 165536, 0)] == [0, 1, 65536, None, None]


def test_it_is_what_the_kernel_writes() -> None:
    text = "         0       1000          1\n         1     100000      65536\n"
    map_ = IdMap.parse(text)
    assert map_ == ((0, 1000, 1), (1, 100000, 65536))
    assert str(map_) == "0 1000 1\n1 100000 65536\n"
    assert IdMap.parse(str(map_)) == map_
    assert IdMap.one(1000) == ((0, 1000, 1),)


def test_the_widest_map_there_is_is_the_first_namespaces_own() -> None:
    assert IdMap([(0, 0, 2**32 - 1)]).outside(2**32 - 2) == 2**32 - 2


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ([], "maps nobody"),
        ([(0, 1000, 0)], "at least 1"),
        ([(0, 1000, -1)], "at least 1"),
        ([(-1, 1000, 1)], "leaves the ids"),
        ([(0, -1000, 1)], "leaves the ids"),
        ([(0, 0, 2**32)], "leaves the ids"),
        ([(2**32 - 1, 0, 1)], "leaves the ids"),
        ([(0, 2**32 - 2, 2)], "leaves the ids"),
        ([(0, 1000, 10), (9, 5000, 1)], "the id 9 inside in common"),
        ([(0, 1000, 10), (10, 1009, 1)], "the id 1009 outside in common"),
        ([(5, 1, 1), (0, 1000, 6)], "the id 5 inside in common"),
        ([(number, number, 1) for number in range(341)], "at most 340"),
        ([(0, 1000)], "three whole numbers"),
        ([(0, "1000", 1)], "three whole numbers"),
        (["0 1000 1"], "three whole numbers"),
        (5, "list of ranges"),
    ],
)
def test_what_the_kernel_would_refuse_is_refused_in_words(ranges: object, words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        IdMap(ranges)


def test_340_ranges_are_taken() -> None:
    assert len(IdMap([(number, number, 1) for number in range(340)])) == 340


def test_it_does_not_change() -> None:
    map_ = IdMap.one(1000)
    with pytest.raises(AttributeError):
        map_.more = 1  # type: ignore[attr-defined]


def test_subordinate_ids_stand_by_name_or_number(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_text("ann:100000:65536\n1000:300000:10\nbob:200000:65536\nann:100000:65536\n")
    assert idmap.subordinate(str(file), 1000, "ann") == [(100000, 65536), (300000, 10)]
    assert idmap.subordinate(str(file), 1001, "bob") == [(200000, 65536)]
    assert idmap.subordinate(str(file), 1002) == []
    assert idmap.subordinate(str(tmp_path / "nothing"), 1000, "ann") == []


@pytest.mark.parametrize(
    "line", ["ann", "ann:100000", "ann:x:65536", "ann:100000:0", "ann:-5:10", "ann:4294967295:1", "ann:1:2:3", ":::"]
)
def test_a_line_that_makes_no_sense_is_passed_over(tmp_path: Path, line: str) -> None:
    file = tmp_path / "subuid"
    file.write_text(f"{line}\nann:100000:10\n")
    assert idmap.subordinate(str(file), 1000, "ann") == [(100000, 10)]


def test_who_a_process_is_is_read_and_a_gone_one_is_said() -> None:
    uids, gids = idmap.of("self")
    assert uids.outside(uids[0][0]) == uids[0][1]
    assert gids
    with pytest.raises(LabkitError, match="there is no process 999999999"):
        idmap.of(999999999)
