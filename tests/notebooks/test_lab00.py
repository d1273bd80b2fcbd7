"""Lab 00: what each likely mistake is told, other right ways, and the doctor's table."""

import pytest

from labkit import host, process, syscalls
from labkit.constants import CLONE_NEWUTS
from labkit.course.authoring.trial import attempt
from labkit.course.doctor import doctor, notebook_table
from labkit.course.exercises.common import hostname
from labkit.course.framework import rendering
from labkit.course.framework.outcomes import NotAttempted, NotYet, Passed

# mistake: (exercise, its cell, words that only its message has)
MISTAKES = {
    "set before unshare": (
        "rename",
        """
def rename(hostname):
    sethostname(hostname)
    unshare(CLONE_NEWUTS)
""",
        "before the child had left",
    ),
    "unshare lost": (
        "rename",
        """
def rename(hostname):
    sethostname(hostname)
""",
        "Everything on the lab host was renamed",
    ),
    "a fixed name": (
        "rename",
        """
def rename(hostname):
    unshare(CLONE_NEWUTS)
    sethostname("mine")
""",
        "its name there is `mine`",
    ),
    "renamed in a fork": (
        "rename",
        """
def rename(hostname):
    if os.fork() == 0:
        unshare(CLONE_NEWUTS)
        sethostname(hostname)
        os.read(os.pipe()[0], 1)
    import time
    time.sleep(0.5)
""",
        "Your function forked",
    ),
    "only the name put back": (
        "mend",
        """
def mend():
    run_in_child(sethostname, "labhost")
""",
        "Part of the mess is gone",
    ),
    "nothing done": (
        "mend",
        """
def mend():
    host.namespaces()
""",
        "Nothing has changed",
    ),
    "an exception": (
        "mend",
        """
def mend():
    host.restart()
""",
        "AttributeError",
    ),
}

RIGHT = {
    "through /proc": (
        "rename",
        """
def rename(hostname):
    unshare(CLONE_NEWUTS)
    try:
        open("/proc/sys/kernel/hostname", "w").write(hostname)
    except PermissionError:  # the file is the machine's root's, whatever namespace it writes to
        sethostname(hostname)
""",
    ),
    "another program": (
        "rename",
        """
def rename(hostname):
    os.execvp("unshare", ["unshare", "--uts", "sh", "-c", f"hostname {hostname} && exec sleep 60"])
""",
    ),
    "kill its first process": (
        "mend",
        """
def mend():
    os.kill(host.pid(), 9)
""",
    ),
    "an import of one's own": (
        "mend",
        """
def mend():
    from labkit.host import reset
    reset()
""",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gets_its_own_message(mistake: str) -> None:
    exercise, code, words = MISTAKES[mistake]
    outcome = attempt("00", exercise, code)
    assert isinstance(outcome, NotYet), outcome
    assert words in outcome.seen + outcome.why
    others = [told for other, (_, _, told) in MISTAKES.items() if other != mistake]
    assert not [told for told in others if told in outcome.seen + outcome.why]


@pytest.mark.parametrize("way", RIGHT)
def test_other_right_ways_pass(way: str) -> None:
    outcome = attempt("00", *RIGHT[way])
    assert isinstance(outcome, Passed), outcome


def test_the_line_that_is_given_is_no_attempt() -> None:
    outcome = attempt("00", "rename", "def rename(hostname):\n    unshare(CLONE_NEWUTS)\n    ...\n")
    assert isinstance(outcome, NotAttempted), outcome
    assert "one line is missing" in outcome.text


def test_a_wrong_answer_leaves_the_lab_hosts_name_as_it_was() -> None:
    attempt("00", "rename", MISTAKES["set before unshare"][1])
    assert hostname.of(host.pid()) == "labhost"
    process.run_in_child(syscalls.sethostname, "odd")
    attempt("00", "rename", MISTAKES["unshare lost"][1])
    assert hostname.of(host.pid()) == "odd"


def test_threads_elsewhere_sees_a_thread_that_has_left() -> None:
    def two_threads() -> None:
        import threading

        left, never = threading.Event(), threading.Event()

        def leave() -> None:
            syscalls.unshare(CLONE_NEWUTS)
            left.set()
            never.wait()

        threading.Thread(target=leave, daemon=True).start()
        left.wait()

    with process.spawn(two_threads) as child:
        assert len(hostname.threads_elsewhere(child.pid)) == 1
        assert hostname.threads_elsewhere(host.pid()) == []


def test_doctor_table_follows_the_machine_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    table = notebook_table.DoctorTable()
    topics = [finding["topic"] for finding in table.state["findings"]]
    assert {"machine", "Python", "namespaces"} <= set(topics)
    assert "05" in [lab["number"] for lab in table.state["labs"]]
    monkeypatch.setattr(doctor, "report", _Report)
    monkeypatch.setattr(rendering, "in_notebook", lambda: True)
    monkeypatch.setattr(table, "_make_widget", _Widget)
    table.show()
    table._on_message(None, {"kind": "shown"}, None)
    assert hostname.until(lambda: table.state["findings"] == [])
    monkeypatch.undo()
    table._on_message(None, {"kind": "look"}, None)
    assert hostname.until(lambda: table.state["findings"] != []), "it looks at once when asked to"
    table.close()
    assert not table.following


class _Report:
    findings: tuple[()] = ()
    labs: tuple[()] = ()


class _Widget:
    model_id = "none"
    state: object = None

    def on_msg(self, callback: object) -> None:
        """The front end is not there: nothing ever comes."""
