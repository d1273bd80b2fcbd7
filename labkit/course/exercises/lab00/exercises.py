"""The exercises of lab 00: a first success, and a lab host made as new."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from labkit import host, procfs, temporary
from labkit.constants import MNT_DETACH
from labkit.course.exercises.common import hostname
from labkit.course.exercises.common.notebook_stand_in import Desk, held
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotAttempted, NotYet, Passed, Verdict
from labkit.host import enter
from labkit.process import Child, run_in_child, spawn
from labkit.syscalls import mount, sethostname, umount2


class Rename(Exercise):
    """A new name for a child, and for nobody else."""

    name = "rename"
    title = "A new name for the child alone"
    start = "Under `unshare` one line is missing: the one that sets the name. The function above has it."
    hints = (
        "The cell that you observed does the same with a fixed name. Which of its lines sets the name?",
        "`sethostname` takes the new name as its argument. The name to set is the function's own argument, `hostname`.",
        "After `unshare(CLONE_NEWUTS)` write: `sethostname(hostname)`",
    )
    because = (
        "`unshare` first gives the child a hostname of its own, a copy of the lab host's; `sethostname` then changes "
        "that copy and nothing else."
    )

    def check(self, rename: Callable[[str], object]) -> Verdict:
        """Look at the child's and the lab host's hostname."""
        wanted = self.draw_name("first")
        with hostname.lab_host_restored() as before, spawn(rename, wanted) as child:
            if verdict := hostname.own_name(child, wanted, before):
                if child.alive and _is_as_given(child.pid, before):
                    return NotAttempted(
                        f"The child has a place for a name of its own, and is still called `{before}` there. "
                        f"{self.start}"
                    )
                return verdict
        return Passed(
            f"The child was called `{wanted}`, and the lab host is still called `{before}`. Two names at the same "
            "time, under one kernel.",
            "This is the first wall of a container, and you have built it. Its other walls are made in the same way: "
            "one system call gives a process its own copy of something that all had in common.",
        )


class Mend(Exercise):
    """The lab host as new."""

    name = "mend"
    title = "The lab host as new"
    start = "One call on `host`, which is imported above, does all of it."
    hints = (
        "There is no need to undo one thing after the other. What happens to all that is on the lab host when it ends?",
        "Type `host.` and press Tab, or run `help(host)` in a new cell.",
        "`host.reset()`",
    )
    because = (
        "Ending the lab host ends its processes, and its namespaces with its mounts and names go with the last of "
        "them. A list of things to undo could be incomplete; this cannot."
    )
    seconds = 20.0

    def check(self, mend: Callable[[], object]) -> Verdict:
        """Make a mess on the lab host, let `mend` act, and look at what is left of it."""
        odd_name = self.draw_name("mess")
        if self.in_room:
            return _mended_at_a_desk(mend, odd_name)
        with temporary.Folder() as folder:
            run_in_child(sethostname, odd_name)
            run_in_child(mount, "mess", folder, "tmpfs")
            with spawn(hostname.own) as forgotten:
                try:
                    mend()
                    hostname.until(_answers, seconds=5)
                    hostname.until(lambda: not forgotten.alive, seconds=0.5)
                    name = hostname.of(host.pid())
                    return _left(name, forgotten.pid if forgotten.alive else None, _is_mounted(host.pid(), folder))
                finally:
                    _restore(folder)


def _left(name: str, forgotten: int | None, mounted: bool) -> Verdict:
    """What is left of the mess."""
    right: list[str] = []
    wrong: list[str] = []
    (wrong if name != enter.HOST_NAME else right).append(f"its hostname is `{name}`")
    (wrong if forgotten else right).append(f"process {forgotten} still runs" if forgotten else "no process is left")
    (wrong if mounted else right).append("a folder in memory is still mounted" if mounted else "no mount is left")
    if not wrong:
        return Passed(
            f"Before: an odd name, a forgotten process, a folder in memory. Now: {', '.join(right)}.",
            "Nothing that you do on the lab host can outlast it. So try things, break things, and reset.",
        )
    if not right:
        return NotYet(
            f"Nothing has changed on the lab host: {', '.join(wrong)}.",
            "Does your function reach the lab host at all? It runs in the notebook, not in a child.",
        )
    return NotYet(
        f"Part of the mess is gone ({', '.join(right)}), part is still there: {', '.join(wrong)}.",
        "Undoing things one by one works only while you know all of them. Is there a call that ends the lab host "
        "as a whole?",
        share=len(right) / 3,
    )


def _mended_at_a_desk(mend: Callable[[], object], odd_name: str) -> Verdict:
    """The same where `mend` may not run in this process: in one that stands for the notebook."""
    with temporary.Folder() as folder, Desk() as desk:
        forgotten = desk.child.call(_make_a_mess, odd_name, folder)
        with held(desk.host) as its_host, held(forgotten) as process:
            desk.child.call(mend)
            hostname.until(lambda: not process.alive, seconds=5)
            if not its_host.alive:
                return _left(enter.HOST_NAME, forgotten if process.alive else None, False)
            name, mounted = hostname.of(desk.host), _is_mounted(desk.host, folder)
            return _left(name, forgotten if process.alive else None, mounted)


def _make_a_mess(odd_name: str, folder: str) -> int:
    """At the desk: a mess on its lab host; the PID of the process that is forgotten there."""
    run_in_child(sethostname, odd_name)
    run_in_child(mount, "mess", folder, "tmpfs")
    forgotten = spawn(hostname.own)
    _forgotten.append(forgotten)
    return forgotten.pid


_forgotten: list[Child] = []  # at the desk


def _is_as_given(pid: int, host_name: str) -> bool:
    """Whether only the line that the stub comes with has had an effect."""
    moved = hostname.uts(pid) != hostname.uts(host.pid())
    return moved and hostname.of(pid) == host_name == hostname.of(host.pid())


def _answers() -> bool:
    """Whether the lab host, perhaps a new one, runs a child: for a moment after the old one's end it may not."""
    return bool(run_in_child(hostname.own))


def _is_mounted(pid: int, folder: str) -> bool:
    real = os.path.realpath(folder)
    return any(one.mount_point == real for one in procfs.mountinfo(pid))


def _restore(folder: str) -> None:
    """Take away what `mend` may have left, so that the folder can be removed and the name is the usual one."""
    if hostname.of(host.pid()) != enter.HOST_NAME:
        run_in_child(sethostname, enter.HOST_NAME)
    with suppress(OSError):
        run_in_child(umount2, str(Path(folder).resolve()), MNT_DETACH)
