"""An overlay as data: what makes no sense is refused in one sentence, before anything is mounted."""

import os
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import InvalidConfig, Unsupported
from labkit.overlay import Overlay, overlay
from labkit.overlay import checks as overlay_checks
from labkit.program import Program


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lower": "/image"}, "a list of folders"),
        ({"lower": Path("/image")}, "a list of folders"),
        ({"lower": []}, "at least one lower layer"),
        ({"lower": ["/a"] * 501}, "500 at most"),
        ({"lower": ["/a"], "upper": "/u"}, "with upper and without work"),
        ({"lower": ["/a"], "work": "/w"}, "with work and without upper"),
        ({"lower": ["/a"], "upper": "/u", "work": "/w", "scratch_bytes": 1}, "in place of upper and work"),
        ({"lower": ["/a"], "scratch_bytes": -1}, "scratch_bytes"),
        ({"lower": ["/a"], "volatile": True}, "there is none"),
        ({"lower": ["/a\0b"]}, "NUL byte"),
        ({"lower": ["/a", "b"]}, "lower layer 2 is 'b': its path must be absolute"),
        ({"lower": ["/a"], "upper": "u", "work": "/w"}, "upper is 'u': its path must be absolute"),
        ({"lower": ["/a"], "upper": "", "work": ""}, "upper is '': its path must be absolute"),
    ],
)
def test_nonsense_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfig, match=words) as refused:
        Overlay(**arguments)
    assert "\n" not in str(refused.value)


def folders(above: Path, *names: str) -> list[str]:
    for name in names:
        (above / name).mkdir(parents=True)
    return [str(above / name) for name in names]


def test_what_is_sound_passes(tmp_path: Path) -> None:
    a, b, upper, work = folders(tmp_path, "a", "b:,\\", "upper", "work")
    overlay_checks.check(Overlay([a, b], upper, work))
    overlay_checks.check(Overlay([a]))
    overlay_checks.check(Overlay.scratch(a, b))


def test_folders_that_cannot_be_layered(tmp_path: Path) -> None:
    a, b, upper, work, inner = folders(tmp_path, "a", "b", "upper", "work", "a/inner")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("a")
    for one, words in (
        (Overlay([f"{tmp_path}/missing"]), "does not exist"),
        (Overlay([f"{tmp_path}/file/x"]), "does not exist"),
        (Overlay([f"{tmp_path}/file"]), "is not a folder"),
        (Overlay([f"{tmp_path}/link"]), "is a symbolic link"),
        (Overlay([a, b, f"{a}/../b"]), "the lower layer 3 and the lower layer 2 are the same folder"),
        (Overlay([a], a, work), "upper and the lower layer are the same folder"),
        (Overlay([a], upper, upper), "work and upper are the same folder"),
        (Overlay([a], inner, work), "upper, .*, lies inside the lower layer"),
        (Overlay([inner], a, work), "the lower layer, .*, lies inside upper"),
        (Overlay([b], upper, work), "work, .*, is not empty"),
        (Overlay([b], "/proc", work), "different file systems"),
        (Overlay.scratch("/"), "this machine's own root"),
    ):
        if "not empty" in words:
            Path(work, "mine").touch()
        with pytest.raises(InvalidConfig, match=words) as refused:
            overlay_checks.check(one)
        assert "\n" not in str(refused.value)


def test_what_the_kernel_left_in_work_is_no_obstacle_but_an_unsynced_upper_is(tmp_path: Path) -> None:
    a, upper, work, _ = folders(tmp_path, "a", "upper", "work", "work/work")
    one = Overlay([a], upper, work)
    overlay_checks.check(one)
    folders(tmp_path, "work/work/incompat/volatile")
    with pytest.raises(InvalidConfig, match="without syncing"):
        overlay_checks.check(one)


def test_travels_as_plain_values() -> None:
    for one in (
        Overlay([Path("/a"), "/b"], "/u", "/w", volatile=True),
        Overlay(["/a"]),
        Overlay.scratch("/a", scratch_bytes=4096),
    ):
        again = Overlay.of(one.message())
        assert again == one
        assert hash(again) == hash(one)
    assert not Overlay(["/a"]).writable
    assert Overlay.scratch("/a").writable
    assert Overlay(["/a"]) != Overlay(["/b"])
    assert "/a, /b under /u" in repr(Overlay(["/a", "/b"], "/u", "/w"))


def test_names_that_mean_something_in_options_are_escaped() -> None:
    options = overlay._options(Overlay(["/a:b", "/c,d"], "/e\\f", "/g"))
    assert options[:3] == ["lowerdir=/a\\:b:/c\\,d", "upperdir=/e\\\\f", "workdir=/g"]


def test_a_kernel_that_takes_one_text_takes_a_page_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "_one_by_one", False)
    page = os.sysconf("SC_PAGE_SIZE")
    short = Overlay([f"/{number:04}{'x' * 90}" for number in range(page // 100)])
    overlay.write(Program(), short)
    with pytest.raises(Unsupported, match="fewer layers or shorter paths"):
        overlay.write(Program(), Overlay([*short.lower, *(f"{path}y" for path in short.lower[:10])]))


@pytest.mark.parametrize("known", [True, False])
def test_a_path_too_long_for_one_value_goes_the_other_way(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "_one_by_one", known)
    for path, one_by_one in (("/" + "x" * 254, known), ("/" + "x" * 255, False), ("/" + ":" * 200, known)):
        program = Program()
        overlay.write(program, Overlay([path, "/other"]))
        assert any("lowerdir+" in call.arguments for call in program.calls) == one_by_one
    program = Program()
    overlay.write(program, Overlay(["/a"], "/" + ":" * 200, "/w"))  # escaped, it is longer
    assert not any("lowerdir+" in call.arguments for call in program.calls)
