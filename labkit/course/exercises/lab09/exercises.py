"""The exercises of lab 09: a share of the CPU, the event of an OOM kill, a caged fork bomb, delegation."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from errno import EBUSY, EINVAL
from pathlib import Path

from labkit import procfs
from labkit.course.exercises.lab09.cgroup_stand_in import (
    Quarter,
    count,
    group_of,
    processes,
    read,
    switches,
    until,
    use_memory,
)
from labkit.course.exercises.lab09.delegated_user import NEXT_DOOR, Attempts, try_as
from labkit.course.experiments import stressors
from labkit.course.framework import pace
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet, Passed, Verdict
from labkit.process import Child, spawn

__all__ = ["AwaitOom", "Cage", "Delegate", "Share"]


class Share(Exercise):
    """A group that may use 20 % of a CPU."""

    name = "share"
    title = "A group that may use 20 % of a CPU"
    points = 2
    seconds = 40.0
    start = "Begin with the group: one `os.mkdir`."
    hints = (
        (
            "Three steps: a folder, a controller that its parent hands on to it, and a limit. In which of the two "
            "groups does each of them take place?"
        ),
        (
            'A group hands controllers on with `cgroup.subtree_control`: writing `"+cpu"` to it makes the files '
            "`cpu.*` appear in the groups *below*. Then write to `cpu.max` of the new group: so many microseconds, in "
            "a period of so many."
        ),
        (
            '`write(parent, "cgroup.subtree_control", "+cpu")`, then '
            '`write(f"{parent}/{name}", "cpu.max", "20000 100000")`.'
        ),
    )
    because = (
        "20,000 µs in every 100,000 µs are a fifth of one CPU, however many processes are in the group and however "
        "many CPUs the machine has. The controller is handed on by the parent; the limit belongs to the child."
    )

    def check(self, share: Callable[[str, str], object]) -> Verdict:
        """Look at the group's files from outside; then have two processes count in it, and see it throttled."""
        name = self.draw_name("shop")
        with Quarter(self.draw_name("quarter")) as quarter:
            try:
                with spawn(share, quarter.path, name) as child:
                    mistake = _no_share(quarter, name, child)
            except OSError as error:
                if mistake := _share_refused(quarter, name, error):
                    return mistake
                raise
            if mistake:
                return mistake
            folder = quarter.outside / name
            with stressors.Neighbours(stressors.cpu(2), group=quarter.joined(name), seconds=30):
                throttled = until(lambda: count(folder, "cpu.stat", "nr_throttled"), 20)
            if not throttled:
                return NotYet(
                    f"Two processes that only count ran in `{name}`, and the kernel did not stop them once.",
                    "Is the limit still there? `cpu.max` of the group is what counts.",
                )
            periods, stopped = (count(folder, "cpu.stat", key) for key in ("nr_periods", "nr_throttled"))
            return Passed(
                f"`cpu.max` of `{name}` says `{read(folder, 'cpu.max')}`. Two processes that only count were stopped "
                f"in {stopped} of {periods} periods.",
                "The limit holds for all processes of the group together, and for those that they start.",
            )


def _no_share(quarter: Quarter, name: str, child: Child) -> Verdict | None:
    folder, limit = quarter.outside / name, read(quarter.outside / name, "cpu.max")
    if not folder.is_dir():
        found = quarter.below()
        other = f" There is `{found[0]}` instead." if found else ""
        return NotYet(
            f"There is no group `{name}` in the parent.{other}",
            "A group is a folder: the function gets the path of the parent, and the name.",
        )
    if not limit:
        return NotYet(
            f"The group `{name}` has no file `cpu.max`: its parent hands no CPU controller on.",
            "What a group may hand on stands in `cgroup.controllers`; what it does hand on in "
            "`cgroup.subtree_control`. Which of the two groups must be told `+cpu`?",
        )
    if limit.startswith("max"):
        if not read(quarter.outside, "cpu.max").startswith("max"):
            return NotYet(
                f"`{name}` itself has no limit (`{limit}`). The one that you set is on its parent, and so on all the "
                "groups that are or will be in there, together.",
                "Whose share is it? Each group has a `cpu.max` of its own.",
            )
        return NotYet(f"`cpu.max` of `{name}` says `{limit}`: no limit.", "Which two numbers make a fifth?")
    quota, period = (int(word) for word in limit.split())
    if mistake := _not_a_fifth(quota, period, limit):
        return mistake
    if child.pid in processes(folder):
        return NotYet(
            f"Process {child.pid}, which ran your function, is in `{name}` itself: from now on it is as slow as those "
            "that it wanted to slow down.",
            "Nothing has to be in the group for it to have a limit. Who wrote to `cgroup.procs`?",
        )
    return None


