"""The live view: what one look finds, and that following ends with the process, or with close()."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit import constants as c
from labkit import host
from labkit.course.views import isolation
from labkit.course.views.isolation import Isolation
from labkit.course.views.live import LiveView
from labkit.course.views.view import IsolationView
from labkit.process import Child, spawn
from labkit.syscalls import mount, sethostname, unshare


@pytest.fixture
def child() -> Iterator[Child]:
    with spawn(int) as child:
        yield child
    host.reset()


def kinds(found: Isolation) -> dict[str, bool | None]:
    return {one.kind: one.same for one in found.namespaces}


def test_a_plain_child_is_isolated_in_nothing(child: Child) -> None:
    found = isolation.look(child.pid, host.pid())
    assert set(kinds(found).values()) == {True}
    assert [(one.outside, one.inside, one.depth) for one in found.processes] == [(child.pid, child.pid, 0)]
    assert found.processes[0].command == "python (your function)"
    assert not [one for one in found.mounts if one.new]
    assert found.mounts_of_host_gone == 0


def test_what_was_unshared_is_different(child: Child) -> None:
    child.call(unshare, c.CLONE_NEWUTS | c.CLONE_NEWIPC)
    found = kinds(isolation.look(child.pid, host.pid()))
    assert [kind for kind, same in found.items() if not same] == ["uts", "ipc"]


def mount_something(at: str) -> None:
    unshare(c.CLONE_NEWNS)
    mount(None, "/", None, c.MS_REC | c.MS_PRIVATE)
    mount("something", at, "tmpfs", c.MS_RDONLY)


def test_new_mounts_are_marked(child: Child, tmp_path: Path) -> None:
    child.call(mount_something, str(tmp_path))
    new = [one for one in isolation.look(child.pid, host.pid()).mounts if one.new]
    assert [(one.mount_point, one.filesystem, one.source, one.readonly) for one in new] == [
        (str(tmp_path), "tmpfs", "something", True)
    ]
    assert new[0].propagation == "private"
    (on,) = [one for one in isolation.look(child.pid, host.pid()).mounts if one.holds_new][-1:]
    assert on.depth == new[0].depth - 1
    assert f"+ {'  ' * new[0].depth}{tmp_path} tmpfs read-only" in isolation.as_text(
        isolation.look(child.pid, host.pid())
    )


def fork_into_a_new_pid_namespace() -> None:
    unshare(c.CLONE_NEWPID)
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "1000"])


def test_processes_have_a_pid_inside_and_outside(child: Child) -> None:
    child.call(fork_into_a_new_pid_namespace)
    found = isolation.look(child.pid, host.pid())
    assert kinds(found)["pid"] is True, "the caller of unshare stays where it was"
    assert kinds(found)["pid_for_children"] is False
    me, first = found.processes
    assert (me.outside, first.inside, first.depth) == (child.pid, 1, 1)
    inside = isolation.look(first.outside, host.pid())
    assert kinds(inside)["pid"] is False
    assert [one.inside for one in inside.processes] == [1]


def test_a_process_that_is_gone_is_said_to_be() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(ProcessLookupError):
        isolation.look(process.pid, os.getpid())


def test_processes_may_vanish_while_being_looked_at() -> None:
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            subprocess.run(["sh", "-c", "true & true & wait"], check=True)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(100):
            assert isolation.look(os.getpid(), os.getpid()).processes[0].outside == os.getpid()
    finally:
        stop.set()
        thread.join()


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.01)


def test_a_view_follows_and_ends_with_its_process(child: Child) -> None:
    before = open_descriptors()
    view = IsolationView(child)
    view.follow()
    assert {one["kind"]: one["same"] for one in view.state["namespaces"]}["uts"] is True
    child.call(unshare, c.CLONE_NEWUTS)
    wait_for(lambda: "uts" in {one["kind"] for one in view.state["namespaces"] if not one["same"]})
    child.call(sethostname, "seen")
    child.kill()
    wait_for(lambda: not view.following)
    assert view.state["status"] == "ended"
    assert view.state["namespaces"], "what was seen last stays"
    view.close()
    view.close()
    assert open_descriptors() <= before


def test_close_ends_the_thread_at_once(child: Child) -> None:
    view = IsolationView(child.pid)
    view.follow()
    started = time.monotonic()
    view.close()
    assert not view.following
    assert time.monotonic() - started < 0.9, "without waiting for the next look"
    assert view.state["status"] == "ended"


def test_nothing_is_passed_on_when_nothing_changes(child: Child) -> None:
    view = IsolationView(child)
    state = view.state
    view.refresh()
    assert view.state is state
    view.close()


def test_nobody_looks_while_nobody_watches(child: Child) -> None:
    view = IsolationView(child)
    view._on_message(None, {"kind": "shown"}, None)
    view._on_message(None, {"kind": "hidden"}, None)
    view._on_message(None, "nonsense", None)
    looks: list[int] = []
    look = view.look

    def counted() -> dict[str, Any]:
        looks.append(1)
        return look()

    view.look = counted  # type: ignore[method-assign]
    view.follow()
    threading.Event().wait(1.5)
    assert len(looks) <= 1
    view._on_message(None, {"kind": "shown"}, None)
    wait_for(lambda: len(looks) >= 2)
    view.close()


def test_a_view_of_what_has_ended_and_of_what_is_no_process() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    view = IsolationView(process.pid)
    view.follow()
    assert view.state["status"] == "ended"
    assert not view.following
    view.close()
    with pytest.raises(TypeError, match="a view needs a process"):
        IsolationView("nginx")


def test_as_text(child: Child) -> None:
    text = isolation.as_text(isolation.look(child.pid, host.pid()))
    assert "uts" in text
    assert f"{child.pid} (inside: {child.pid})" in text


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Counter(LiveView):
    """A view of no process: it ends when its look says so."""

    script = "view.js"
    plain = "a count"
    interval_seconds = 0.01

    def __init__(self) -> None:
        self.left = 3
        super().__init__("Counting")

    def look(self) -> dict[str, Any] | None:
        self.left -= 1
        return {"left": self.left} if self.left >= 0 else None


def test_a_view_of_no_process_ends_when_its_look_says_so() -> None:
    with Counter() as view:
        assert view.state == {"left": 2, "title": "Counting", "status": "alive"}
        view.follow()
        wait_for(lambda: not view.following)
    assert view.state == {"left": 0, "title": "Counting", "status": "ended"}
    assert repr(view) == "<live view: ended>"
