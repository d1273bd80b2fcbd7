from pathlib import Path
from typing import Any

import pytest

from labkit import capabilities
from labkit.container.config import Config
from labkit.errors import InvalidConfig


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "bin").mkdir(parents=True)
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"args": []}, "list of strings"),
        ({"args": "ls -l"}, "list of strings"),
        ({"args": [1]}, "list of strings"),
        ({"args": [""]}, "empty"),
        ({"args": ["a\0b"]}, "NUL"),
        ({"args": ["x" * 70_000]}, "larger than 64 KiB"),
        ({"hostname": ""}, "host name"),
        ({"hostname": "a/b"}, "host name"),
        ({"hostname": "-a"}, "host name"),
        ({"hostname": "a" * 65}, "host name"),
        ({"hostname": "a\n"}, "host name"),
        ({"cwd": "tmp"}, "absolute"),
        ({"env": {"A=B": "c"}}, "variable"),
        ({"env": {"": "c"}}, "variable"),
        ({"env": {"A": "b\0"}}, "NUL"),
        ({"capabilities": ["CAP_FLY"]}, "CAP_FLY"),
        ({"root": "/nowhere/at/all"}, "does not exist"),
        ({"root": "/etc/passwd"}, "not a folder"),
        ({"root": "/"}, "own root"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(root: Path, wrong: dict[str, Any], words: str) -> None:
    valid: dict[str, Any] = {"args": ["true"], "root": root}
    with pytest.raises(InvalidConfig, match=words):
        Config(**(valid | wrong))


def test_an_empty_root_and_a_link_to_a_root_are_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(InvalidConfig, match="empty"):
        Config(["true"], tmp_path / "empty")
    with pytest.raises(InvalidConfig, match="symbolic link"):
        Config(["true"], tmp_path / "link")


def test_it_cannot_be_changed_afterwards(root: Path) -> None:
    config = Config(["true"], root)
    with pytest.raises(AttributeError):
        config.hostname = "other"  # type: ignore[misc]


def test_the_default_capabilities_are_dockers_fourteen() -> None:
    # From the documentation of Docker's default profile: 0x00000000a80425fb as it stands in CapEff.
    assert capabilities.mask(capabilities.DEFAULT) == 0x00000000A80425FB
    assert capabilities.mask(("CAP_CHOWN",)) == capabilities.mask(("chown",)) == 1