def _not_a_fifth(quota: int, period: int, limit: str) -> Verdict | None:
    share = quota / period
    if abs(share - 0.2) < 0.002:
        return None
    if abs(share - 5) < 0.05:
        return NotYet(
            f"`cpu.max` says `{limit}`: {quota} µs in every {period} µs, which is five CPUs.",
            "The quota comes first, the period second.",
        )
    return NotYet(
        f"`cpu.max` says `{limit}`: {quota} µs in every {period} µs, which is {share * 100:.4g} % of a CPU.",
        "The numbers are microseconds of CPU time in a period of microseconds. Where only the first is written, the "
        "period stays 100000.",
    )


def _share_refused(quarter: Quarter, name: str, error: OSError) -> Verdict | None:
    """What a refusal means, seen from the state that the function has left."""
    folder = quarter.outside / name
    if isinstance(error, FileExistsError) or not folder.is_dir():
        return None
    if isinstance(error, PermissionError | FileNotFoundError) and not read(folder, "cpu.max"):
        told = " You told the new group itself to hand it on, and it has nothing to hand on."
        own = isinstance(error, FileNotFoundError) and error.filename is None  # the write was refused, not the opening
        return NotYet(
            f"The group `{name}` is there, and has no file `cpu.max`; the kernel lets nobody make one, which it calls "
            f'"{error.strerror}".{told if own else ""}',
            "The files of a controller appear where the *parent* hands it on. Which file of the parent does that?",
        )
    if error.errno == EINVAL:
        return NotYet(
            "The kernel refused what was written (EINVAL): it did not understand the text.",
            '`cpu.max` takes two whole numbers of microseconds, or the word max: `"QUOTA PERIOD"`. The quota is at '
            "least 1000.",
        )
    if error.errno == EBUSY:
        return NotYet(
            "The kernel refused to hand the controller on (EBUSY): the parent holds a process itself.",
            "No inner processes: who has put one there?",
        )
    return None


class AwaitOom(Exercise):
    """Wait for an OOM kill without polling."""

    name = "await_oom"
    title = "Catch an OOM kill by its event"
    points = 3
    seconds = 60.0
    start = "Begin by opening `memory.events` of the group and reading the number after `oom_kill`."
    hints = (
        (
            "The kernel tells who asks: `select.poll` waits for a descriptor without using the CPU. Which descriptor, "
            "and for what, if not for data to read?"
        ),
        (
            "Keep `memory.events` open, read it, and register it for `select.POLLPRI`. When `poll()` returns, go back "
            "to the beginning (`seek(0)`) and read again. The file also counts other things: is it *oom_kill* that "
            "has grown?"
        ),
        (
            "`before = kills(file)`; `poll.register(file, select.POLLPRI)`; "
            "`while (now := kills(file)) == before: poll.poll()`; `return now`."
        ),
    )
    because = (
        "Reading marks what has been seen; POLLPRI wakes up at the next change after that, so none is missed in "
        "between. The loop is needed since the file changes for other reasons too: `max` grows each time that the "
        "group hits its limit."
    )

    def check(self, await_oom: Callable[[str], object]) -> Verdict:
        """Kill once before; call it; see that it sleeps; kill again, and see it return."""
        with Quarter(self.draw_name("quarter")) as quarter:
            name, before = self.draw_name("shop"), self.draw_number(1, 2)
            path = quarter.make(name, ("memory", "pids"))
            folder = quarter.outside / name
            _limit_memory(folder, 12)
            for _ in range(before):
                _one_more_kill(quarter, name)
            with spawn(await_oom, path, wait=False) as child:
                if child.answered(pace.scaled(1.0)):
                    return _too_early(child.value, before)
                if mistake := _does_not_sleep(child, folder):
                    return mistake
                _another_event(quarter, name, child)
                if child.answered(pace.scaled(0.5)):
                    return _no_kill(child.value, before)
                _one_more_kill(quarter, name)
                kills = count(folder, "memory.events", "oom_kill")
                if not child.answered(pace.scaled(10.0)):
                    return NotYet(
                        f"A process of the group was killed, `oom_kill` went from {before} to {kills}, and your "
                        "function still waits.",
                        "An event is only told to who has read the file before, and has *it* open. Do you wait for "
                        "POLLPRI, on the very file that you read? And do you `seek(0)` before you read again?",
                    )
                return _right_count(child.value, before, kills)


