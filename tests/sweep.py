"""A fault at each system call of what labkit does: an error, or the death of the process that makes it.

    python -m tests.sweep                              every fault; an hour
    python -m tests.sweep --trials 200 --seed 7        so many of them, drawn at random
    python -m tests.sweep --operation run --target zygote

A process of its own, the driver, prepares an operation (a container's start, say). strace(1) then attaches to the
caller, the zygote (with the children that it forks), the keeper or a relay, and has the Nth of one kind of system call
fail, or kills the process there. The operation is tried, and once more without the fault. What counts as a finding:

    raw            an exception that is not labkit's
    hung           no answer within HUNG_SECONDS
    lost           the lab host has ended, where the fault was not in the lab host itself
    unrecoverable  without the fault it fails as well
    leaked         descriptors that were not open before
    left           processes that are there when all is over

A table is printed, with each finding; the exit code is 1 if there is any.
"""

import argparse
import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from labkit import container, host, procfs
from labkit.errors import LabkitError
from labkit.files import state_folder
from labkit.network import Network
from labkit.overlay import Overlay
from labkit.process import run_in_child
from labkit.rootfs import find

HUNG_SECONDS = 90
WHEN = (1, 2, 3, 5, 8, 13, 21)
TARGETS = ("caller", "zygote", "keeper", "relay")
MAPPED: dict[str, Any] = {"uid_mappings": [(0, 0, 1)], "gid_mappings": [(0, 0, 1)]}
# What makes a descriptor or a process fails for want of one; the rest as a broken device would have it.
ERRORS = {
    **dict.fromkeys(("openat", "openat2", "open_tree", "socket", "socketpair", "pipe2", "dup", "fsopen"), "EMFILE"),
    **dict.fromkeys(("fork", "vfork", "clone", "clone3"), "EAGAIN"),
    **dict.fromkeys(("mmap", "mremap", "brk", "unshare"), "ENOMEM"),
}
# Without these strace or the driver itself cannot go on, or they do not come back.
LEFT_OUT = {"exit", "exit_group", "rt_sigreturn", "restart_syscall", "execve", "rt_sigaction", "futex", "brk", "munmap"}
# They cannot fail, or not in a way that anybody could act on.
CANNOT_FAIL = {"close", "getpid", "getppid", "gettid", "getuid", "geteuid", "umask", "getcwd", "uname", "setsid"}
CANNOT_FAIL |= {
    "rt_sigprocmask",
    "sigaltstack",
    "set_tid_address",
    "set_robust_list",
    "madvise",
    "getrandom",
    "prlimit64",
}


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and where."""

    operation: str
    target: str
    call: str
    when: int
    dies: bool

    def __str__(self) -> str:
        what = "SIGKILL" if self.dies else ERRORS.get(self.call, "EIO")
        return f"{self.operation}: {what} at {self.call} no. {self.when} of the {self.target}"

    def inject(self) -> str:
        """As strace takes it."""
        how = "signal=SIGKILL" if self.dies else f"error={ERRORS.get(self.call, 'EIO')}"
        return f"{self.call}:{how}:when={self.when}"


# --- the driver: prepares, tries, tries again -------------------------------------------------------------------------


def _run() -> None:
    container.run(["true"])


def _overlay() -> None:
    container.run(["true"], root=Overlay.scratch(find("busybox")))


def _mapped() -> None:
    container.run(["true"], **MAPPED)


def _create() -> None:
    with container.create(["true"]) as box:
        box.start()
        box.wait(20)


def _terminal() -> None:
    with container.start(["true"], terminal=True) as box:
        box.wait(20)


def _function() -> None:
    assert run_in_child(os.getpid) > 0


def _exec() -> None:
    global _box
    if _box is None or not _box.alive:
        _box = container.start(["sleep", "1000"])
    try:
        with _box.exec(["true"]) as process:
            process.wait(20)
    except LabkitError:
        _box = None
        raise


def _network() -> None:
    with Network("street") as street, street.endpoint("web", publish={0: 80}) as web:
        container.run(["true"], network=web)


_box: Any = None
OPERATIONS: dict[str, Callable[[], None]] = {
    "run": _run,
    "overlay": _overlay,
    "mapped": _mapped,
    "create": _create,
    "terminal": _terminal,
    "function": _function,
    "exec": _exec,
    "network": _network,
}


def drive(operation: str) -> None:
    """Be the caller: say who is who, and try whenever told to."""
    do = OPERATIONS[operation]
    do()
    kept = None
    relays: list[int] = []
    if operation == "network":  # one that stays, for its relay
        kept = Network("kept")
        relays = [relay.pid for relay in kept.endpoint("web", publish={0: 80})._relays._started]
    before = _descriptors()
    _tell(zygote=host.pid(), keeper=host.current().keeper_pid, relays=relays)
    while _told():
        said: dict[str, Any] = {"error": "", "plain": True}
        try:
            do()
        except LabkitError as error:
            said["error"] = f"{type(error).__name__}: {error}"
        except BaseException as error:
            said |= {"error": f"{type(error).__name__}: {error}", "plain": False}
        with suppress(LabkitError):
            said["zygote"] = host.pid()
        said["leaked"] = [what for fd, what in _descriptors().items() if fd not in before]
        _tell(**said)
    del kept


def _tell(**what: Any) -> None:
    """Say so, also where the fault hits this very call."""
    data = (json.dumps(what) + "\n").encode()
    for _ in range(3):
        with suppress(OSError):
            os.write(1, data)
            return


def _told() -> bool:
    """Wait for the next line of the sweep; False at the end of them."""
    for _ in range(3):
        with suppress(OSError):
            return bool(os.read(0, 4096))
    return False


def _descriptors() -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:  # the fault hit this very call
        names = os.listdir("/proc/self/fd")
    for name in names:
        with suppress(OSError):
            found[name] = re.sub(r"\d+", "N", os.readlink(f"/proc/self/fd/{name}"))
    return found


# --- one trial --------------------------------------------------------------------------------------------------------


class Driver:
    """A driver, seen from the sweep."""

    def __init__(self, operation: str) -> None:
        environ = {**os.environ, "PYTHONPATH": str(state_folder.checkout())}
        argv = [sys.executable, "-P", "-m", "tests.sweep", "--drive", operation]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ
        )
        who = self.answer()
        if who is None:
            raise RuntimeError(f"the driver of {operation} did not come up")
        self.pids: dict[str, int] = {"caller": self.process.pid, "zygote": who["zygote"], "keeper": who["keeper"]}
        if who["relays"]:
            self.pids["relay"] = who["relays"][0]

    def answer(self) -> dict[str, Any] | None:
        """What it says next; None where it has ended. TimeoutError: nothing."""
        assert self.process.stdout
        data = b""
        while not data.endswith(b"\n"):
            if not select.select([self.process.stdout], [], [], HUNG_SECONDS)[0]:
                raise TimeoutError
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                return None
            data += more
        found: dict[str, Any] = json.loads(data.splitlines()[-1])
        return found

    def attempt(self) -> dict[str, Any] | None:
        """Have it try."""
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.write(b"try\n")
            self.process.stdin.flush()
        return self.answer()

    def everything(self) -> list[int]:
        """The processes of its lab host."""
        return _below(self.process.pid)

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate()


def _below(pid: int) -> list[int]:
    with suppress(OSError, ProcessLookupError):
        found = procfs.children(pid)
        return found + [further for child in found for further in _below(child)]
    return []


@contextmanager
def strace(pid: int, *words: str) -> Iterator[None]:
    """Attached to a process and to all that it forks."""
    argv = ["strace", "-f", "-p", str(pid), *words]
    with tempfile.TemporaryFile() as log:
        tracer = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            for _ in range(500):
                log.seek(0)
                if b"attached" in log.read() or tracer.poll() is not None:
                    break
                select.select([], [], [], 0.01)
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            try:
                tracer.wait(10)
            except subprocess.TimeoutExpired:
                tracer.kill()
                tracer.wait()


def calls_of(operation: str, target: str) -> Counter[str]:
    """Which system calls the target makes during the operation, and how often."""
    driver = Driver(operation)
    try:
        if target not in driver.pids:
            return Counter()
        with tempfile.NamedTemporaryFile("r") as log:
            with strace(driver.pids[target], "-o", log.name):
                driver.attempt()
            return Counter(re.findall(r"^\d+ +(?:<... )?(\w+)(?:\(| resumed)", log.read(), re.MULTILINE))
    finally:
        driver.end()


def faults(operations: list[str], targets: list[str]) -> list[Fault]:
    """All faults of these operations in these processes."""
    found = []
    for operation in operations:
        for target in targets:
            for call, count in calls_of(operation, target).items():
                if call not in LEFT_OUT:
                    ways = (True,) if call in CANNOT_FAIL else (False, True)
                    found += [Fault(operation, target, call, n, dies) for n in WHEN if n <= count for dies in ways]
    return found


def tried(fault: Fault) -> dict[str, str]:
    """The findings of one trial, by kind."""
    driver = Driver(fault.operation)
    findings = {}
    there = driver.everything()
    watched = {}
    for pid in there:
        with suppress(ProcessLookupError):
            watched[pid] = os.pidfd_open(pid)
    in_host = fault.target in ("zygote", "keeper")
    try:
        with strace(driver.pids[fault.target], "-o", "/dev/null", "-e", f"inject={fault.inject()}"):
            said = driver.attempt()
        if said is not None:
            if not said["plain"]:
                findings["raw"] = said["error"]
            if said.get("zygote") != driver.pids["zygote"] and not (in_host and (fault.dies or not said["error"])):
                findings["lost"] = said["error"]
            again = driver.attempt()
            if again is None and fault.target == "caller" and fault.dies:
                pass  # it came to that call only when it had answered
            elif again is None or again["error"]:
                findings["unrecoverable"] = again["error"] if again else "the caller has ended"
            elif again["leaked"] and again["zygote"] == driver.pids["zygote"]:
                findings["leaked"] = ", ".join(sorted(again["leaked"]))
        elif not (fault.target == "caller" and fault.dies):
            findings["unrecoverable"] = "the caller has ended"
    except TimeoutError:
        findings["hung"] = ""
    finally:
        driver.end()
        left = [pid for pid, fd in watched.items() if not _ends(fd)]
        if left:
            findings["left"] = ", ".join(map(str, left))
        for fd in watched.values():
            os.close(fd)
    return findings


def _ends(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(10_000))


def sweep(chosen: list[Fault], say: Callable[[str], object] = print) -> dict[Fault, dict[str, str]]:
    """Try all of these; say each finding. Returns those that have any."""
    found = {}
    for fault in chosen:
        if findings := tried(fault):
            found[fault] = findings
            for kind, what in findings.items():
                say(f"{kind:<14} {fault}: {what}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sweep", description="Faults at system calls.")
    parser.add_argument("--operation", action="append", choices=list(OPERATIONS))
    parser.add_argument("--target", action="append", choices=TARGETS)
    parser.add_argument("--trials", type=int, default=0, help="so many, drawn at random (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--drive", choices=list(OPERATIONS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        drive(options.drive)
        return 0
    if shutil.which("strace") is None:
        print("strace is missing: apt-get install strace", file=sys.stderr)
        return 2
    chosen = faults(options.operation or list(OPERATIONS), options.target or list(TARGETS))
    if options.trials:
        chosen = random.Random(options.seed).sample(chosen, min(options.trials, len(chosen)))
    found = sweep(chosen)
    table = Table(title=f"{len(chosen)} faults")
    for column in ("operation", "faults", *(kinds := ("raw", "hung", "lost", "unrecoverable", "leaked", "left"))):
        table.add_column(column)
    for operation in dict.fromkeys(fault.operation for fault in chosen):
        counts = Counter(kind for fault, kinds_ in found.items() if fault.operation == operation for kind in kinds_)
        tries = sum(fault.operation == operation for fault in chosen)
        table.add_row(operation, str(tries), *(str(counts[kind]) for kind in kinds))
    Console().print(table)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
