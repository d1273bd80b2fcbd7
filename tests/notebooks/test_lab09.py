"""Lab 09: each likely mistake gets its own message, and other right ways than the course's pass.

Where this machine has no cgroup v2 controllers, these run in a virtual machine instead (tests/vm/test_lab_checks.py).
"""

import os
from pathlib import Path

import pytest

from labkit import host
from labkit.course.authoring.trial import attempt
from labkit.course.framework.outcomes import NotChecked, NotYet, Passed
from labkit.course.needs import lacking
from tests.requirements import machine_cannot, need

needs_groups = pytest.mark.usefixtures("groups")


@pytest.fixture
def groups() -> None:
    need("cgroup-v2")


SHARE = """
def share(parent, name):
    write(parent, "cgroup.subtree_control", "+cpu")
    os.mkdir(f"{parent}/{name}")
    write(f"{parent}/{name}", "cpu.max", "20000 100000")
"""
AWAIT = """
def await_oom(group):
    with open(f"{group}/memory.events") as events:
        def kills():
            events.seek(0)
            return int(dict(line.split() for line in events)["oom_kill"])
        before = kills()
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        while (now := kills()) == before:
            poll.poll()
        return now
"""
CAGE = """
def cage(group, most, bomb):
    write(group, "pids.max", most)
    if os.fork() == 0:
        write(group, "cgroup.procs", os.getpid())
        bomb()
"""
DELEGATE = """
def delegate(group, uid, gid):
    for one in (group, f"{group}/cgroup.procs", f"{group}/cgroup.subtree_control"):
        os.chown(one, uid, gid)
"""


def changed(code: str, old: str, new: str = "") -> str:
    """`code` with one line, or a part of one, exchanged."""
    assert code.count(old) == 1, old
    return code.replace(old, new)


