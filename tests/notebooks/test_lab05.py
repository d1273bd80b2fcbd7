"""Lab 05: what each likely mistake is told, and other right ways than the course's."""

import os
import subprocess
import sys

import pytest

from labkit import host
from labkit.course.authoring.trial import attempt
from labkit.course.exercises.common import hostname
from labkit.course.framework.outcomes import NotYet, Passed

# mistake: (exercise, its cell, words that only its message has)
MISTAKES = {
    "set before unshare": (
        "isolate",
        """
def isolate(hostname):
    sethostname(hostname)
    unshare(CLONE_NEWUTS)
""",
        "the name was set before the child had left",
    ),
    "no unshare": (
        "isolate",
        """
def isolate(hostname):
    sethostname(hostname)
""",
        "Everything on the lab host was renamed",
    ),
    "no name": (
        "isolate",
        """
def isolate(hostname):
    unshare(CLONE_NEWUTS)
""",
        "begins with a copy of the old name",
    ),
    "only a local name": (
        "isolate",
        """
def isolate(hostname):
    os.environ["HOSTNAME"] = hostname
""",
        "Nothing has moved the process and nothing has renamed it",
    ),
    "a name first, the right one later": (
        "isolate",
        """
def isolate(hostname):
    sethostname("x" + hostname)
    unshare(CLONE_NEWUTS)
    sethostname(hostname)
""",
        "it was `labhost`",
    ),
    "unshare in a fork, renamed in the parent": (
        "isolate",
        """
def isolate(hostname):
    reader, writer = os.pipe()
    if os.fork() == 0:
        unshare(CLONE_NEWUTS)
        os.write(writer, b"x")
        os.read(os.pipe()[0], 1)
    os.read(reader, 1)
    sethostname(hostname)
""",
        "And the lab host is now called",
    ),
    "all of it in a fork": (
        "isolate",
        """
def isolate(hostname):
    reader, writer = os.pipe()
    pid, _ = clone3(CLONE_NEWUTS)
    if pid == 0:
        sethostname(hostname)
        os.write(writer, b"x")
        os.read(os.pipe()[0], 1)
    os.read(reader, 1)
""",
        "Your function forked",
    ),
    "in a thread": (
        "isolate",
        """
def isolate(hostname):
    left = threading.Event()
    def work():
        unshare(CLONE_NEWUTS)
        sethostname(hostname)
        left.set()
        threading.Event().wait()
    threading.Thread(target=work, daemon=True).start()
    left.wait()
""",
        "Which thread calls it?",
    ),
    "ends by itself": (
        "isolate",
        """
def isolate(hostname):
    os.execvp("unshare", ["unshare", "--uts", "hostname", hostname])
""",
        "ended with exit code 0",
    ),
    "a name that is too long": (
        "isolate",
        """
def isolate(hostname):
    unshare(CLONE_NEWUTS)
    sethostname(hostname * 20)
""",
        "64 bytes at most",
    ),
    "names compared": (
        "together",
        """
def together(first, second):
    return namespaces.inside(first, ("uts",), my_name) == namespaces.inside(second, ("uts",), my_name)
""",
        "the same name can be written in two",
    ),
    "the links compared, not the namespaces": (
        "together",
        """
def together(first, second):
    return os.lstat(f"/proc/{first}/ns/uts").st_ino == os.lstat(f"/proc/{second}/ns/uts").st_ino
""",
        "said False for every pair",
    ),
    "another kind": (
        "together",
        """
def together(first, second):
    return namespaces.inode(first, "mnt") == namespaces.inode(second, "mnt")
""",
        "said True for every pair",
    ),
    "no return": (
        "together",
        """
def together(first, second):
    namespaces.inode(first, "uts") == namespaces.inode(second, "uts")
""",
        "returned None",
    ),
    "upside down": (
        "together",
        """
def together(first, second):
    return namespaces.inode(first, "uts") != namespaces.inode(second, "uts")
""",
        "The right answers are",
    ),
    "joined in a thread that lives": (
        "join",
        """
def join(pid):
    joined = threading.Event()
    def work():
        setns(os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY), CLONE_NEWUTS)
        joined.set()
        threading.Event().wait()
    threading.Thread(target=work, daemon=True).start()
    joined.wait()
""",
        "One of the threads of process",
    ),
    "joined in a thread that has ended": (
        "join",
        """
def join(pid):
    thread = threading.Thread(target=lambda: setns(os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY), CLONE_NEWUTS))
    thread.start()
    thread.join()
""",
        "was that a thread, or a child, that has ended since?",
    ),
    "joined in a fork": (
        "join",
        """
def join(pid):
    reader, writer = os.pipe()
    if os.fork() == 0:
        setns(os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY), CLONE_NEWUTS)
        os.write(writer, b"x")
        os.read(os.pipe()[0], 1)
    os.read(reader, 1)
""",
        "A process that yours has forked",
    ),
    "the same name in a new one": (
        "join",
        """
def join(pid):
    name = namespaces.inside(pid, ("uts",), my_name)
    unshare(CLONE_NEWUTS)
    sethostname(name)
""",
        "two namespaces in which the same name is written",
    ),
    "the same name, not moved": (
        "join",
        """
def join(pid):
    sethostname(namespaces.inside(pid, ("uts",), my_name))
""",
        "To have the same name is not to be in the same namespace",
    ),
    "a new one": (
        "join",
        """
def join(pid):
    unshare(CLONE_NEWUTS)
""",
        "neither the lab host's nor the target's",
    ),
    "no exception for a wrong kind": (
        "join",
        """
def join(pid):
    setns(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY), CLONE_NEWUTS)
""",
        "not of a namespace of this kind",
    ),
    "no file to mount on": (
        "keep",
        """
def keep(hostname, path):
    unshare(CLONE_NEWUTS)
    sethostname(hostname)
    mount("/proc/self/ns/uts", path, None, MS_BIND)
""",
        "must exist before it is mounted on",
    ),
    "nothing at all at path": (
        "keep",
        """
def keep(hostname, path):
    unshare(CLONE_NEWUTS)
    sethostname(hostname)
""",
        "There is nothing at `path`",
    ),
    "an open descriptor": (
        "keep",
        """
def keep(hostname, path):
    unshare(CLONE_NEWUTS)
    sethostname(hostname)
    open(path, "w").close()
    os.open("/proc/self/ns/uts", os.O_RDONLY)
""",
        "An open descriptor or a copy",
    ),
    "a symbolic link": (
        "keep",
        """
def keep(hostname, path):
    unshare(CLONE_NEWUTS)
    sethostname(hostname)
    os.symlink(f"/proc/{os.getpid()}/ns/uts", path)
""",
        "is a symbolic link",
    ),
    "mounted before unshare": (
        "keep",
        """
def keep(hostname, path):
    open(path, "w").close()
    mount("/proc/self/ns/uts", path, None, MS_BIND)
    unshare(CLONE_NEWUTS)
    sethostname(hostname)
""",
        "the lab host's own namespace",
    ),
    "set before unshare, and kept": (
        "keep",
        """
def keep(hostname, path):
    sethostname(hostname)
    unshare(CLONE_NEWUTS)
    open(path, "w").close()
    mount("/proc/self/ns/uts", path, None, MS_BIND)
""",
        "Whose name did `sethostname` change?",
    ),
    "no name in it": (
        "keep",
        """
def keep(hostname, path):
    unshare(CLONE_NEWUTS)
    open(path, "w").close()
    mount("/proc/self/ns/uts", path, None, MS_BIND)
""",
        "the name in it is `labhost`",
    ),
    "a process that stays": (
        "keep",
        """
def keep(hostname, path):
    unshare(CLONE_NEWUTS)
    sethostname(hostname)
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.write(writer, b"x")
        os.read(os.pipe()[0], 1)
    os.read(reader, 1)  # until it has left our session, which ends with us
""",
        "that keeps it alive",
    ),
    "a mount and a process": (
        "keep",
        """
def keep(hostname, path):
    unshare(CLONE_NEWUTS)
    sethostname(hostname)
    open(path, "w").close()
    mount("/proc/self/ns/uts", path, None, MS_BIND)
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.write(writer, b"x")
        os.read(os.pipe()[0], 1)
    os.read(reader, 1)
""",
        "The mount alone is enough",
    ),
    "another kind kept": (
        "keep",
        """
def keep(hostname, path):
    unshare(CLONE_NEWUTS)
    sethostname(hostname)
    open(path, "w").close()
    mount("/proc/self/ns/net", path, None, MS_BIND)
""",
        "a namespace of the kind `net`",
    ),
    "no namespace": (
        "keep",
        """
def keep(hostname, path):
    unshare(CLONE_NEWUTS)
    sethostname(hostname)
    open(path, "w").close()
    mount("/etc/hostname", path, None, MS_BIND)
""",
        "but it is no namespace",
    ),
    "mounted for oneself alone": (
        "keep",
        """
def keep(hostname, path):
    from labkit.constants import CLONE_NEWNS, MS_PRIVATE, MS_REC
    unshare(CLONE_NEWUTS | CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    sethostname(hostname)
    open(path, "w").close()
    mount("/proc/self/ns/uts", path, None, MS_BIND)
""",
        "with the child the mount was gone",
    ),
}

