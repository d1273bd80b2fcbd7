"""Lab 12: each likely mistake gets its own message, other right ways pass, and every rule of order is true here."""

import errno
import itertools
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from labkit import cgroups, host, procfs, rootfs
from labkit.course.authoring.trial import attempt, defined_before
from labkit.course.exercise_spec import posed
from labkit.course.exercises.common.mount_stand_in import StandIn, find_command
from labkit.course.exercises.lab12 import exercises
from labkit.course.exercises.lab12.container_checks import Running, wrong_box
from labkit.course.exercises.lab12.step_order import CONSEQUENCES, RULES, STEP_NAMES, Rule, wrong_order, wrong_reasons
from labkit.course.framework.outcomes import NotAttempted, NotYet, Outcome, Passed
from labkit.course.source import lab_source
from labkit.process import run_in_child, spawn
from tests.requirements import machine_cannot

AS_ROOT = os.geteuid() == 0
MD = lab_source.path_of("12")
ORDER = [
    "group",
    "namespaces",
    "fork",
    "hostname",
    "private",
    "root",
    "furnish",
    "pivot",
    "close",
    "workdir",
    "powers",
    "filter",
]
WHY = {("private", "root"): "leak", ("fork", "furnish"): "processes", ("close", "workdir"): "door"}


def changed(code: str, old: str, new: str = "") -> str:
    """`code` with one line, or a part of one, exchanged."""
    assert code.count(old) == 1, old
    return code.replace(old, new)


# The order: by the rules alone.


@pytest.mark.parametrize("rule", RULES, ids=[f"{rule.first}-{rule.then}" for rule in RULES])
def test_a_wrong_order_is_told_by_what_would_happen_and_not_by_its_steps(rule: Rule) -> None:
    """The right order, with one step moved right behind, or right before, the other of its pair."""
    rest = [name for name in ORDER if name != rule.first]
    later = [*rest[: rest.index(rule.then) + 1], rule.first, *rest[rest.index(rule.then) + 1 :]]
    outcome = wrong_order(later)
    assert isinstance(outcome, NotYet)
    assert CONSEQUENCES[next(one for one in RULES if one in broken(later)).consequence] in outcome.seen
    assert not any(f"`{step}`" in outcome.seen + outcome.why for step in STEP_NAMES)
    rest = [name for name in ORDER if name != rule.then]
    earlier = [*rest[: rest.index(rule.first)], rule.then, *rest[rest.index(rule.first) :]]
    assert isinstance(wrong_order(earlier), NotYet)


def test_a_message_for_each_pair_and_none_twice() -> None:
    pairs = [(rule.first, rule.then) for rule in RULES]
    assert len(set(pairs)) == len(pairs)
    assert all(rule.consequence in CONSEQUENCES for rule in RULES)
    named = [rule.seen for rule in RULES]
    assert len(set(named)) == len(named)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("group", "list of the twelve names"),
        ([*ORDER[:-1], "execve"], "no step called `execve`"),
        ([*ORDER, "fork"], "twice"),
        (ORDER[:-1], "`filter` is missing"),
    ],
)
def test_what_is_no_order(order: Any, words: str) -> None:
    outcome = wrong_order(order)
    assert isinstance(outcome, NotYet)
    assert words in outcome.seen + outcome.why


def test_an_empty_order_is_not_attempted() -> None:
    assert isinstance(wrong_order([]), NotAttempted)


@pytest.mark.parametrize(
    ("why", "words"),
    [
        (["leak"], "not a dict"),
        ({"private": "leak"}, "no pair of steps"),
        ({**WHY, ("root", "pivot"): "chaos"}, "none of the consequences"),
        ({**WHY, ("root", "private"): "leak"}, "the other way round"),
        ({**WHY, ("hostname", "private"): "name"}, "may change places"),
        ({**WHY, ("root", "pivot"): "leak"}, "at least one of the pairs has another"),
        ({("namespaces", "hostname"): "name", ("private", "root"): "leak", ("root", "pivot"): "lost"}, "has 2 pairs"),
    ],
)
def test_what_is_no_defence(why: Any, words: str) -> None:
    outcome = wrong_reasons(why)
    assert isinstance(outcome, NotYet)
    assert words in outcome.seen + outcome.why


