"""The exercises of lab 05: UTS namespaces."""

import os
from collections.abc import Callable
from contextlib import suppress

from labkit import host, namespaces, procfs, temporary
from labkit.constants import CLONE_NEWUTS
from labkit.course.exercises.common import hostname
from labkit.course.exercises.common.hostname import label, uts
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet, Passed, Verdict
from labkit.process import Child, run_in_child, spawn
from labkit.syscalls import sethostname, setns, umount2, unshare


class Isolate(Exercise):
    """A hostname of its own."""

    name = "isolate"
    title = "A hostname of its own"
    start = "Begin with the call that gives a process a UTS namespace of its own."
    hints = (
        "Two calls are needed. One makes a place for a name, the other writes the name into it. Which must come first?",
        "Look at `unshare(2)` and at its flag CLONE_NEWUTS, then at `sethostname(2)`. Both are imported above.",
        "`unshare(CLONE_NEWUTS)`, and under it `sethostname(hostname)`",
    )
    because = (
        "The namespace comes first, so that the name is written into the copy and not into the original, which "
        "everybody on the lab host reads."
    )

    def check(self, isolate: Callable[[str], object]) -> Verdict:
        """Look at the child's UTS namespace and at both names."""
        wanted = self.draw_name("box")
        with hostname.lab_host_restored() as before, spawn(isolate, wanted) as child:
            if verdict := hostname.own_name(child, wanted, before):
                return verdict
            inside, outside = uts(child.pid), uts(host.pid())
        return Passed(
            f"The child is `{wanted}` in {label(inside)}; the lab host is still `{before}` in {label(outside)}.",
            "Every container engine gives a container its name with these two calls, in this order.",
        )


class Together(Exercise):
    """The same namespace, or only the same name?"""

    name = "together"
    title = "The same namespace, or only the same name?"
    start = "Each process has a file that says which UTS namespace it is in. Begin by reading it for one of the two."
    hints = (
        "Two houses may have the same name on the door. What does the kernel number its namespaces by?",
        (
            "`/proc/PID/ns/uts` is a link that leads to the namespace. `os.stat` follows it, and `os.readlink` shows "
            "its text."
        ),
        "`return os.stat(f'/proc/{first}/ns/uts').st_ino == os.stat(f'/proc/{second}/ns/uts').st_ino`",
    )
    because = (
        "The inode is the namespace's identity, as long as the namespace is alive. A name is only something written "
        "in it, and can be written in two. `os.path.samefile` compares the same and the device besides."
    )

    def check(self, together: Callable[[int, int], object]) -> Verdict:
        """Ask about pairs of processes: in one namespace, in two, and in two with one name."""
        name, other = self.draw_name("twin"), self.draw_name("other")
        with (
            spawn(_isolated, name) as one,
            spawn(_joined, one.pid) as guest,
            spawn(_isolated, name) as twin,
            spawn(_isolated, other) as stranger,
        ):
            pairs = [("same", one, guest), ("same", guest, one), ("twins", twin, one), ("strangers", one, stranger)]
            self.random.shuffle(pairs)
            answers: dict[str, list[object]] = {}
            for kind, first, second in pairs:
                answers.setdefault(kind, []).append(run_in_child(together, first.pid, second.pid))
            return self._judge(answers, name, one, twin)

    def _judge(self, answers: dict[str, list[object]], name: str, one: Child, twin: Child) -> Verdict:
        given = [answer for several in answers.values() for answer in several]
        if any(answer is None for answer in given):
            return NotYet(
                "The function returned None for at least one pair of processes.",
                "It is asked a question with two answers. Does every path through it end in a `return`?",
            )
        same, twins, strangers = ([bool(answer) for answer in answers[kind]] for kind in ("same", "twins", "strangers"))
        if all(same) and not any(strangers) and any(twins):
            return NotYet(
                f"Processes {one.pid} and {twin.pid} are both called `{name}`, and your function says that they are "
                f"together. They are not: one is in {label(uts(one.pid))}, the other in {label(uts(twin.pid))}.",
                "A hostname is what is written in a namespace; the same name can be written in two. What tells two "
                "namespaces apart, whatever is written in them?",
            )
        if not any(bool(answer) for answer in given):
            return NotYet(
                "Your function said False for every pair, also for two processes that are both in "
                f"{label(uts(one.pid))}.",
                "What do you compare? A PID differs for any two processes, and so does the link `/proc/PID/ns/uts` as "
                "a file of its own. What does the link lead to?",
            )
        if all(bool(answer) for answer in given):
            return NotYet(
                f"Your function said True for every pair, also for one in {label(uts(one.pid))} and "
                f"{label(uts(twin.pid))}.",
                "Are the two things you compare of the two processes that were asked about, and are they of the kind "
                "`uts`? All these processes share their other namespaces.",
            )
        if all(same) and not any(twins) and not any(strangers):
            return Passed(
                "Two in one namespace, two in different ones, and two in different ones with the same name: all told "
                "apart.",
                "This is how to find out what two containers really share. Tools such as `lsns` compare these numbers "
                "too.",
            )
        return NotYet(
            f"For two processes in one namespace you answered {_list(same)}, for two with the same name in different "
            f"ones {_list(twins)}, for two with different names {_list(strangers)}.",
            "The right answers are True, False and False. What would have to be compared to get them?",
        )