def _limit_memory(folder: Path, mib: int) -> None:
    Path(folder, "memory.max").write_text(f"{mib << 20}")
    with suppress(FileNotFoundError, PermissionError):  # a kernel without swap has no such file
        Path(folder, "memory.swap.max").write_text("0")


def _one_more_kill(quarter: Quarter, name: str) -> None:
    with spawn(int) as child:
        quarter.joined(name).add(child.pid)
        use_memory(child, 64)


def _another_event(quarter: Quarter, name: str, waiting: Child) -> None:
    """Have `memory.events` change without a kill, and give whoever waits for that the time to wake up."""
    folder, asleep = quarter.outside / name, switches(waiting.pid)
    Path(folder, "memory.high").write_text(f"{6 << 20}")
    with spawn(int) as child:
        quarter.joined(name).add(child.pid)
        child.call(_use_memory_until_told, f"{quarter.path}/{name}/memory.events")
    Path(folder, "memory.high").write_text("max")
    until(lambda: switches(waiting.pid) > asleep, 3.0)


def _use_memory_until_told(events: str) -> None:
    """Go beyond `memory.high` by as little as can be: the kernel slows down whoever does, the more the farther."""
    kept = []
    for _ in range(160):
        kept.append(bytearray(1 << 16))
        if "high 0\n" not in Path(events).read_text():
            return


def _no_kill(value: object, before: int) -> Verdict:
    return NotYet(
        f"It returned {value!r}, and nobody had been killed: the counter `oom_kill` stands at {before} as before. It "
        "had been woken up by another event.",
        "`memory.events` also counts `high` and `max`, each time that the group comes near its limit. Only a grown "
        "`oom_kill` is a kill; else wait on.",
    )


def _too_early(value: object, before: int) -> Verdict:
    if value == before:
        return NotYet(
            f"It returned {value} at once. That kill is an old one: the counter said {before} before your function was "
            "called, and nobody was killed since.",
            "The file counts from the making of the group. What must you know before you can tell a new kill?",
        )
    return NotYet(
        f"It returned {value!r} before anything had happened.",
        "It must wait until a process of the group is killed for want of memory, however long that takes.",
    )


def _does_not_sleep(child: Child, folder: Path) -> Verdict | None:
    """Whether a function that waits is given the CPU again and again meanwhile."""
    if not until(lambda: procfs.stat(child.pid)[2] == "S", 2.0):
        return NotYet(
            f"While nothing happened, process {child.pid} used the CPU all the time: it asks in a loop.",
            "A descriptor can be waited for: `select.poll` sleeps until the kernel wakes it up. (Not for POLLIN: a "
            "file can be read at any time. A change is announced as POLLPRI.)",
        )
    first, polled = switches(child.pid), 0
    used = until(lambda: switches(child.pid) - first > 5, 1.2)
    polled = switches(child.pid) - first
    if used:
        return NotYet(
            f"While nothing happened, process {child.pid} woke up {polled} times to look: that is polling.",
            "A time between two looks is either too long or too short. The kernel can wake you up at the right "
            "moment: `select.poll`, without a time-out.",
        )
    waits_for = [os.readlink(f"/proc/{child.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{child.pid}/fd")]
    if not any(one.endswith("memory.events") or "inotify" in one for one in waits_for):
        return NotYet(
            "Your function waits, but it has no file `memory.events` open: nobody will tell it.",
            "The descriptor that is waited for must be one of the group's `memory.events`, kept open.",
        )
    return None