def test_which_consequence_is_wrong_and_how_many_are_is_not_told() -> None:
    """Not of three, and no less than three are looked at: so none is confirmed by itself."""
    wrong = [
        {**WHY, **dict.fromkeys(some, "name")} for count in (1, 2, 3) for some in itertools.combinations(WHY, count)
    ]
    said = [wrong_reasons(why) for why in wrong]
    assert len({(one.seen, one.why) for one in said if isinstance(one, NotYet)}) == 1
    alone = [wrong_reasons({("private", "root"): consequence}) for consequence in CONSEQUENCES]
    assert len({(one.seen, one.why) for one in alone if isinstance(one, NotYet)}) == 1


# The order: what the rules say is what the kernel does.


@pytest.fixture(scope="module")
def lab() -> dict[str, Any]:
    """What the notebook defines before the exercise: Box, STEPS, and the helpers."""
    return defined_before(posed("12", "run"))


def build(lab: dict[str, Any], order: list[str], network: int | None = None) -> Callable[..., int]:
    """A function for `Running`: build a box in `order`, a descriptor left open, and say at which step it fails."""
    box, steps, homes = lab["Box"], lab["STEPS"], lab["HOMES"]

    def in_order(command: list[str], workdir: str) -> int:
        home = tempfile.mkdtemp(dir=homes)
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(os.open("/", os.O_RDONLY | os.O_DIRECTORY), 9)
                joined = None if network is None else os.open(f"/proc/{network}/ns/net", os.O_RDONLY)
                one = box(command, exercises._image(), "box-test", None, joined, workdir)
                one.home = home
                for name in order:
                    try:
                        steps[name](one)
                    except OSError as error:
                        os._exit(100 + (error.errno or 0))
                os.execve(command[0], command, {})
            finally:
                os._exit(99)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with suppress(OSError):  # what has leaked is mounted there
            os.rmdir(home)
        return code

    return in_order


def swapped(rule: Rule) -> list[str]:
    """The right order, but that `then` stands right before `first`, or `first` right behind `then`.

    The former where `first` is to be refused, so that no other step is refused before it.
    """
    if rule.consequence == "refused":
        rest = [name for name in ORDER if name != rule.then]
        at = rest.index(rule.first)
        return [*rest[:at], rule.then, *rest[at:]]
    rest = [name for name in ORDER if name != rule.first]
    at = rest.index(rule.then) + 1
    return [*rest[:at], rule.first, *rest[at:]]


def broken(order: list[str]) -> list[Rule]:
    return [rule for rule in RULES if order.index(rule.first) > order.index(rule.then)]


def test_in_the_right_order_it_is_a_box(lab: dict[str, Any]) -> None:
    with StandIn() as town, Running(town, build(lab, ORDER), ["/bin/sleep", "4321"], "/tmp") as box:
        assert box.pid
        assert wrong_box(box, town, "box-test", "/tmp") is None
        assert box.kill() == 137


# A rule of which nothing is seen here: without control groups of its own, a box has no place in their tree.
SEEN = [rule for rule in RULES if rule.consequence != "tree"]


@pytest.mark.parametrize("rule", SEEN, ids=[f"{rule.first}-{rule.then}" for rule in SEEN])
def test_in_the_wrong_order_happens_what_the_rule_says(rule: Rule, lab: dict[str, Any]) -> None:
    order = swapped(rule)
    workdir = "/proc/self/fd/9" if rule.consequence == "door" else "/tmp"
    with StandIn() as town:
        if rule.consequence == "name":
            # Not in the stand-in: its UTS namespace is the lab host's own. The name is put back.
            before = run_in_child(os.uname).nodename
            try:
                run_in_child(build(lab, ["hostname", "fork"]), ["/bin/true"], "/")
                assert run_in_child(os.uname).nodename == "box-test"
            finally:
                run_in_child(lab["sethostname"], before)
            return
        with spawn(exercises._new_network) as other:
            network = other.pid if (rule.first, rule.then) == ("namespaces", "close") else None
            with Running(town, build(lab, order, network), ["/bin/sleep", "4321"], workdir) as box:
                happened(rule, box, town)