RIGHT = {
    "isolate: unshare(1)": (
        "isolate",
        """
def isolate(hostname):
    os.execvp("unshare", ["unshare", "--uts", "sh", "-c", f"hostname {hostname} && exec sleep 60"])
""",
    ),
    "isolate: with others of one's own": (
        "isolate",
        """
def isolate(hostname):
    from labkit.constants import CLONE_NEWIPC, CLONE_NEWUSER
    unshare(CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER)
    sethostname(hostname)
""",
    ),
    "isolate: ctypes": (
        "isolate",
        """
def isolate(hostname):
    import ctypes
    libc = ctypes.CDLL(None)
    assert libc.unshare(0x04000000) == 0
    assert libc.sethostname(hostname.encode(), len(hostname)) == 0
""",
    ),
    "isolate: named by a fork": (
        "isolate",
        """
def isolate(hostname):
    unshare(CLONE_NEWUTS)
    pid = os.fork()
    if pid == 0:
        sethostname(hostname)
        os._exit(0)
    os.waitpid(pid, 0)
""",
    ),
    "isolate: born there": (
        "isolate",
        """
def isolate(hostname):
    reader, writer = os.pipe()
    pid, _ = clone3(CLONE_NEWUTS)
    if pid == 0:
        sethostname(hostname)
        os.write(writer, b"x")
        os.read(os.pipe()[0], 1)
    os.read(reader, 1)
    setns(os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY))
""",
    ),
    "together: readlink": (
        "together",
        """
def together(first, second):
    return os.readlink(f"/proc/{first}/ns/uts") == os.readlink(f"/proc/{second}/ns/uts")
""",
    ),
    "together: samefile": (
        "together",
        """
def together(first, second):
    return os.path.samefile(f"/proc/{first}/ns/uts", f"/proc/{second}/ns/uts")
""",
    ),
    "together: descriptors": (
        "together",
        """
def together(first, second):
    return len({os.fstat(os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY)).st_ino for pid in (first, second)}) == 1
""",
    ),
    "join: a pidfd": (
        "join",
        """
def join(pid):
    setns(os.pidfd_open(pid), CLONE_NEWUTS)
""",
    ),
    "join: nsenter(1)": (
        "join",
        """
def join(pid):
    os.execvp("nsenter", ["nsenter", f"--uts=/proc/{pid}/ns/uts", "sleep", "60"])
""",
    ),
    "join: the package's own": (
        "join",
        """
def join(pid):
    namespaces.enter(pid, ("uts",))
""",
    ),
    "keep: unshare(1)": (
        "keep",
        """
def keep(hostname, path):
    open(path, "w").close()
    os.execvp("unshare", ["unshare", f"--uts={path}", "hostname", hostname])
""",
    ),
    "keep: mounted by the parent": (
        "keep",
        """
def keep(hostname, path):
    open(path, "w").close()
    reader, writer = os.pipe()
    done, tell = os.pipe()
    pid, _ = clone3(CLONE_NEWUTS)
    if pid == 0:
        sethostname(hostname)
        os.write(writer, b"x")
        os.read(done, 1)
        os._exit(0)
    os.read(reader, 1)
    mount(f"/proc/{pid}/ns/uts", path, None, MS_BIND)
    os.write(tell, b"x")
    os.waitpid(pid, 0)
""",
    ),
    "keep: on descriptors": (
        "keep",
        """
def keep(hostname, path):
    from labkit.constants import AT_FDCWD, MOVE_MOUNT_F_EMPTY_PATH, OPEN_TREE_CLONE
    from labkit.syscalls import move_mount, open_tree
    unshare(CLONE_NEWUTS)
    sethostname(hostname)
    open(path, "w").close()
    tree = open_tree(AT_FDCWD, "/proc/self/ns/uts", OPEN_TREE_CLONE)
    move_mount(tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH)
""",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gets_its_own_message(mistake: str) -> None:
    exercise, code, words = MISTAKES[mistake]
    outcome = attempt("05", exercise, code)
    assert isinstance(outcome, NotYet), outcome
    assert words in outcome.seen + outcome.why
    assert hostname.of(host.pid()) == "labhost"


@pytest.mark.parametrize("way", RIGHT)
def test_other_right_ways_pass(way: str) -> None:
    outcome = attempt("05", *RIGHT[way])
    assert isinstance(outcome, Passed), outcome


IN_A_NOTEBOOK = """
import threading
from labkit.course.authoring.trial import attempt

threading.Thread(target=threading.Event().wait, daemon=True).start()  # as a notebook has others
print(attempt("05", "isolate", '''
unshare(CLONE_NEWUTS)


def isolate(hostname):
    sethostname(hostname)
'''))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's notebook may not unshare at all")
def test_unshare_in_the_notebook_is_noticed() -> None:
    # In a process of its own: pytest's would be torn apart.
    run = subprocess.run([sys.executable, "-c", IN_A_NOTEBOOK], capture_output=True, text=True, timeout=60)
    assert "NotYet" in run.stdout, run.stdout + run.stderr
    assert "the notebook itself is split" in run.stdout.replace("\\n", " ")