class Join(Exercise):
    """Into another process's namespace."""

    name = "join"
    title = "Into another process's namespace"
    points = 2
    start = "Begin by opening the file that leads to the other process's UTS namespace."
    hints = (
        "`unshare` makes a new namespace. Here is one already. Which of the three calls takes one that exists?",
        "`setns(2)` wants a descriptor of the namespace: open `/proc/PID/ns/uts` with `os.open(..., os.O_RDONLY)`.",
        "`fd = os.open(f'/proc/{pid}/ns/uts', os.O_RDONLY)`, then `setns(fd, CLONE_NEWUTS)`",
    )
    because = (
        "The descriptor stands for the namespace, so nothing can be swapped between looking and joining. CLONE_NEWUTS "
        "as the second argument makes the kernel refuse a descriptor of another kind."
    )

    def check(self, join: Callable[[int], object]) -> Verdict:
        """Look where the child is, then rename the target and see whether the child notices."""
        name, later = self.draw_name("target"), self.draw_name("renamed")
        with (
            hostname.lab_host_restored() as before,
            spawn(_isolated, name) as target,
            spawn(join, target.pid) as child,
        ):
            hostname.settle(child, lambda: uts(child.pid) == uts(target.pid))
            if verdict := hostname.ended(child):
                return verdict
            there = uts(target.pid)
            if uts(child.pid) == uts(host.pid()):
                return _still_outside(child.pid, there, target.pid, name, before)
            if uts(child.pid) != there:
                return _elsewhere(child.pid, there, name)
            target.call(sethostname, later)
            seen = hostname.of(child.pid)
        return Passed(
            f"The child and its target are both in {label(there)}. The check then renamed the target `{later}`, and "
            f"your child was called `{seen}` at the same moment.",
            "A shell in a running container, `docker exec`, is started this way: by joining the container's "
            "namespaces.",
        )


def _still_outside(pid: int, there: int, target: int, name: str, host_before: str) -> NotYet:
    here = uts(pid)
    host_name = hostname.of(host.pid())
    if there in hostname.threads_elsewhere(pid):
        return NotYet(
            f"One of the threads of process {pid} is in {label(there)}, but its first thread, which is what "
            f"`/proc/{pid}/ns` shows, is still in {label(here)} with the lab host.",
            "`setns` moves the thread that calls it, not the whole process. Which thread should call it?",
        )
    if there in [inode for _, inode in hostname.forked_elsewhere(pid)]:
        return NotYet(
            f"A process that yours has forked is in {label(there)}; process {pid} itself, which ran your function, is "
            f"still in {label(here)} with the lab host.",
            "`setns` moves its caller. On which side of the fork was it called, and is the fork needed?",
        )
    if host_name != host_before:
        return NotYet(
            f"Process {pid} is called `{host_name}` now, but it is still in {label(here)}, and so is the lab host: "
            f"that was renamed with it. The target is in {label(there)}.",
            "To have the same name is not to be in the same namespace. Which call moves a process?",
        )
    return NotYet(
        f"Process {pid} is still in {label(here)} with the lab host; its target, process {target} called `{name}`, is "
        f"in {label(there)}.",
        "Nothing has moved the process. Was `setns` called, and with a descriptor of the target's namespace rather "
        "than the caller's own? It moves only the thread that calls it: was that a thread, or a child, that has ended "
        "since?",
    )


def _elsewhere(pid: int, there: int, name: str) -> NotYet:
    here = uts(pid)
    if hostname.of(pid) == name:
        return NotYet(
            f"The process is called `{name}`, as its target is. But it is in {label(here)} and the target is in "
            f"{label(there)}: two namespaces in which the same name is written.",
            "If the target is renamed now, your process will not notice. Which call enters a namespace that exists?",
        )
    return NotYet(
        f"The process is in {label(here)}, which is neither the lab host's nor the target's: that is {label(there)}.",
        "`unshare` always makes a new namespace. Which call enters one that exists already?",
    )