def happened(rule: Rule, box: Running, town: StandIn) -> None:
    pid = box.pid
    match rule.consequence:
        case "refused":
            assert box.exit_code() in (100 + errno.EPERM, 100 + errno.EACCES)
        case "lost":
            if (rule.first, rule.then) == ("pivot", "workdir"):
                assert pid
                assert os.readlink(f"/proc/{pid}/cwd") == "/"
            else:
                refused = () if AS_ROOT else (100 + errno.EPERM,)  # before it is lost
                assert box.exit_code() in (100 + errno.ENOENT, 100 + errno.EBADF, *refused)
        case "leak":
            assert town.leaked() or town.lost() or town.no_longer_shared()
        case "processes":
            if pid is None:  # a user's lab host may not even mount it: it has no PID namespace of its own
                assert not AS_ROOT
                return
            listed = [entry for entry in os.listdir(f"/proc/{pid}/root/proc") if entry.isdigit()]
            assert len(listed) > 1
        case "not 1":
            assert pid is None or procfs.nspid(pid)[-1] != 1
        case "door":
            assert pid
            assert Path(f"/proc/{pid}/cwd/etc").exists()
            assert not os.path.samefile(f"/proc/{pid}/cwd/.", f"/proc/{pid}/root/.")
        case _:
            raise AssertionError(rule.consequence)


RIGHT_ORDERS = {
    "hostname late": "group namespaces fork private root furnish pivot close hostname workdir powers filter",
    "root before fork": "group namespaces private root fork furnish hostname pivot close workdir powers filter",
    "filter before powers": "group namespaces fork hostname private root furnish pivot close workdir filter powers",
    "closed early": "group namespaces close private fork root furnish pivot workdir hostname powers filter",
    "workdir last": "group namespaces fork hostname private root furnish pivot powers filter close workdir",
}


@pytest.mark.parametrize("name", RIGHT_ORDERS)
def test_another_right_order_passes(name: str) -> None:
    outcome = attempt("12", "order", f"ORDER = {RIGHT_ORDERS[name].split()!r}\nWHY = {WHY!r}\n")
    assert isinstance(outcome, Passed), outcome


def test_all_orders_that_the_rules_allow_are_of_twelve_steps() -> None:
    assert set(ORDER) == set(STEP_NAMES)
    assert broken(ORDER) == []


# run