NOTHING_HANDED_ON = changed(SHARE, '    write(parent, "cgroup.subtree_control", "+cpu")\n')
MISTAKES = {
    "nothing is made": (
        "share",
        """
def share(parent, name):
    print(os.listdir(parent)[:0])
""",
        "There is no group",
    ),
    "another name": (
        "share",
        changed(SHARE, 'os.mkdir(f"{parent}/{name}")', 'os.mkdir(f"{parent}/x{name}")').replace(
            'write(f"{parent}/{name}", "cpu.max"', 'write(f"{parent}/x{name}", "cpu.max"'
        ),
        "instead",
    ),
    "controller not handed on by the parent": (
        "share",
        NOTHING_HANDED_ON,
        "where the *parent* hands it on",
    ),
    "handed on by the child": (
        "share",
        """
def share(parent, name):
    os.mkdir(f"{parent}/{name}")
    write(f"{parent}/{name}", "cgroup.subtree_control", "+cpu")
""",
        "it has nothing to hand on",
    ),
    "a file of one's own is no file": (
        "share",
        """
def share(parent, name):
    os.mkdir(f"{parent}/{name}")
    os.close(os.open(f"{parent}/{name}/cpu.max", os.O_WRONLY | os.O_CREAT))
""",
        "the kernel lets nobody make one",
    ),
    "only the group": (
        "share",
        """
def share(parent, name):
    os.mkdir(f"{parent}/{name}")
""",
        "hands no CPU controller on",
    ),
    "no limit": (
        "share",
        changed(SHARE, '    write(f"{parent}/{name}", "cpu.max", "20000 100000")\n'),
        "no limit",
    ),
    "the limit on the parent": (
        "share",
        changed(SHARE, 'write(f"{parent}/{name}", "cpu.max"', 'write(parent, "cpu.max"'),
        "on its parent",
    ),
    "the two numbers exchanged": (
        "share",
        changed(SHARE, "20000 100000", "100000 20000"),
        "five CPUs",
    ),
    "per cent": (
        "share",
        changed(SHARE, "20000 100000", "20%"),
        "did not understand the text",
    ),
    "milliseconds": (
        "share",
        changed(SHARE, "20000 100000", "2000 100000"),
        "2 % of a CPU",
    ),
    "moves in itself": (
        "share",
        SHARE + '    write(f"{parent}/{name}", "cgroup.procs", os.getpid())\n',
        "is in `shop-",
    ),
    "does not wait": (
        "await_oom",
        """
def await_oom(group):
    return number(group, "memory.events", "oom_kill")
""",
        "an old one",
    ),
    "asks in a loop": (
        "await_oom",
        """
def await_oom(group):
    before = number(group, "memory.events", "oom_kill")
    while (now := number(group, "memory.events", "oom_kill")) == before:
        pass
    return now
""",
        "asks in a loop",
    ),
    "polls": (
        "await_oom",
        """
def await_oom(group):
    before = number(group, "memory.events", "oom_kill")
    while (now := number(group, "memory.events", "oom_kill")) == before:
        time.sleep(0.05)
    return now
""",
        "that is polling",
    ),
    "sleeps long between two looks": (
        "await_oom",
        """
def await_oom(group):
    before = number(group, "memory.events", "oom_kill")
    while (now := number(group, "memory.events", "oom_kill")) == before:
        time.sleep(3)
    return now
""",
        "no file `memory.events` open",
    ),
    "waits for data": (
        "await_oom",
        changed(AWAIT, "select.POLLPRI", "select.POLLIN"),
        "announced as POLLPRI",
    ),
    "does not read first": (
        "await_oom",
        """
def await_oom(group):
    with open(f"{group}/cgroup.events") as events:
        events.read()
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        poll.poll()
""",
        "no file `memory.events` open",
    ),
    "the first event": (
        "await_oom",
        changed(
            AWAIT,
            "        while (now := kills()) == before:\n            poll.poll()\n        return now\n",
            "        poll.poll()\n        return kills()\n",
        ),
        "another event",
    ),
    "waits for another file": (
        "await_oom",
        """
def await_oom(group):
    with open(f"{group}/memory.events") as events, open(f"{group}/pids.events") as other:
        events.read()
        other.read()
        poll = select.poll()
        poll.register(other, select.POLLPRI)
        poll.poll()
""",
        "still waits",
    ),
    "returns nothing": (
        "await_oom",
        changed(AWAIT, "        return now\n", '        print("killed")\n'),
        "It returned None",
    ),
    "no limit for the bomb": (
        "cage",
        changed(CAGE, '    write(group, "pids.max", most)\n'),
        "any number of processes",
    ),
    "another limit": (
        "cage",
        changed(CAGE, '"pids.max", most', '"pids.max", most - 1'),
        "was to be",
    ),
    "in the same process": (
        "cage",
        """
def cage(group, most, bomb):
    write(group, "pids.max", most)
    write(group, "cgroup.procs", os.getpid())
    bomb()
""",
        "in the very process",
    ),
    "joins before it forks": (
        "cage",
        """
def cage(group, most, bomb):
    write(group, "pids.max", most)
    write(group, "cgroup.procs", os.getpid())
    if os.fork() == 0:
        bomb()
""",
        "shares the bomb's limit",
    ),
    "never joins": (
        "cage",
        changed(CAGE, '        write(group, "cgroup.procs", os.getpid())\n'),
        "outside of the group",
    ),
    "joins too late": (
        "cage",
        """
def cage(group, most, bomb):
    write(group, "pids.max", most)
    if (pid := os.fork()) == 0:
        if os.fork() == 0:
            bomb()
        write(group, "cgroup.procs", os.getpid())
        signal.pause()
""",
        "outside of the group",
    ),
    "the limit after the bomb": (
        "cage",
        """
def cage(group, most, bomb):
    if os.fork() == 0:
        write(group, "cgroup.procs", os.getpid())
        bomb()
    while len(read(group, "cgroup.procs").split()) <= most:
        time.sleep(0.01)
    write(group, "pids.max", most)
""",
        "it came too late",
    ),
    "no bomb": (
        "cage",
        """
def cage(group, most, bomb):
    write(group, "pids.max", most)
""",
        "none was refused",
    ),
    "only the folder": (
        "delegate",
        """
def delegate(group, uid, gid):
    os.chown(group, uid, gid)
""",
        "move their own",
    ),
    "without subtree_control": (
        "delegate",
        changed(DELEGATE, ', f"{group}/cgroup.subtree_control"'),
        "hand the controller `pids` on",
    ),
    "without the folder": (
        "delegate",
        changed(DELEGATE, "in (group, ", "in ("),
        "make a group in it",
    ),
    "the limits too": (
        "delegate",
        """
def delegate(group, uid, gid):
    os.chown(group, uid, gid)
    for name in os.listdir(group):
        os.chown(f"{group}/{name}", uid, gid)
""",
        "lift their own limit",
    ),
    "for everybody": (
        "delegate",
        """
def delegate(group, uid, gid):
    os.chmod(group, 0o777)
    for name in ("cgroup.procs", "cgroup.subtree_control"):
        os.chmod(f"{group}/{name}", 0o666)
""",
        "Another user",
    ),
    "the group above, with all that is in it": (
        "delegate",
        """
def delegate(group, uid, gid):
    above = os.path.dirname(group)
    for folder in (above, *(f"{above}/{name}" for name in os.listdir(above) if "-" in name)):
        for file in ("", "/cgroup.procs", "/cgroup.subtree_control"):
            os.chown(folder + file, uid, gid)
""",
        "out of all its limits",
    ),
    "moves in before handing over": (
        "delegate",
        DELEGATE + '    write(group, "cgroup.procs", os.getpid())\n',
        "nobody has to be in it",
    ),
}


