"""The exercises of the toy lab that the framework's tests play with."""

from collections.abc import Callable

from labkit import host, procfs
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotAttempted, NotYet, Passed, Verdict
from labkit.process import spawn


class Isolate(Exercise):
    """A hostname of its own."""

    name = "isolate"
    title = "A hostname of its own"
    start = "Begin with `unshare`."
    hints = ("Which call makes a namespace?", "Look at `unshare(2)`.", "`unshare(CLONE_NEWUTS)`, then `sethostname`.")
    because = "The namespace comes first: then the name is its own."
    seconds = 3.0

    def check(self, isolate: Callable[[str], object]) -> Verdict:
        """Look at the child's UTS namespace."""
        hostname = self.draw_name()
        with spawn(isolate, hostname) as child:
            uts = procfs.namespace_inode(child.pid, "uts")
            found = child.call(_nodename)
            if uts == procfs.namespace_inode(host.pid(), "uts"):
                return NotYet(f"The child is in uts:[{uts}], and so is the lab host.", "Which call comes first?")
            if found != hostname:
                return NotYet(f"The child's hostname is `{found}`.", f"It was asked to be `{hostname}`.")
        return Passed(f"The child is `{found}` in uts:[{uts}], process {child.pid}.", "Names need not be shared.")


class Count(Exercise):
    """A number."""

    name = "count"
    title = "How many"

    def check(self, count: Callable[[], int | None]) -> Verdict:
        """Compare the answer."""
        answer = count()
        if answer is None:
            return NotAttempted("`count()` still gives None. Count them.")
        if answer == 13:
            raise KeyError("a fault of the check")
        return Passed("1", "One is enough.") if answer == 1 else NotYet(f"{answer}", "Count again.")


def _nodename() -> str:
    import os

    return os.uname().nodename