RUN = lab_source.solution(MD, "run")
POD = lab_source.solution(MD, "pod")
MISTAKES = {
    "the steps in the caller": (
        "run",
        """
def my_run(command, image, hostname="box", limits=None, network=None, workdir="/"):
    box = Box(command, image, hostname, limits, network, workdir)
    begin(box)
    for name in ("namespaces", "fork", "hostname", "private", "root", "furnish", "pivot", "close", "workdir", "powers"):
        STEPS[name](box)
    os.execve(command[0], command, {})
""",
        "which *called* your function",
    ),
    "no execve": ("run", changed(RUN, "os.execve(", "print("), "was never executed"),
    "a forgotten filter": ("run", changed(RUN, '(*steps, "powers", "filter")', '(*steps, "powers")'), "No filter"),
    "forgotten powers": (
        "run",
        changed(RUN, '(*steps, "powers", "filter")', "steps"),
        "which is not in KEPT",
    ),
    "no namespaces": ("run", changed(RUN, '"namespaces", "fork", "hostname", "private", ', ""), "on the lab host, too"),
    # An ordinary user's lab host owns no PID namespace but new ones: there, mounting /proc for the old one is refused.
    "not forked": (
        "run",
        changed(RUN, '"fork", '),
        "children that are made afterwards" if AS_ROOT else "a step has failed",
    ),
    "no name": ("run", changed(RUN, '"hostname", "private"', '"private"'), "The box is called"),
    "not closed": (
        "run",
        changed(changed(RUN, '"close", '), "            try:\n", "            os.dup2(1, 7)\n            try:\n"),
        "Descriptor 7 is open in the box",
    ),
    "no working directory": (
        "run",
        changed(RUN, '"pivot", "close", "workdir"', '"pivot", "close"'),
        "`/tmp` was asked",
    ),
    "leaks": ("run", changed(RUN, '"private", '), "is on the lab host, too"),
    "chroot": (
        "run",
        changed(RUN, "STEPS[name](box)", '(chroot_to if name == "pivot" else STEPS[name])(box)')
        + "\n\ndef chroot_to(box):\n    os.chroot(f'{box.home}/root')\n    os.chdir('/')\n",
        "The old root is still there",
    ),
    "in the image": (
        "run",
        changed(RUN, "STEPS[name](box)", '(bind if name == "root" else STEPS[name])(box)')
        + """

def bind(box):
    os.mkdir(f"{box.home}/root")
    mount(box.image, f"{box.home}/root", None, MS_BIND)
""",
        "what it writes goes into the image",
    ),
    "settings open": (
        "run",
        changed(RUN, "STEPS[name](box)", '(bare if name == "furnish" else STEPS[name])(box)')
        + """

def bare(box):
    mount("proc", f"{box.home}/root/proc", "proc")
    mount("tmpfs", f"{box.home}/root/dev", "tmpfs", MS_NOSUID, "mode=755,size=64k")
    for name in DEVICES:
        open(f"{box.home}/root/dev/{name}", "w").close()
        mount(f"/dev/{name}", f"{box.home}/root/dev/{name}", None, MS_BIND)
""",
        "the whole machine's settings",
    ),
    "the network is not passed on": (
        "run",
        changed(
            RUN,
            "Box(command, image, hostname, limits, network, workdir)",
            "Box(command, image, hostname, limits, None, workdir)",
        ),
        "the box is in another one",
    ),
    "nothing returned": ("run", changed(RUN, "return exit_code_of(pid)", "exit_code_of(pid)"), "Does it `return`"),
    "the raw status": ("run", changed(RUN, "exit_code_of(pid)", "os.waitpid(pid, 0)[1]"), "raw status of wait(2)"),
    "the child returns": (
        "run",
        changed(
            RUN, "            finally:\n                os._exit(127)", "            finally:\n                pass"
        ),
        "There is no such program in the image",
    ),
    # pod
    "two networks": ("pod", changed(POD, ", network=network"), "a network of its own"),
    "the lab host's": (
        "pod",
        changed(changed(POD, "    unshare(CLONE_NEWNET)", "    #"), '    set_interface_up("lo")\n'),
        "the lab host's own network",
    ),
    "loopback down": ("pod", changed(POD, '    set_interface_up("lo")\n'), "its loopback is down"),
    "one after the other": (
        "pod",
        """
def pod(first, second, image):
    unshare(CLONE_NEWNET)
    set_interface_up("lo")
    network = os.open("/proc/self/ns/net", os.O_RDONLY)
    return [run(first, image, network=network), run(second, image, network=network)]
""",
        "two boxes one after the other",
    ),
    "in one box": (
        "pod",
        """
def pod(first, second, image):
    script = f"{' '.join(first)} & {' '.join(second)}; wait"
    return [run(["/bin/sh", "-c", script], image)] * 2
""",
        "They share more than a network",
    ),
    "no descriptor": (
        "pod",
        changed(POD, 'os.open("/proc/self/ns/net", os.O_RDONLY)', "1000"),
        "descriptor of the network",
    ),
    "no exit codes": (
        "pod",
        changed(POD, "return [exit_code_of(pid) for pid in pids]", "[exit_code_of(pid) for pid in pids]"),
        "[137, 137] was",
    ),
}
if not cgroups.unsupported():
    MISTAKES |= {
        "no group": ("run", changed(RUN, "hostname, limits,", "hostname, None,"), "own control group"),
        "not in the group": ("run", changed(RUN, '("group", ', "("), "own control group"),
        "the group stays": ("run", changed(RUN, "        end(box)", "        os.rmdir(box.home)"), "is still there"),
    }


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gets_its_own_message(mistake: str) -> None:
    exercise, code, words = MISTAKES[mistake]
    outcome = attempt("12", exercise, code)
    assert isinstance(outcome, NotYet), outcome
    assert words in outcome.seen + outcome.why, outcome


