"""The cgroup view's data: from files of groups as the kernel shows them, without a kernel that has any."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from labkit import cgroups
from labkit.course.views import groups
from labkit.course.views.groups_view import GroupsView
from labkit.errors import Unsupported
from labkit.host import lab_host


def make(folder: Path, *, usage_usec: int = 0, periods: int = 0, stopped: int = 0, **files: str) -> None:
    """A folder with the files of a group; `files` by their names with underscores."""
    folder.mkdir(exist_ok=True)
    stat = f"usage_usec {usage_usec}\nnr_periods {periods}\nnr_throttled {stopped}\n"
    texts = {"cpu_stat": stat, "cgroup_procs": "", "cgroup_events": "populated 1\nfrozen 0\n", **files}
    for name, text in texts.items():
        Path(folder, name.replace("_", ".")).write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A lab host's tree: itself, its leaf, a shop with a till that is frozen."""
    top = tmp_path / "labkit-1"
    make(top)
    make(top / "host", cgroup_procs="1\n2\n")
    make(
        top / "shop", cpu_max="20000 100000\n", memory_max="1048576\n", memory_current="524288\n", pids_max="max\n",
        pids_current="7\n", memory_events="max 4\noom_kill 2\n",
    )  # fmt: skip
    make(top / "shop" / "till", cpu_max="max 100000\n", cgroup_events="populated 0\nfrozen 1\n")
    return top


def test_a_look_has_every_group_with_its_limits_and_figures(tree: Path) -> None:
    found = {group.path: group for group in groups.look(str(tree))}
    assert list(found) == ["", "host", "shop", "shop/till"]
    shop = found["shop"]
    assert (shop.cpu_limit, shop.memory_limit_bytes, shop.pids_limit) == (0.2, 1 << 20, None)
    assert (shop.processes, shop.stats.oom_kills, shop.stats.memory_current_bytes) == (7, 2, 1 << 19)
    assert (found["host"].processes, found["host"].cpu_limit, found["host"].pids_limit) == (2, None, None)
    assert [group.path for group in found.values() if group.frozen] == ["shop/till"]
    text = groups.as_text(tuple(found.values()))
    assert "shop" in text and "till (frozen)" in text and "0.5 MiB" in text


def test_a_tree_without_end_is_looked_at_in_part(tree: Path) -> None:
    for number in range(100):
        make(tree / f"g{number:03}")
    assert len(groups.look(str(tree))) == groups.GROUPS_MAX
    with pytest.raises(FileNotFoundError):
        groups.look(str(tree / "nowhere"))


def test_rates_are_of_the_time_between_two_looks(tree: Path) -> None:
    before = groups.look(str(tree))[2].stats
    make(tree / "shop", usage_usec=300_000, periods=20, stopped=15)
    after = groups.look(str(tree))[2].stats
    assert groups.rates(before, after, 2.0) == groups.Rates(15.0, 75.0)
    assert groups.rates(after, after, 2.0) == groups.Rates(0.0, None), "nothing ran: there is no period to speak of"
    assert groups.rates(before, after, 0.0).cpu_percent == 0.0


@pytest.fixture
def view(tree: Path, monkeypatch: pytest.MonkeyPatch) -> GroupsView:
    class Host:
        group, pid = str(tree), None

    monkeypatch.setattr(cgroups, "unsupported", lambda: None)
    monkeypatch.setattr(lab_host, "current", lambda: Host)
    return GroupsView()


def rows(view: GroupsView) -> dict[str, dict[str, Any]]:
    view.refresh()
    return {row["path"]: row for row in view.state["groups"]}


def test_the_view_remembers_and_marks_what_is_gone(view: GroupsView, tree: Path) -> None:
    assert [row["gone"] for row in view.state["groups"]] == [False] * 4
    assert len(rows(view)["shop"]["points"]) == 1, "a rate takes two looks"
    shutil.rmtree(tree / "shop")
    gone = rows(view)
    assert (gone["shop"]["gone"], gone["shop"]["processes"], gone["shop"]["oom_kills"]) == (True, 0, 2)
    assert len(rows(view)["shop"]["points"]) == 1, "its graph stands still"
    make(tree / "shop")
    again = rows(view)["shop"]
    assert (again["gone"], again["oom_kills"], again["points"]) == (False, 0, []), "another group of the same name"
    view.close()


def test_children_stand_below_their_parent_whatever_the_names(view: GroupsView, tree: Path) -> None:
    make(tree / "shop-2")
    assert list(rows(view)) == ["", "host", "shop", "shop/till", "shop-2"]
    view.close()


def test_the_view_ends_with_the_tree(view: GroupsView, tree: Path) -> None:
    shutil.rmtree(tree)
    assert not view.refresh()
    assert view.state["status"] == "ended" and view.state["groups"], "what was seen last stays"
    view.close()


def test_without_groups_there_is_nothing_to_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "unsupported", lambda: Unsupported("no controllers", "./lab --vm"))
    with pytest.raises(Unsupported, match="no controllers"):
        GroupsView()