@needs_groups
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gets_its_own_message(mistake: str) -> None:
    exercise, code, words = MISTAKES[mistake]
    outcome = attempt("09", exercise, code)
    assert isinstance(outcome, NotYet), outcome
    assert words in outcome.seen + outcome.why, outcome


RIGHT = {
    "the quota alone": (
        "share",
        changed(SHARE, "20000 100000", "20000"),
    ),
    "another period": (
        "share",
        changed(SHARE, "20000 100000", "10000 50000"),
    ),
    "folder first, more controllers": (
        "share",
        """
def share(parent, name):
    os.mkdir(f"{parent}/{name}")
    write(parent, "cgroup.subtree_control", "+cpu +memory")
    write(f"{parent}/{name}", "cpu.max", "20000")
""",
    ),
    "epoll": (
        "await_oom",
        changed(changed(AWAIT, "select.poll()", "select.epoll()"), "select.POLLPRI", "select.EPOLLPRI"),
    ),
    "select": (
        "await_oom",
        changed(
            changed(
                changed(AWAIT, "        poll = select.poll()\n"), "        poll.register(events, select.POLLPRI)\n"
            ),
            "poll.poll()",
            "select.select([], [], [events])",
        ),
    ),
    "by the library": (
        "cage",
        """
def cage(group, most, bomb):
    small = cgroups.find(group.removeprefix(f"{TOP}/"))
    small.set(cgroups.Limits(pids_max=most))
    if os.fork() == 0:
        small.add(os.getpid())
        bomb()
""",
    ),
    "the parent puts the child in, which waits": (
        "cage",
        """
def cage(group, most, bomb):
    write(group, "pids.max", most)
    go, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(go, 1)
        bomb()
    write(group, "cgroup.procs", pid)
    os.write(tell, b"x")
""",
    ),
    "with the threads' file": (
        "delegate",
        changed(DELEGATE, 'f"{group}/cgroup.procs", ', 'f"{group}/cgroup.procs", f"{group}/cgroup.threads", '),
    ),
    "delegated by the library": (
        "delegate",
        """
def delegate(group, uid, gid):
    cgroups.find(group.removeprefix(f"{TOP}/")).delegate(uid, gid)
""",
    ),
}


@needs_groups
@pytest.mark.parametrize("way", RIGHT)
def test_another_right_way_passes(way: str) -> None:
    exercise, code = RIGHT[way]
    outcome = attempt("09", exercise, code)
    assert isinstance(outcome, Passed), outcome


@needs_groups
def test_nothing_of_a_check_is_left_in_the_tree() -> None:
    top = Path(host.current().group)
    before = sorted(entry.name for entry in top.iterdir())
    for mistake in ("the limit on the parent", "never joins", "the limit after the bomb"):
        attempt("09", *MISTAKES[mistake][:2])
    assert sorted(entry.name for entry in top.iterdir()) == before


@pytest.mark.parametrize(
    ("exercise", "code"), [("share", SHARE), ("await_oom", AWAIT), ("cage", CAGE), ("delegate", DELEGATE)]
)
def test_a_machine_without_groups_is_told_what_to_do(exercise: str, code: str) -> None:
    lack = lacking(["cgroup-v2"])
    if lack is None:
        machine_cannot("be without cgroup v2 controllers: it has them")
    outcome = attempt("09", exercise, code)
    assert isinstance(outcome, NotChecked)
    assert lack.mend in outcome.text
    assert not os.path.exists("/sys/fs/cgroup/first")
