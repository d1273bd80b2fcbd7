"""Lab 03: each likely mistake gets its own message, and other right ways than the course's pass."""

import pytest

from labkit.course.authoring.trial import attempt
from labkit.course.framework.outcomes import NotYet, Passed
from labkit.course.source import lab_source

SOLVED = {cell.exercise: cell.solved for cell in lab_source.read(lab_source.path_of("03")) if cell.exercise}


def changed(name: str, old: str, new: str) -> tuple[str, str]:
    """The course's solution of an exercise, with one thing wrong."""
    assert old in SOLVED[name]
    return name, SOLVED[name].replace(old, new)


MISTAKES = {
    "entry and exit": (
        "count",
        """
def count_calls(command):
    counts, standing = Counter(), {}
    ptrace.resume(ptrace.start(command, ptrace.TRACESYSGOOD | ptrace.ALL_CHILDREN))
    while True:
        try:
            pid, status = os.waitpid(-1, ptrace.WALL)
        except ChildProcessError:
            return counts
        if not os.WIFSTOPPED(status):
            continue
        why = os.WSTOPSIG(status)
        if why == ptrace.SYSCALL_STOP:
            call = ptrace.syscall_info(pid)
            if isinstance(call, ptrace.Entering):
                standing[pid] = ptrace.name(call.number)
            counts[standing.get(pid)] += 1
        ptrace.resume(pid, 0 if why == ptrace.SYSCALL_STOP or ptrace.event(status) else why)
""",
        "Which of the two is the call",
    ),
    "first process only": (*changed("count", " | ptrace.ALL_CHILDREN", ""), "went unseen"),
    "no threads": (
        *changed("count", "ptrace.ALL_CHILDREN", "ptrace.TRACEFORK | ptrace.TRACEVFORK"),
        "Its thread went unseen",
    ),
    "signals kept": (*changed("count", "pass_on = number", "pass"), "SIGUSR1"),
    "numbers for names": (*changed("count", "ptrace.name(call.number)", "call.number"), "`ptrace.name(number)`"),
    "a list": (*changed("count", "return counts", "return list(counts)"), "It returns a Counter"),
    "ends with the first process": (
        *changed("count", "continue  # it has ended", "return counts"),
        "who ends first need not be the last",
    ),
    "never resumed": (*changed("count", "    ptrace.resume(first)\n", ""), "had not returned after"),
    "one kind of call left out": (
        *changed("count", "counts[ptrace.name(call.number)]", "counts[ptrace.name(call.number).replace('brk', 'b')]"),
        "according to strace",
    ),
    "byte by byte": (
        "copy",
        "def copy(source, target):\n    copy_byte_by_byte(source, target)\n",
        "How many bytes does each",
    ),
    "one piece only": (
        "copy",
        """
def copy(source, target):
    reader = os.open(source, os.O_RDONLY)
    writer = os.open(target, os.O_WRONLY | os.O_CREAT)
    os.write(writer, os.read(reader, 8192))
""",
        "When is the end reached",
    ),
    "nothing copied": ("copy", "def copy(source, target):\n    open(source).close\n", "no file at `target`"),
    "no filter": (
        *changed("refuse", "    seccomp.load(seccomp.compile_profile(profile))\n", ""),
        "has made two folders",
    ),
    "mkdir alone": (*changed("refuse", '("mkdir", "mkdirat")', '("mkdir",)'), "by `mkdirat` the command has made"),
    "mkdirat alone": (*changed("refuse", '("mkdir", "mkdirat")', '("mkdirat",)'), "by `mkdir` the command has made"),
    "another errno": (*changed("refuse", "EPERM", "13"), "EACCES"),
    "killed": (*changed("refuse", '"SCMP_ACT_ERRNO", EPERM', '"SCMP_ACT_KILL_PROCESS"'), "ended by a signal"),
    "never executed": (*changed("refuse", "    os.execvp(command[0], command)", ""), "the command never ran"),
    "too much": (*changed("refuse", '"mkdirat")', '"mkdirat", "openat")'), "Something that it needs was refused"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gets_its_own_message(mistake: str) -> None:
    exercise, code, words = MISTAKES[mistake]
    outcome = attempt("03", exercise, code)
    assert isinstance(outcome, NotYet), outcome
    assert words in outcome.seen + outcome.why, outcome


RIGHT = {
    "the package's own tracer": (
        "count",
        """
def count_calls(command):
    with Tracer() as tracer:
        tracer.start(command)
        return Counter(call.name for call in tracer)
""",
    ),
    "a dictionary, and every signal but the traps passed on": (
        "count",
        """
def count_calls(command):
    counts = {}
    pid = ptrace.start(command, ptrace.TRACESYSGOOD | ptrace.TRACEFORK | ptrace.TRACEVFORK | ptrace.TRACECLONE)
    left = {pid}
    ptrace.resume(pid)
    while left:
        pid, status = os.waitpid(-1, ptrace.WALL)
        left.add(pid)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            left.discard(pid)
            continue
        why = os.WSTOPSIG(status)
        if why & 0x80:
            match ptrace.syscall_info(pid):
                case ptrace.Entering(number, _):
                    name = ptrace.name(number)
                    counts[name] = counts.get(name, 0) + 1
        ptrace.resume(pid, why if why not in (signal.SIGTRAP, ptrace.SYSCALL_STOP, signal.SIGSTOP) else 0)
    return counts
""",
    ),
    "shutil": ("copy", "def copy(source, target):\n    import shutil\n    shutil.copyfile(source, target)\n"),
    "descriptors, in pieces": (
        "copy",
        """
def copy(source, target):
    reader = os.open(source, os.O_RDONLY)
    writer = os.open(target, os.O_WRONLY | os.O_CREAT, 0o600)
    while piece := os.read(reader, 8192):
        os.write(writer, piece)
""",
    ),
    "two rules": (
        "refuse",
        """
def run_without_mkdir(command):
    rules = [seccomp.Rule(name, "SCMP_ACT_ERRNO", EPERM) for name in ("mkdir", "mkdirat")]
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    seccomp.load(seccomp.compile_profile(seccomp.Profile("SCMP_ACT_ALLOW", None, (), rules)))
    os.execv(command[0], command)
""",
    ),
}


@pytest.mark.parametrize("way", RIGHT)
def test_other_right_ways_pass(way: str) -> None:
    outcome = attempt("03", *RIGHT[way])
    assert isinstance(outcome, Passed), outcome
