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
        ({"user": "root"}, "in numbers"),
        ({"user": "1000:"}, "in numbers"),
        ({"user": 1 << 32}, "from 0 to"),
        ({"user": -1}, "in numbers"),
        ({"groups": [-1]}, "from 0 to"),
        ({"umask": 0o1000}, "umask"),
        ({"ambient": ["SYS_ADMIN"]}, "among those that are kept"),
        ({"rlimits": {"cats": (1, 1)}}, "no resource limit"),
        ({"rlimits": {"nofile": 5}}, "pair"),
        ({"rlimits": {"nofile": (2, 1)}}, "above its hard one"),
        ({"rlimits": {"nofile": (-1, 1)}}, "from 0 to"),
        ({"oom_score_adj": 1001}, "from -1000 to 1000"),
        ({"domainname": "a b"}, "domain name"),
        ({"mounts": ["/srv"]}, "step such as"),
        ({"mounts": [("bind", "/srv", "data")]}, "makes no sense"),
        ({"mounts": [("bind", "/srv", "data", ("fast",))]}, "'fast'"),
        ({"mounts": [("bind", "srv", "data", ())]}, "nothing at srv"),
        ({"mounts": [("bind", "/nowhere", "data", ())]}, "nothing at /nowhere"),
        ({"mounts": [("bind", "/srv", "../data", ())]}, "needs a place"),
        ({"mounts": [("bind", "/srv", "/", ())]}, "needs a place"),
        ({"mounts": [("bind", "/srv", "data", ("idmap",))]}, "give mappings"),
        ({"namespaces": {"cats": "host"}}, "no kind of namespace"),
        ({"namespaces": {"mnt": "host"}}, "is its own"),
        ({"namespaces": {"user": "host"}}, "is its own"),
        ({"namespaces": {"net": "/nowhere"}}, "no net namespace"),
        ({"namespaces": {"net": 1 << 30}}, "no net namespace"),
        ({"namespaces": {"net": "/proc/self/ns/uts"}}, "not a net namespace"),
        ({"namespaces": {"net": "/etc/passwd"}}, "not a net namespace"),
        ({"namespaces": {"net": "host"}, "network": "host"}, "said twice"),
        ({"network": "bridge"}, "endpoint"),
        ({"network": 7}, "endpoint"),
        ({"sysctl": {"kernel.panic": "1"}}, "of its own"),
        ({"sysctl": {"net.../../kernel/panic": "1"}}, "of its own"),
        ({"sysctl": {"net.ipv4.ip_forward": "1"}, "network": "host"}, "would be the lab host's"),
        ({"sysctl": {"kernel.msgmax": "1"}, "namespaces": {"ipc": "host"}}, "would be the lab host's"),
        ({"sysctl": {"kernel.msgmax": 1}}, "takes a text"),
        ({"uid_mappings": [(0, 1000, 1)]}, "both maps"),
        ({"uid_mappings": [(1, 1000, 1)], "gid_mappings": [(0, 1000, 1)]}, "uid 0 is nobody"),
        ({"uid_mappings": [(0, 1000, 1)], "gid_mappings": [(0, 1000, 1)], "user": "5"}, "uid 5 is nobody"),
        ({"uid_mappings": [(0, 0, 9), (5, 100, 9)], "gid_mappings": [(0, 1000, 1)]}, "in common"),
        ({"idmap_root": True}, "give its mappings"),
        ({"limits": {"pids_max": 5}}, "limits are"),
        ({"seccomp": "strict"}, "seccomp is"),
        ({"time_offsets": {"realtime": 5}}, "monotonic"),
        ({"time_offsets": {"boottime": 1 << 70}}, "from -"),
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