class Keep(Exercise):
    """A namespace that outlives its process."""

    name = "keep"
    title = "A namespace without a process"
    points = 3
    start = "Begin as in `isolate`. Then the namespace needs someone to hold it: a mount."
    hints = (
        "A mount holds what is mounted. `/proc/self/ns/uts` stands for the namespace the caller is in. Mount it where?",
        (
            "`mount(2)` with MS_BIND shows a file at a second place. That place must exist: make an empty file at "
            "`path` first. And whose namespace does `/proc/self/ns/uts` lead to before `unshare`, and whose after?"
        ),
        (
            "`open(path, 'w').close()`, then `mount('/proc/self/ns/uts', path, None, MS_BIND)`, after the calls of "
            "`isolate`"
        ),
    )
    because = (
        "The mount counts as a user of the namespace just as a process does. `ip netns add` keeps its network "
        "namespaces in this way, as files in /run/netns."
    )

    def check(self, keep: Callable[[str, str], object]) -> Verdict:
        """Let the child make and hold a namespace, end the child, and look at what is mounted."""
        wanted = self.draw_name("kept")
        with hostname.lab_host_restored() as before, temporary.Folder() as folder:
            path = os.path.join(os.path.realpath(folder), self.draw_name("ns"))
            try:
                with spawn(keep, wanted, path) as child:
                    hostname.settle(child, lambda: False)  # until it has ended, or time is up
                    made = uts(child.pid) if child.alive else None
                    in_child = child.alive and any(one.mount_point == path for one in procfs.mountinfo(child.pid))
                return _what_is_left(path, wanted, made, in_child, before)
            finally:
                run_in_child(_unmount_all, path)


def _what_is_left(path: str, wanted: str, made: int | None, in_child: bool, host_before: str) -> Verdict:
    """The child has ended: look at the mount it has left, and at what the mount holds."""
    mounts = [one for one in procfs.mountinfo(host.pid()) if one.mount_point == path]
    if not mounts:
        return _nothing_mounted(path, made, in_child)
    kind, _, number = mounts[-1].root.partition(":")
    if mounts[-1].filesystem != "nsfs":
        return NotYet(
            f"Something of the kind `{mounts[-1].filesystem}` is mounted at `path`, but it is no namespace.",
            "The source of the mount should be the file that leads to the namespace. Under which name does a process "
            "find its own?",
        )
    if kind != "uts":
        return NotYet(
            f"What is mounted at `path` is a namespace of the kind `{kind}`.",
            "The hostname belongs to the kind `uts`. Which file in `/proc/self/ns` is that?",
        )
    held = int(number.strip("[]"))
    if held == uts(host.pid()):
        return NotYet(
            f"What is mounted at `path` is {label(held)}, the lab host's own namespace.",
            "`/proc/self/ns/uts` leads to the namespace that the caller is in when it is mounted. Was that before "
            "`unshare`, or by another process?",
        )
    hostname.until(lambda: not namespaces.members("uts", held), seconds=1.0)  # what was killed may still be ending
    if members := namespaces.members("uts", held):
        return NotYet(
            f"{label(held)} is mounted at `path`, and process {members[0]} is still in it.",
            "The mount alone is enough to hold it. Is that process needed?",
        )
    name, host_name = run_in_child(_name_behind, path), hostname.of(host.pid())
    if host_name != host_before:
        return NotYet(
            f"{label(held)} is mounted at `path`. But the lab host is now called `{host_name}`; it was "
            f"`{host_before}`.",
            "Whose name did `sethostname` change? In which order do the calls come?",
        )
    if name != wanted:
        return NotYet(
            f"{label(held)} is mounted at `path`, but the name in it is `{name}`, not `{wanted}`.",
            "The name must be written into the new namespace before the process ends. Which call does that?",
        )
    return Passed(
        f"The process that made {label(held)} has ended and no other is in it. Through the mount the check went in and "
        f"found the name `{name}`.",
        "A namespace lives while someone holds it: a process in it, an open descriptor, or a mount like this one.",
    )


def _nothing_mounted(path: str, made: int | None, in_child: bool) -> NotYet:
    if os.path.islink(path):
        return NotYet(
            f"`path` is a symbolic link to `{os.readlink(path)}`.",
            "A link is only a text: whoever follows `/proc/self` finds their own namespace, and `/proc/PID` ends with "
            "the process. Nobody holds the namespace. What does hold a file, so that it is there at a second place?",
        )
    if in_child:
        return NotYet(
            "While the child was alive something was mounted at `path`; with the child the mount was gone.",
            "Was it made in a mount namespace that belonged to the child alone, and ended with it?",
        )
    if made and made != uts(host.pid()) and (members := namespaces.members("uts", made)):
        return NotYet(
            f"The namespace is still there, but it is process {members[0]} that keeps it alive: nothing is mounted at "
            "`path`.",
            "It should live on without any process. What else can hold a namespace?",
        )
    if not os.path.exists(path):
        return NotYet(
            "There is nothing at `path`: no file, and so no mount on it.",
            "A file can only be mounted on a file. How do you make an empty one, and what do you mount there?",
        )
    return NotYet(
        "There is a file at `path`, but nothing is mounted on it, and the namespace ended with the child.",
        "An open descriptor or a copy of the file's text holds nothing once the process has ended. What does?",
    )


def _isolated(name: str) -> None:
    unshare(CLONE_NEWUTS)
    sethostname(name)


def _joined(pid: int) -> None:
    namespaces.enter(pid, ("uts",))


def _name_behind(path: str) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        setns(fd, CLONE_NEWUTS)
    finally:
        os.close(fd)
    return hostname.own()


def _unmount_all(path: str) -> None:
    with suppress(OSError):
        while True:
            umount2(path)


def _list(answers: list[bool]) -> str:
    return " and ".join(str(answer) for answer in sorted(set(answers)))