def _right_count(value: object, before: int, kills: int) -> Verdict:
    if value == kills and not isinstance(value, bool):
        return Passed(
            f"It slept until a process was killed, and then returned {value}: `oom_kill` had gone from {before} to "
            f"{kills}.",
            "This is how an engine learns that a container died of memory, and can say so: `docker inspect` shows it "
            "as OOMKilled.",
        )
    return NotYet(
        f"It returned {value!r}; the counter `oom_kill` stands at {kills}.",
        "Return the number that `memory.events` shows after the kill, as an int.",
    )


class Cage(Exercise):
    """A fork bomb in a group with pids.max."""

    name = "cage"
    title = "Survive a fork bomb"
    points = 2
    seconds = 60.0
    start = "Begin with the limit: one line in `pids.max`. Then fork, and let the child do the rest."
    hints = (
        (
            "Four things: a limit, a fork, a child in the group, the bomb. In which order, and which of them does the "
            "child do?"
        ),
        (
            "Whoever forks has children in its own group. So the child must be in the group *before* it calls `bomb`, "
            'and the parent never. A process joins by writing its PID, or `"0"` for itself, to `cgroup.procs`.'
        ),
        ('`write(group, "pids.max", most)`; `if os.fork() == 0:` `write(group, "cgroup.procs", 0)`; `bomb()`.'),
    )
    because = (
        "The limit stands before the first process is in, and the process is in before it does anything. Between the "
        "fork and the joining only our own code runs."
    )

    def check(self, cage: Callable[[str, int, Callable[[], None]], object]) -> Verdict:
        """Let it set off a bomb that ends at a number of its own; look where its processes are."""
        most, name = self.draw_number(8, 15), self.draw_name("shop")
        with Quarter(self.draw_name("quarter")) as quarter:
            path, folder = quarter.make(name, ("pids",)), quarter.outside / name
            with spawn(cage, path, most, Bomb(most * 2), wait=False) as child:
                returned = child.answered(pace.scaled(5.0))
                refused = returned and until(lambda: count(folder, "pids.events", "max") >= 3, 10.0)
                outside = [pid for pid in procfs.descendants(child.pid) if not group_of(pid).endswith(name)]
                caught = child.pid in processes(folder)
                mistake = _not_caged(folder, most, returned, caught, len(outside))
                inside, times = len(processes(folder)), count(folder, "pids.events", "max")
                if mistake:
                    return mistake
                if not refused:
                    return NotYet(
                        f"The group may have {most} processes and holds {inside}; none was refused to it.",
                        "Has the bomb been set off in it? It must be called in a child, and nobody may stop it.",
                    )
                Path(folder, "cgroup.kill").write_text("1")
                ended = until(lambda: not processes(folder), 10.0)
            if not ended:
                return NotYet("The group could not be emptied.", "Does something move processes in again?")
            return Passed(
                f"The bomb wanted {most * 2} processes and never had more than {most}: {times} times the kernel "
                f"refused it one. All {inside} were in `{name}`, and one line in `cgroup.kill` ended them.",
                "Nobody had to be quicker than the bomb: each fork asks the kernel, and the kernel counts.",
            )


class Bomb:
    """A fork bomb that stops by itself at a number of processes, and ends by itself after some time."""

    def __init__(self, processes: int) -> None:
        self.processes = processes

    def __call__(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 40)
        stressors.explode(self.processes)


