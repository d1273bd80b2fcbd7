"""The exercises of lab 03: a tracer, fewer calls, one call refused."""

import functools
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit import temporary
from labkit.lab import Exercise, NotYet, Passed, Verdict
from labkit.lab.exercises.counting import ASKS, START, no_counts, not_as_strace, wrong_number
from labkit.lab.exercises.refusing import MAKES, became_and_ended, no_report, refused_too_little
from labkit.process import run_in_child, spawn
from labkit.tracer import Tracer


class Count(Exercise):
    """A tracer."""

    name = "count"
    title = "A tracer of your own"
    points = 3
    start = START
    seconds = 20.0
    hints = (
        (
            "A loop around `os.waitpid(-1, ptrace.WALL)`: each turn is one process that has stopped or ended. It ends "
            "when nobody is left. What has to be done for one that has stopped, whatever the reason?"
        ),
        (
            "Ask `ptrace.syscall_info(pid)` at each `SYSCALL_STOP`, and count only what is a `ptrace.Entering`. Every "
            "stopped process must be resumed, and a signal that is nobody's event goes along."
        ),
        (
            "`number = os.WSTOPSIG(status)`; if it is `ptrace.SYSCALL_STOP` count; `elif not ptrace.event(status): "
            "pass_on = number`; then `ptrace.resume(pid, pass_on)`, with `pass_on = 0` in all other cases."
        ),
    )
    because = (
        "One loop serves any number of processes, since `waitpid(-1)` gives whoever has something to say. Only entries "
        "are counted: a call that never returns, such as exit_group, has no other side."
    )

    def check(self, count: Callable[[list[str]], object]) -> Verdict:
        """Have a program with known numbers counted; then compare with strace."""
        numbers = self.draw_number(40, 60), self.draw_number(100, 130), self.draw_number(200, 240)
        with temporary.Folder() as folder:
            marker = Path(folder, self.draw_name("marker"))
            command = [sys.executable, "-I", "-S", "-c", ASKS, *map(str, numbers), str(marker)]
            counts: Any = run_in_child(count, command)
            if mistake := no_counts(counts) or wrong_number(counts, numbers, marker.exists()):
                return mistake
        if mistake := not_as_strace(count):
            return mistake
        compared = "and of `cat` it counts what strace counts" if shutil.which("strace") else "strace is not here"
        return Passed(
            f"A program asked for its parent {sum(numbers)} times: {numbers[0]} times itself, {numbers[1]} in a child, "
            f"{numbers[2]} in a thread. Your tracer has seen all of them, among many other calls; {compared}.",
            "Nothing that a program asks of the kernel escapes whoever stands at this door.",
        )


class Copy(Exercise):
    """Fewer calls."""

    name = "copy"
    title = "Fewer questions"
    start = "Begin by reading more than one byte at once."
    seconds = 30.0
    most = 40
    hints = (
        "Every `read` and every `write` on an unbuffered file is one system call, however much it carries.",
        "`reader.read()` without a number reads all of it. Or read 64 KiB at a time, until nothing comes any more.",
        "`with open(source, 'rb') as reader, open(target, 'wb') as writer: writer.write(reader.read())`",
    )
    because = (
        "Both files are buffered, and all bytes go in one piece: a handful of calls, most of them for opening. Files "
        "larger than memory are read in pieces of, say, 1 MiB; `shutil.copyfile` asks the kernel to copy by itself."
    )

    def check(self, copy: Callable[[str, str], object]) -> Verdict:
        """Copy a file of random bytes; then once more, watched."""
        content = self.random.randbytes(self.draw_number(25_000, 35_000))
        with temporary.Folder() as folder:
            source, target, again = (os.path.join(folder, self.draw_name(name)) for name in ("a", "b", "c"))
            Path(source).write_bytes(content)
            run_in_child(copy, source, target)
            if not os.path.exists(target):
                return NotYet("There is no file at `target`.", "It must be made: opened for writing, and written to.")
            copied = Path(target).read_bytes()
            if copied != content:
                return NotYet(
                    f"The source has {len(content)} bytes, and the copy {len(copied)}"
                    + (", which differ." if len(copied) == len(content) else "."),
                    "A single `read` may return less than there is. When is the end reached, and is all of it written?",
                )
            counts = run_in_child(_calls_of, functools.partial(copy, source, again))
        if sum(counts.values()) > self.most:
            name, times = counts.most_common(1)[0]
            return NotYet(
                f"It took {sum(counts.values())} system calls, {times} of them `{name}`.",
                f"At most {self.most} are allowed. How many bytes does each `{name}` carry, and how many could it?",
            )
        return Passed(
            f"{len(content)} bytes were copied, with no more than {self.most} system calls.",
            "The door costs the same for one byte as for thousands, so whoever has much to say says it at once.",
        )


def _calls_of(fn: Callable[[], object]) -> Counter[str]:
    """The calls that `fn` makes between two marks: what Python does before and after is not its affair."""
    with Tracer() as tracer:
        tracer.start(lambda: (os.getpgid(0), fn(), os.getpgid(0)))
        names = [call.name for call in tracer]
    marks = [place for place, name in enumerate(names) if name == "getpgid"]
    return Counter(names[marks[0] + 1 : marks[-1]])


class Refuse(Exercise):
    """One call refused."""

    name = "refuse"
    title = "Refuse one call"
    points = 2
    start = "Begin with a profile that allows everything but the calls that make a folder."
    seconds = 20.0
    hints = (
        (
            "Three steps: a profile, its filter put on this process, and then become the command. What must a process "
            "give up first, so that it may filter itself?"
        ),
        "`prctl(PR_SET_NO_NEW_PRIVS, 1)`, then `seccomp.load(seccomp.compile_profile(profile))`, then `os.execvp`.",
        '`seccomp.Rule(("mkdir", "mkdirat"), "SCMP_ACT_ERRNO", EPERM)` is the rule; the default is "SCMP_ACT_ALLOW".',
    )
    because = (
        "The older call takes a path, the newer one a folder's descriptor and a name: whoever refuses one and forgets "
        "the other has refused nothing. That is why real profiles are lists of what is *allowed*."
    )

    def check(self, refuse: Callable[[list[str]], object]) -> Verdict:
        """Let a program try, and look at what it could make."""
        with temporary.Folder() as folder:
            place, report = Path(folder, "place"), Path(folder, self.draw_name("report"))
            place.mkdir()
            command = [sys.executable, "-I", "-S", "-c", MAKES, str(place), str(report)]
            with spawn(refuse, command, wait=False) as child:
                if not became_and_ended(child, 15.0):
                    return NotYet("The command had not ended after 15 seconds.", "Does it run at all, or wait?")
                returned = child.alive
                status = None if returned else child.wait()
            made = sorted(path.name for path in place.iterdir())
            if not report.exists():
                return no_report(returned, status)
            found = json.loads(report.read_text())
        return refused_too_little(found, made) or Passed(
            "The command asked for a folder in both ways, and the kernel refused both with EPERM. Its file was made as "
            "ever.",
            "Nothing in the command was changed. The same door, and another answer.",
        )