RIGHT = {
    "an init as PID 1": (
        "run",
        changed(
            RUN,
            "                os.execve(command[0], command,",
            "                child = os.fork()\n"
            "                if child:\n"
            "                    os._exit(exit_code_of(child))\n"
            "                os.execve(command[0], command,",
        ),
    ),
    "powers before the working directory": (
        "run",
        changed(changed(RUN, '"close", "workdir")', '"close")'), '(*steps, "powers"', '(*steps, "powers", "workdir"'),
    ),
    "no steps of ours": (
        "run",
        changed(RUN, "STEPS[name](box)", '(mine if name == "namespaces" else STEPS[name])(box)')
        + """

def mine(box):
    if box.network is not None:
        setns(box.network)
    else:
        unshare(CLONE_NEWNET)
    unshare(CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS)
    unshare(CLONE_NEWPID | CLONE_NEWCGROUP)
""",
    ),
    "a third that holds the network": (
        "pod",
        """
def pod(first, second, image):
    read, told = os.pipe()
    pause = os.fork()
    if pause == 0:
        unshare(CLONE_NEWNET)
        set_interface_up("lo")
        os.write(told, b"x")
        signal.pause()
    os.read(read, 1)
    network = os.open(f"/proc/{pause}/ns/net", os.O_RDONLY)
    pids = []
    for command in (first, second):
        pids.append(os.fork())
        if pids[-1] == 0:
            os._exit(run(command, image, "pod", network=network))
    codes = [exit_code_of(pid) for pid in pids]
    os.kill(pause, signal.SIGKILL)
    os.waitpid(pause, 0)
    return codes
""",
    ),
}


@pytest.mark.parametrize("way", RIGHT)
def test_another_right_way_passes(way: str) -> None:
    exercise, code = RIGHT[way]
    outcome: Outcome = attempt("12", exercise, code)
    assert isinstance(outcome, Passed), outcome


def test_the_worst_mistakes_do_not_reach_the_lab_host() -> None:
    lab_host = host.pid()
    before = procfs.mountinfo(lab_host)
    for mistake in ("leaks", "no namespaces"):
        exercise, code, _ = MISTAKES[mistake]
        attempt("12", exercise, code)
    assert host.pid() == lab_host
    assert procfs.mountinfo(lab_host) == before


# An image whose entry is the builder's own program: CVE-2019-5736.


@pytest.fixture
def finished() -> Iterator[dict[str, Any]]:
    """What the notebook defines once `box.py` is complete."""
    names = defined_before(posed("12", "pod"))
    yield names
    names["WORKSHOP"].cleanup()


def loader() -> bytes:
    """A program for amd64 that stands where the loader of the host's Python is looked for (its PT_INTERP).

    open("/proc/self/exe", O_RDONLY), which is descriptor 3; execve("/attack", {"/attack", NULL}, NULL).
    """
    exe, attack = b"/proc/self/exe\0", b"/attack\0"
    opens = b"\x31\xf6\xb8\x02\0\0\0\x0f\x05"  # esi = 0; eax = 2; syscall
    executes = b"\x31\xd2\x52\x57\x48\x89\xe6\xb8\x3b\0\0\0\x0f\x05\xf4"  # rsi = {rdi, 0}; eax = 59; syscall; hlt
    lea = b"\x48\x8d\x3d"  # rdi = an address relative to the next instruction
    first = lea + struct.pack("<i", len(opens) + 7 + len(executes)) + opens
    code = first + lea + struct.pack("<i", len(executes) + len(exe)) + executes + exe + attack
    at = 64 + 56
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, 62, 1, at, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, at + len(code), at + len(code), 4096) + code


