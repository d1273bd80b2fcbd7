"""What is wrong with counts of system calls: of a program whose numbers are known, and beside strace."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from labkit import rootfs, temporary
from labkit.constants import MS_BIND
from labkit.course.exercises.common.mount_stand_in import private_mounts
from labkit.course.framework import pace
from labkit.course.framework.outcomes import NotAttempted, NotYet, Verdict
from labkit.process import spawn
from labkit.syscalls import mount

#: A program that asks for its parent's PID many times itself, in a child and in a thread, and sends itself a signal.
#: How many times it draws itself: nothing in its command line says it, and it tells the check alone (`outside.Ear`).
ASKS = """
import os, random, signal, socket, sys, threading
marker, ear = sys.argv[1:]
draw = random.SystemRandom().randint
itself, child, thread = draw(40, 60), draw(100, 130), draw(200, 240)
words = f"{itself} {child} {thread}".encode()
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(words, chr(0) + ear)
signal.signal(signal.SIGUSR1, lambda *_: open(marker, "w").close())
os.kill(os.getpid(), signal.SIGUSR1)
for _ in range(itself): os.getppid()
if os.fork() == 0:
    for _ in range(child): os.getppid()
    os._exit(0)
os.wait()
begun = threading.Thread(target=lambda: [os.getppid() for _ in range(thread)])
begun.start()
begun.join()
"""


START = "Begin with `ptrace.start(command, ptrace.TRACESYSGOOD | ptrace.ALL_CHILDREN)`, and resume what it started."


def no_counts(counts: object) -> Verdict | None:
    if counts is None:
        return NotAttempted(f"`count_calls()` returns None, and nothing was counted. {START}")
    if not isinstance(counts, Mapping):
        return NotYet(
            f"`count_calls()` returned {counts!r:.80}.", "It returns a Counter, or a dictionary: name → number."
        )
    if any(not isinstance(name, str) for name in counts):
        return NotYet(
            f"The counts are by {next(name for name in counts if not isinstance(name, str))!r:.40} and the like.",
            "A number says little to a reader. `ptrace.name(number)` has the name.",
        )
    return None


def numbers_said(said: tuple[bytes, int] | None) -> tuple[int, int, int] | NotYet:
    """The numbers that the program has drawn, as it told them; or that it told none."""
    words = said[0].split() if said else []
    if len(words) == 3 and all(word.isdigit() and len(word) < 4 for word in words):
        itself, child, thread = map(int, words)
        return itself, child, thread
    return NotYet("The command was not carried out.", "`ptrace.start` starts it, and `ptrace.resume` lets it go on.")


def wrong_number(counts: Mapping[str, int], numbers: tuple[int, int, int], signalled: bool) -> NotYet | None:
    """What the number of getppid calls says about the tracer."""
    itself, child, thread = numbers
    seen = counts.get("getppid", 0)
    said = f"The program asked for its parent {sum(numbers)} times in all, and your tracer counts {seen}."
    if not signalled:
        return NotYet(
            "The program sent itself SIGUSR1, and its handler never ran: the signal has not arrived.",
            "A signal stops the process, so that the tracer sees it first. Who delivers it then? See the last line of "
            "the table, and the second argument of `resume`.",
        )
    if seen == sum(numbers):
        return None
    if seen in (2 * sum(numbers), 2 * itself):
        return NotYet(
            said + " That is twice too many of those that it has seen.",
            "Each call stops the process twice. Which of the two is the call, and which its answer?",
        )
    if seen == itself:
        return NotYet(
            f"{said} That is what it asked itself; its child and its thread went unseen.",
            "What is started by a watched process is watched only if its options say so. Which options does "
            "`ptrace.start` take for that, and does your loop wait for everybody, or for the first one?",
        )
    unseen = {
        itself + child: ("thread", "TRACECLONE"),
        itself + thread: ("child", "TRACEFORK and TRACEVFORK"),
    }
    if seen in unseen:
        who, option = unseen[seen]
        return NotYet(
            f"{said} Its {who} went unseen.",
            f"That takes {option}; `ptrace.ALL_CHILDREN` has them all. And the loop must go on until nobody is left: "
            "who ends first need not be the last.",
        )
    return NotYet(
        said,
        "Does every stop lead to one `resume`, and is every `SYSCALL_STOP` looked at, whoever has stopped?",
    )


def by_its_own_tracer(count: Callable[[list[str]], Any], command: list[str]) -> Any:
    """In a child: have it count where there is no strace to ask: what lies in its place cannot be executed."""
    if path := shutil.which("strace"):
        private_mounts()
        mount(os.devnull, os.path.realpath(path), None, MS_BIND)
    return count(command)


def not_as_strace(count: Callable[[list[str]], object]) -> NotYet | None:
    """A difference between these counts and strace's, of a command that makes the same calls each time."""
    if shutil.which("strace") is None:
        return None
    command = [str(rootfs.find("busybox") / "bin/busybox"), "cat", "/etc/passwd"]
    with spawn(_quiet, count, command) as child:
        ours = Counter(child.value)
    theirs = _straced(command)
    del ours["exit_group"]  # strace counts calls that have returned
    for name in sorted(set(ours) | set(theirs)):
        if ours[name] != theirs[name]:
            return NotYet(
                f"Of `{name}`, `cat` makes {theirs[name]} according to strace, and {ours[name]} according to you.",
                "Where does the counting begin, and where does it end? The first call of a command is its `execve`.",
            )
    return None


def _quiet(count: Callable[[list[str]], Any], command: list[str]) -> dict[str, int]:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return dict(count(command))


def _straced(command: list[str]) -> Counter[str]:
    with temporary.Folder() as folder:
        out = Path(folder, "counts")
        argv = ["strace", "-f", "-qq", "-c", "-U", "name,calls", "-o", str(out), *command]
        subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=pace.scaled(20))
        rows = [line.split() for line in out.read_text().splitlines()] if out.exists() else []
    return Counter({row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit() and row[0] != "total"})
