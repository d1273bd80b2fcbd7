"""Hidden checks for lab 05: an example for instructors. Keep yours where learners do not look.

    ./lab grade submissions --hidden FOLDER        # FOLDER holds lab05.py, and so on

A class here is a further check of the exercise of the same `name`. It is called with what the lab's own check is given,
asks other questions of it, and counts as much. Learners see that it was not passed and its `why`, not what was seen: so
`why` names the kind of question, and no answer. Everything that a lab's own checks use may be used here.

What a check looks at, it looks at from outside: in processes of its own, or in /proc. A process in which an answer has
run says what the answer wants it to say.
"""

import signal
import threading
from collections.abc import Callable

from labkit import host
from labkit.constants import CLONE_NEWUTS
from labkit.course.exercises.common import hostname
from labkit.course.exercises.common.hostname import uts
from labkit.lab import Exercise, NotYet, Passed, Verdict
from labkit.process import run_in_child, spawn
from labkit.syscalls import sethostname, unshare

NAME_MAX = 64  # characters of a hostname, HOST_NAME_MAX


class Isolate(Exercise):
    """Names of other kinds; and called again by a process that is isolated already."""

    name = "isolate"
    title = "A hostname of its own, whatever the name, and again"

    def check(self, isolate: Callable[[str], object]) -> Verdict:
        """Any name that the kernel takes; then twice in one process."""
        token = self.draw_name("x")
        for wanted in (token.ljust(NAME_MAX, "y"), token[-1], f"{token}.example.org", "labhost"):
            with hostname.lab_host_restored() as before, spawn(isolate, wanted) as child:
                if child.alive and uts(child.pid) == uts(host.pid()):
                    return NotYet(f"Called with `{wanted}`, the child stays where it is.", _ANY_NAME)
                if hostname.of(child.pid) != wanted or hostname.of(host.pid()) != before:
                    return NotYet(f"Called with `{wanted}`, a name is not as it should be.", _ANY_NAME)
        first, second = self.draw_name("first"), self.draw_name("second")
        with hostname.lab_host_restored(), spawn(isolate, first) as child:
            earlier = uts(child.pid)
            child.call(isolate, second)
            if uts(child.pid) == earlier or hostname.of(child.pid) != second:
                return NotYet("Called twice, the process is still where the first call had left it.", _AGAIN)
        return Passed("Names of every length, and two calls in one process.", "Nothing in it is made for one name.")


_ANY_NAME = "Every name that the kernel takes is a name. Does anything in the answer depend on what it looks like?"
_AGAIN = "A function may be called more than once. Does each call do all of it?"


class Together(Exercise):
    """The same process twice, names that change, a process whose threads are not all in one place."""

    name = "together"
    title = "The same namespace: the odd cases"

    def check(self, together: Callable[[int, int], object]) -> Verdict:
        """Ask about pairs that differ in what does not matter, and agree in what does not matter."""
        one_name, other_name = self.draw_name("one"), self.draw_name("other")
        with (
            spawn(_isolated, one_name) as one,
            spawn(_isolated, other_name) as other,
            spawn(int) as at_home,
            spawn(int) as at_home_too,
            spawn(_with_a_thread_elsewhere, one_name) as split,
        ):
            one.call(sethostname, other_name)
            asked = [
                (one.pid, one.pid, True),
                (at_home.pid, at_home_too.pid, True),
                (one.pid, other.pid, False),
                (split.pid, at_home.pid, True),
                (split.pid, one.pid, False),
            ]
            self.random.shuffle(asked)
            for first, second, truth in asked:
                if bool(run_in_child(together, first, second)) is not truth:
                    return NotYet(
                        f"For processes {first} and {second} the answer was wrong.",
                        "Two processes may be the same, may have been renamed, may have threads. What is asked is "
                        "where each *process* is now.",
                    )
        return Passed("Five pairs of another kind than the notebook's.", "It asks the kernel, and nobody else.")


class Join(Exercise):
    """From one namespace into the next."""

    name = "join"
    title = "Into one namespace, and on into another"

    def check(self, join: Callable[[int], object]) -> Verdict:
        """Join two in turn, the second by a process that is not where it began; and the lab host's own."""
        with (
            hostname.lab_host_restored(),
            spawn(_isolated, self.draw_name("first")) as first,
            spawn(_isolated, self.draw_name("second")) as second,
            spawn(int) as at_home,
            spawn(join, first.pid) as child,
        ):
            for target in (second, at_home, first):
                child.call(join, target.pid)
                if uts(child.pid) != uts(target.pid):
                    return NotYet(
                        "A process that had joined one namespace was to join another, and is elsewhere.",
                        "A process may go from any namespace into any other. Does the answer assume where it begins?",
                    )
        return Passed("One process has joined four namespaces in turn.", "It goes where it is told to, from anywhere.")


def _isolated(name: str) -> None:
    unshare(CLONE_NEWUTS)
    sethostname(name)


def _with_a_thread_elsewhere(name: str) -> None:
    """The first thread stays on the lab host; another one of the process goes into a namespace of its own."""
    gone = threading.Event()

    def go() -> None:
        _isolated(name)
        gone.set()
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        signal.sigwait([signal.SIGRTMAX])

    threading.Thread(target=go, daemon=True).start()
    gone.wait(5)
