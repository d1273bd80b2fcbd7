"""The mounts of a process as a tree: what stands on what, what is new, and whether it travels."""

from labkit import procfs
from labkit.course.views import mounttree

HOST = """\
20 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
21 20 0:5 / /dev rw shared:2 - devtmpfs udev rw
22 21 0:6 / /dev/pts rw shared:3 - devpts devpts rw
23 20 0:7 / /tmp rw shared:4 - tmpfs tmpfs rw
"""
HERE = """\
40 39 8:1 / / rw master:1 - ext4 /dev/sda1 rw
43 40 0:7 / /tmp rw - tmpfs tmpfs rw
41 40 0:5 / /dev rw shared:9 master:2 - devtmpfs udev rw
50 43 0:30 / /tmp/box ro - overlay overlay rw
51 50 0:31 / /tmp/box/proc rw unbindable - proc proc rw
52 50 0:32 / /tmp/box rw - tmpfs above rw
"""


def mounts(text: str) -> list[procfs.Mount]:
    return [procfs._mount(line) for line in text.splitlines()]


def test_each_before_what_stands_on_it() -> None:
    found, gone = mounttree.tree(mounts(HERE), mounts(HOST))
    assert [(one.depth, one.mount_point, one.new, one.holds_new) for one in found] == [
        (0, "/", False, True),
        (1, "/tmp", False, True),
        (2, "/tmp/box", True, True),
        (3, "/tmp/box/proc", True, False),
        (3, "/tmp/box", True, False),  # on top of the other one, which it covers
        (1, "/dev", False, False),
    ]
    assert [one.propagation for one in found] == [
        "receives",
        "private",
        "private",
        "unbindable",
        "private",
        "shared, receives",
    ]
    assert [one.readonly for one in found] == [False, False, True, False, False, False]
    assert gone == 1


def test_as_text_it_is_what_is_new_and_where() -> None:
    found, _ = mounttree.tree(mounts(HERE), mounts(HOST))
    assert mounttree.as_text(found) == [
        "    / ext4 receives",
        "      /tmp tmpfs private",
        "  +     /tmp/box overlay read-only private",
        "  +       /tmp/box/proc proc unbindable",
        "  +       /tmp/box tmpfs private",
    ]


def test_a_tower_of_mounts_and_a_root_that_is_its_own_parent() -> None:
    tower = [f"{n + 2} {n + 1} 0:{n + 2} / / rw - tmpfs t rw" for n in range(3000)]
    found, gone = mounttree.tree(mounts("\n".join(["1 1 8:1 / / rw - ext4 d rw", *tower])), [])
    assert [one.depth for one in found] == list(range(3001))
    assert gone == 0
    assert mounttree.tree([], []) == ((), 0)
