"""The exercises of lab 03: a tracer, fewer calls, one call refused."""

import os
import pickle
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle

from labkit import syscalls, temporary
from labkit.course.exercises.common.left_behind import Ear, read_regular
from labkit.course.exercises.lab03.refused import MAKES, Traced, no_report, refused_too_little, report_of, traced
from labkit.course.exercises.lab03.trace_checks import (
    ASKS,
    START,
    by_its_own_tracer,
    no_counts,
    not_as_strace,
    numbers_said,
    wrong_number,
)
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet, Passed, Verdict
from labkit.process import run_in_child
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
        with temporary.Folder() as folder, Ear(self.draw_name("numbers")) as ear:
            marker = Path(folder, self.draw_name("marker"))
            command = [sys.executable, "-I", "-S", "-c", ASKS, str(marker), ear.name]
            counts: Any = run_in_child(by_its_own_tracer, count, command)
            if mistake := no_counts(counts):
                return mistake
            numbers = numbers_said(ear.heard())
            if isinstance(numbers, NotYet):
                return numbers
            if mistake := wrong_number(counts, numbers, os.path.lexists(marker)):
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
        """Copy a file of random bytes, watched from outside; where that has not copied it, once more, to see why."""
        content = self.random.randbytes(self.draw_number(25_000, 35_000))
        with temporary.Folder() as folder:
            source, target, again = (os.path.join(folder, self.draw_name(name)) for name in ("a", "b", "c"))
            Path(source).write_bytes(content)
            counts = run_in_child(_calls_of, cloudpickle.dumps((copy, source, again)))
            if read_regular(again) != content:
                run_in_child(copy, source, target)
                return _not_copied(content, target)
            if os.path.samefile(source, again):
                return NotYet("`target` is no copy, but a second name of the source.", "What is in it must be written.")
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


def _not_copied(content: bytes, target: str) -> NotYet:
    if not os.path.lexists(target):
        return NotYet("There is no file at `target`.", "It must be made: opened for writing, and written to.")
    copied = read_regular(target)
    if copied is None:
        return NotYet("What is at `target` is no regular file.", "A copy is a file of its own.")
    if copied == content:
        return NotYet("Called twice, it has copied the file only once.", "Does it depend on what was there before?")
    return NotYet(
        f"The source has {len(content)} bytes, and the copy {len(copied)}"
        + (", which differ." if len(copied) == len(content) else "."),
        "A single `read` may return less than there is. When is the end reached, and is all of it written?",
    )


def _calls_of(call: bytes) -> Counter[str]:
    """The calls of a pickled (function, its arguments), between two marks: what Python does besides is not its affair.

    The function is unpickled by the process that is watched, so that nothing of it runs in the one that watches. What
    it has others do for it, threads and processes, counts wherever it is.
    """
    with Tracer() as tracer:
        first = tracer.start(lambda: _between_marks(call))
        calls = [(one.pid, one.name) for one in tracer]
    marks = [place for place, one in enumerate(calls) if one == (first, "getpgid")]
    if len(marks) < 2:  # it has raised something
        return Counter()
    return Counter(name for place, (pid, name) in enumerate(calls) if pid != first or marks[0] < place < marks[-1])


def _between_marks(call: bytes) -> None:
    syscalls.close_range(3)  # what the process that watches has open: its way to the judge above all
    copy, source, target = pickle.loads(call)
    os.getpgid(0)
    copy(source, target)
    os.getpgid(0)


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
        """Let a program try, traced from outside, and look at what the kernel answers it."""
        with temporary.Folder() as folder:
            place = Path(folder, self.draw_name("place"))
            place.mkdir()
            command = [sys.executable, "-I", "-S", "-c", MAKES, str(place)]
            seen = Traced(*run_in_child(traced, cloudpickle.dumps((refuse, command)), command[0]))
            made = sorted(os.listdir(place))
            found = report_of(seen, command, made)
            if found is None:
                if not seen.became:  # it may have raised something: then this does, too
                    run_in_child(refuse, command)
                return no_report(seen)
        if isinstance(found, NotYet):
            return found
        return refused_too_little(found, made) or Passed(
            "The command asked for a folder in both ways, and the kernel refused both with EPERM. Its file was made as "
            "ever.",
            "Nothing in the command was changed. The same door, and another answer.",
        )
