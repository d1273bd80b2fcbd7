"""Which ids rooms have: of root's many ranges, of an ordinary user's one."""

import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from labkit.course.grading import sandbox_ids
from labkit.course.grading.sandbox_ids import IDS, LEARNER
from labkit.errors import Unsupported
from labkit.idmap import IdMap

ROOTS = IdMap([(0, 0, 2**32 - 1)])


def an_ordinary_users(count: int) -> IdMap:
    return IdMap([(0, 1000, 1), (1, 100_000, count)])


def test_root_has_many_ranges_and_none_of_them_is_anybodys() -> None:
    begins, count = sandbox_ids._ranges(ROOTS)
    assert count == IDS
    assert len(begins) > 1000
    assert begins[0] >= 0x70000000
    assert begins[-1] + count <= 0x80000000


@pytest.mark.parametrize(
    ("has", "begins", "count"),
    [
        (IDS, [1], IDS),
        (2 * IDS + 7, [1, 1 + IDS], IDS),
        (IDS - 1, [1], IDS - 1),
        (40_000, [1], 32768),
        (5_000, [1], 4096),
        (LEARNER + 1000, [1], LEARNER + 1000),
    ],
)
def test_an_ordinary_user_has_what_is_set_apart_and_never_themselves(has: int, begins: list[int], count: int) -> None:
    map_ = an_ordinary_users(has)
    found, each = sandbox_ids._ranges(map_)
    assert ([*found], each) == (begins, count)
    for first in found:
        assert first > 0, "0 is the user"
        assert map_.outside(first) is not None
        assert map_.outside(first + each - 1) is not None
        assert each > LEARNER


@pytest.mark.parametrize("map_", [IdMap.one(1000), an_ordinary_users(LEARNER + 999)])
def test_who_has_too_few_is_told_what_to_do(map_: IdMap) -> None:
    with pytest.raises(Unsupported, match="--add-subuids"):
        sandbox_ids._ranges(map_)


def test_a_second_room_waits_where_there_is_one_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (begin,), count = sandbox_ids._ranges(an_ordinary_users(IDS))
    only = IdMap([(0, begin, count)])
    monkeypatch.setattr(sandbox_ids, "ranges", lambda: [(only, only)])
    monkeypatch.setattr(sandbox_ids, "_folder", lambda: tmp_path)
    refused = threading.Event()
    monkeypatch.setattr(sandbox_ids, "_LOOK_SECONDS", 0.01)
    locked = sandbox_ids._locked

    def looked_at(name: str, how: int) -> AbstractContextManager[None]:
        tries.append(name)
        if tries.count(str(begin)) == 3:  # the first room's, the second's, and that one's again
            refused.set()
        return locked(name, how)

    monkeypatch.setattr(sandbox_ids, "_locked", looked_at)
    tries: list[str] = []
    there: list[str] = []
    at_once: list[int] = []

    def room(name: str) -> None:
        with sandbox_ids.taken() as (uids, _):
            there.append(name)
            at_once.append(len(there))
            assert uids == only
            there.remove(name)
            refused.set()

    with sandbox_ids.taken():
        there.append("first")
        second = threading.Thread(target=room, args=("second",))
        second.start()
        assert refused.wait(30)
        assert at_once == []
        there.remove("first")
    second.join(30)
    assert at_once == [1]
