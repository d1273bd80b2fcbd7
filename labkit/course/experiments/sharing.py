"""What three places share with the host, and what each has of its own: a process, a container, and a guest.

What each shares with the host is not written down anywhere here: it is found out, by asking the same questions in each
place and comparing the answers with the host's.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from labkit import constants, container, procfs, syscalls, temporary
from labkit.container.container import Container
from labkit.errors import LabkitError
from labkit.process import spawn
from labkit.vm.persistent import Computer

PLACES = ("process", "container", "guest")

# The questions


@dataclass(frozen=True)
class Fact:
    """One thing that a place may share with the host, or have of its own."""

    name: str
    what: str  #: in a few words
    where: str  #: what was looked at


FACTS = (
    Fact("kernel", "the running kernel that answers its system calls", "/proc/sys/kernel/random/boot_id"),
    Fact("uptime", "the clock that counts since the start", "/proc/uptime"),
    Fact("memory", "the size of the memory that it sees", "MemTotal in /proc/meminfo"),
    Fact("cpu", "the model of processor that it sees", "/proc/cpuinfo"),
    Fact("users", "the users: a user's number means the same user", "/proc/self/ns/user of the same kernel"),
    Fact("hostname", "the hostname", "/proc/sys/kernel/hostname"),
    Fact("processes", "the list of processes: it sees the host's", "/proc/*/cmdline, for a process of the host"),
    Fact("seen", "the other way round: the host sees its processes", "the host's /proc/*/cmdline, for one of its own"),
    Fact("ports", "the loopback ports: a server of the host can be reached", "/proc/net/tcp, for a server of the host"),
    Fact("files", "the tree of files", "a file that was made on the host"),
)

# What to run in a place. A shell's own command line has the brackets in it, and so does not match.
_SCRIPT = """
echo kernel $(cat /proc/sys/kernel/random/boot_id)
echo uptime $(cat /proc/uptime)
echo memory $(grep MemTotal /proc/meminfo)
echo cpu $(grep -m 1 -E 'model name|CPU part|uarch' /proc/cpuinfo)
echo users $(readlink /proc/self/ns/user)
echo hostname $(cat /proc/sys/kernel/hostname)
echo processes $(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\000' ' ' | grep -c '[s]leep @NEIGHBOUR@')
echo ports $(grep -ci ':@PORT@ 00000000:0000 0A' /proc/net/tcp)
echo files $(test -e @FILE@ && echo 1 || echo 0)
"""


@dataclass(frozen=True)
class Finding:
    """What one place has of one fact: whether it is the host's, and what was seen there and on the host."""

    shared: bool
    there: str
    host: str


def look(of: Computer, draw: Callable[[], int]) -> dict[str, dict[str, Finding]]:
    """Ask the ten questions of a live process, a live container and the guest `of`: fact, place, finding.

    `draw` draws a number that nobody else uses, for names. Raises what starting a container raises.
    """
    marks = {name: str(draw()) for name in ("host", *PLACES)}
    with ExitStack() as stack:
        file = Path(stack.enter_context(temporary.Folder()), marks["host"])
        file.touch()
        host = stack.enter_context(spawn(_open_house, marks["host"]))
        port = f"{host.value:04X}"  # as /proc/net/tcp has it
        script = _SCRIPT.replace("@NEIGHBOUR@", marks["host"]).replace("@PORT@", port).replace("@FILE@", str(file))
        process = stack.enter_context(spawn(sleeper, "sleep", marks["process"]))
        box = stack.enter_context(container.start(["sleep", marks["container"]], hostname=f"box-{draw()}"))
        stack.enter_context(_sleep_in(of, marks["guest"]))

        before = _answers(host.call(_shell, script))
        found = {
            "process": _answers(process.call(_shell, script)),
            "container": _answers(_in_container(box, script)),
            "guest": _answers(of.run(script).output),
        }
        after = _answers(host.call(_shell, script))
        for place, answers in found.items():
            answers["seen"] = str(host.call(_count_sleepers, marks[place]))
    before["seen"] = "1"
    return {
        fact.name: {place: _compared(fact.name, answers, before, after) for place, answers in found.items()}
        for fact in FACTS
    }


def _compared(fact: str, there: dict[str, str], before: dict[str, str], after: dict[str, str]) -> Finding:
    here = before[fact]
    match fact:
        case "uptime":  # read on the host before and after: the same clock says something between the two
            shared = float(here.split()[0]) <= float(there[fact].split()[0]) <= float(after[fact].split()[0])
            return Finding(shared, f"{there[fact].split()[0]} s", f"{here.split()[0]} to {after[fact].split()[0]} s")
        case "processes" | "ports":
            what = "process" if fact == "processes" else "server"
            return Finding(there[fact] != "0", _listed(there[fact] != "0"), f"a {what} was started for this")
        case "seen":
            return Finding(there[fact] != "0", "a process was started for this", _listed(there[fact] != "0"))
        case "files":
            return Finding(there[fact] == "1", "it is there" if there[fact] == "1" else "not there", "a new file")
        case "users":  # every kernel gives its first user namespace the same number
            shared = there["users"] == here and there["kernel"] == before["kernel"]
            other = "" if there["kernel"] == before["kernel"] else ", of another kernel"
            return Finding(shared, there["users"] + other, here)
    return Finding(there[fact] == here, there[fact] or "nothing", here or "nothing")


def _listed(found: bool) -> str:
    return "it is listed" if found else "it is not listed"


def _answers(text: str) -> dict[str, str]:
    found = dict.fromkeys((fact.name for fact in FACTS), "")
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        found[name] = value.strip()
    if not found["kernel"]:
        raise LabkitError(f"a place did not answer what it was asked; it said: {text.strip()[:200]}")
    return found


def _in_container(box: Container, script: str) -> str:
    with box.exec(["sh", "-c", script], capture=True) as asked:
        return asked.finish(20).stdout


@contextmanager
def _sleep_in(of: Computer, mark: str) -> Iterator[None]:
    of.run(f"sleep {mark} > /dev/null 2>&1 & echo $! > /tmp/sleeper-{mark}")
    try:
        yield
    finally:
        if of.alive:
            of.run(f"kill $(cat /tmp/sleeper-{mark}); rm /tmp/sleeper-{mark}")


# On the lab host


_servers: list[socket.socket] = []  # kept open for as long as their process lives


def _open_house(mark: str) -> int:
    """Start a process and a server on the host; return the server's port."""
    sleeper("sleep", mark)
    _servers.append(socket.create_server(("127.0.0.1", 0)))
    port: int = _servers[-1].getsockname()[1]
    return port


def sleeper(*words: str) -> int:
    """Start a process that ends with the caller, such as a `sleep`; return its PID."""
    pid = os.fork()
    if pid == 0:
        syscalls.prctl(constants.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.execvp(words[0], words)
    return pid


def _shell(script: str) -> str:
    return subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def _count_sleepers(mark: str) -> int:
    found = 0
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                found += procfs.cmdline(int(entry)) == ["sleep", mark]
            except OSError:
                continue
    return found