def _not_caged(folder: Path, most: int, returned: bool, caught: bool, outside: int) -> Verdict | None:
    limit = read(folder, "pids.max")
    if not returned:
        return NotYet(
            f"Your function had not returned after {pace.scaled(5):.3g} seconds: the bomb goes off in the very process "
            "that called it.",
            "`bomb()` never returns. Who could call it instead? (`os.fork()`)",
        )
    if caught:
        return NotYet(
            "The process that called your function is in the group too: it shares the bomb's limit, and will be killed "
            "with it.",
            "The limit is for the child. Which process writes to `cgroup.procs`, and at what moment?",
        )
    if outside:
        return NotYet(
            f"{outside} process{'es' if outside > 1 else ''} of the bomb run outside of the group, where nothing "
            "limits them.",
            "A child is born in the group of its parent, and does not move when the parent does. Was the child in the "
            "group *before* it called `bomb`?",
        )
    if limit == "max":
        return NotYet(
            "`pids.max` of the group says `max`: any number of processes.", "Which file takes the number, and when?"
        )
    if limit != str(most):
        return NotYet(
            f"`pids.max` of the group says `{limit}`, and was to be {most}.", "The number is the second argument."
        )
    if (inside := len(processes(folder))) > most:
        return NotYet(
            f"The limit is {most}, and {inside} processes are in the group: it came too late.",
            "A limit refuses the next fork; it ends nobody. What must come first?",
        )
    return None


class Delegate(Exercise):
    """Hand a group over to an ordinary user."""

    name = "delegate"
    title = "Delegate a group to an ordinary user"
    points = 2
    seconds = 40.0
    start = "Begin with the folder itself: `os.chown` lets its new owner make groups in it."
    hints = (
        (
            "Three things a user needs to rule a part of the tree: to make groups in it, to move processes within it, "
            "to hand controllers on in it. Each of them is a permission to write; to which file?"
        ),
        (
            "The folder, `cgroup.procs` and `cgroup.subtree_control`. Everything else stays root's, the limits above "
            "all: they are what root has granted. `os.chown(path, uid, gid)` changes the owner."
        ),
        (
            'For each of `group`, `f"{group}/cgroup.procs"` and `f"{group}/cgroup.subtree_control"`: '
            "`os.chown(one, uid, gid)`."
        ),
    )
    because = (
        "The limits of a group are a matter of its *parent*: they say what the parent grants. So their files stay with "
        "the parent's owner, and the user shares out below what root has given."
    )

    def check(self, delegate: Callable[[str, int, int], object]) -> Verdict:
        """Put a process of that user into the group, and let it try what it should be able to, and what not."""
        uid, stranger = self.random.sample(range(2000, 60000), 2)
        name = self.draw_name("shop")
        with Quarter(self.draw_name("quarter")) as quarter:
            path = quarter.make(name, ("pids", "memory"), pids_max=50)
            quarter.make(NEXT_DOOR, ())
            with spawn(delegate, path, uid, uid) as child:
                if group_of(child.pid).endswith(name):
                    return NotYet(
                        f"Process {child.pid}, which ran your function, is in the group: it would block its new owner, "
                        "who cannot move it.",
                        "To hand a group over nobody has to be in it.",
                    )
            tried = try_as(quarter, name, uid)
            return _delegated(tried, try_as(quarter, name, stranger), uid)


def _delegated(tried: Attempts, strangers: Attempts, uid: int) -> Verdict:
    if strangers.make or strangers.move:
        return NotYet(
            "Another user, to whom nothing was given, can use the group too.",
            "`chmod` opens it for everybody. Which call gives it to one user?",
        )
    if tried.lift:
        return NotYet(
            f"User {uid} can write to `pids.max` of the group: they lift their own limit, and it is none.",
            "The limits are what root grants to the group. Which three things does the user need, and which not?",
        )
    for done, what, how in (
        (tried.make, "make a group in it", "To make a folder one must be able to write to the folder it is made in."),
        (
            tried.move,
            "move their own process from it into a group below",
            (
                "The kernel asks for permission to write to `cgroup.procs` of where the process goes, and of the group "
                "that is above both places."
            ),
        ),
        (
            tried.hand_on,
            "hand the controller `pids` on to the groups below it",
            "Which file of the group says what it hands on?",
        ),
    ):
        if not done:
            return NotYet(f"User {uid} cannot {what}.", how)
    if tried.leave:
        return NotYet(
            f"User {uid} can move a process out of the group, and so out of all its limits.",
            "You have given them more than this group: which group above it is theirs now?",
        )
    return Passed(
        f"User {uid} made a group, moved a process into it, and handed `pids` on. They could not lift the limit of 50 "
        "processes, and not leave.",
        "This is what systemd's `Delegate=yes` does for a user's session, and what rootless containers live on.",
    )