@pytest.fixture
def hostile_image(tmp_path: Path) -> Path:
    if os.uname().machine != "x86_64":
        machine_cannot("run the attack, which is written in amd64's code")
    image = tmp_path / "image"
    shutil.copytree(rootfs.find("busybox"), image, symlinks=True)
    (image / "lib64").mkdir(exist_ok=True)
    (image / "lib64" / "ld-linux-x86-64.so.2").write_bytes(loader())
    (image / "lib64" / "ld-linux-x86-64.so.2").chmod(0o755)
    (image / "entry").symlink_to("/proc/self/exe")
    (image / "script").write_text("#!/proc/self/exe\n")
    (image / "attack").write_text(
        "#!/bin/sh\n"
        "case $(readlink /proc/$$/fd/3) in /memfd:*) (echo owned > /proc/$$/fd/3) 2>/dev/null || exit 42 ;; esac\n"
        "until (echo owned > /proc/$$/fd/3) 2>/dev/null; do sleep 0.1; done\n"
    )
    for name in ("script", "attack"):
        (image / name).chmod(0o755)
    return image


@pytest.mark.parametrize("entry", ["/entry", "/script", "/proc/self/exe"])
def test_the_entry_of_an_image_finds_a_copy_that_nobody_can_write_to(
    entry: str, hostile_image: Path, finished: dict[str, Any]
) -> None:
    assert run_in_child(finished["run"], [entry], str(hostile_image)) == 42


def test_a_box_is_not_built_by_the_machines_own_python(hostile_image: Path, tmp_path: Path) -> None:
    """Whose builder has ended writes to the file that it ran: here a copy of Python's, which no other process runs."""
    python = tmp_path / "python"
    shutil.copyfile(os.path.realpath(sys.executable), python)
    python.chmod(0o755)
    before = python.read_bytes()
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from labkit.course.exercise_spec import posed\n"
        "from labkit.course.authoring.trial import defined_before\n"
        f"defined_before(posed('12', 'pod'))['run'](['/entry'], {str(hostile_image)!r})\n"
    )
    environment = {**os.environ, "PYTHONHOME": sys.base_prefix}
    said = run_in_child(_builder_that_ends, [str(python), "-c", program], environment)
    assert python.read_bytes() == before
    assert "RuntimeError" in said
    assert "run_in_child" in said


def _builder_that_ends(command: list[str], environment: dict[str, str]) -> str:
    """Run a program that builds a box; once the box is there, kill all but the box. What the program said."""
    builder = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    box = None
    while box is None and builder.poll() is None and time.monotonic() < deadline:
        box = next((pid for pid in procfs.descendants(builder.pid) if b"attack" in _cmdline(pid)), None)
        time.sleep(0.05)
    if box is None:
        return str(builder.communicate()[1])
    between = [pid for pid in procfs.descendants(builder.pid) if os.path.samefile(f"/proc/{pid}/exe", command[0])]
    for pid in (builder.pid, *between):
        os.kill(pid, signal.SIGKILL)
    builder.wait()
    pidfd = os.pidfd_open(box)
    select.select([pidfd], [], [], 10)  # it ends when it has written
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return "the box was built"


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_nobody_in_a_box_opens_the_memory_of_who_joins_it(finished: dict[str, Any]) -> None:
    """CVE-2016-9962: the newcomer is stopped where it has the box's powers and has not become its program yet."""
    powers, put_on_filter = finished["powers"], finished["put_on_filter"]

    def stop(box: Any) -> None:
        put_on_filter(box)
        os.kill(os.getpid(), signal.SIGSTOP)

    def look(pid: int) -> bool:
        """As a process of the box would: its powers, and no filter, which has nothing against it."""
        powers(None)
        with suppress(PermissionError), open(f"/proc/{pid}/mem", "r+b"):
            return True
        return False

    with spawn(finished["run"], ["/bin/sleep", "4321"], wait=False) as caller:
        box = find_command(caller, ["/bin/sleep", "4321"], 10)
        assert box
        finished["put_on_filter"] = stop
        with spawn(finished["execute"], box, ["/bin/sleep", "999"], wait=False) as guest:
            newcomer = _stopped_below(guest.pid)
            assert not run_in_child(look, newcomer)
        assert run_in_child(look, box), "the box's own program may be looked at: the attack works"


def _stopped_below(pid: int) -> int:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for one in procfs.descendants(pid):
            if procfs.status(one)["State"].startswith("T"):
                return one
        time.sleep(0.02)
    raise AssertionError("the newcomer did not come to its filter")
