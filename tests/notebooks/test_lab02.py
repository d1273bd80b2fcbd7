"""Lab 02: each likely mistake gets its own message, and other right ways than the course's pass."""

import itertools
import os

import pytest

from labkit import host, procfs
from labkit.course.authoring.trial import attempt
from labkit.course.exercises.lab02.exercises import Sort
from labkit.course.exercises.lab02.troubles import ANSWERS, MISUNDERSTANDINGS, TROUBLES, sorted_well
from labkit.course.framework.judge import judge
from labkit.course.framework.outcomes import NotAttempted, NotYet, Passed

P99 = """
def p99(latencies):
    ordered = sorted(latencies)
    return {}
"""
APART = """
from labkit.constants import CLONE_NEWNS, MS_BIND, MS_PRIVATE, MS_RDONLY, MS_REC
from labkit.syscalls import unshare
def apart(uploads, mib):
    store = os.path.dirname(uploads)
    {}
"""

MISTAKES = {
    "the mean": ("p99", P99.format("sum(ordered) / len(ordered)"), "That is their mean"),
    "the maximum": ("p99", P99.format("max(latencies)"), "the slowest of all"),
    "not in order": ("p99", P99.format("latencies[math.ceil(len(ordered) * 0.99) - 1]"), "In which order must they be"),
    "sorted, but the wrong list": (
        "p99",
        """
def p99(latencies):
    sorted(latencies)
    return latencies[math.ceil(len(latencies) * 0.99) - 1]
""",
        "In which order must they be",
    ),
    "one too far": ("p99", P99.format("ordered[int(len(ordered) * 0.99)]"), "from 0 or from 1"),
    "rounded to the nearest": ("p99", P99.format("ordered[round(len(ordered) * 0.99) - 1]"), "rounded up"),
    "the 95th": ("p99", P99.format("ordered[math.ceil(len(ordered) * 0.95) - 1]"), "At least 99 per cent"),
    "a place": ("p99", P99.format("math.ceil(len(ordered) * 0.99)"), "a place in the list"),
    "99 per cent of the largest": ("p99", P99.format("ordered[-1] * 0.99"), "99 per cent of the *requests*"),
    "interpolated": (
        "p99",
        "import statistics\n" + P99.format("statistics.quantiles(ordered, n=100)[98]"),
        "between two that were measured",
    ),
    "interpolated, inclusive": (
        "p99",
        "import statistics\n" + P99.format('statistics.quantiles(ordered, n=100, method="inclusive")[98]'),
        "between two that were measured",
    ),
    "nothing returned": ("p99", P99.format("print(ordered[-2])"), "returned None"),
    "no limit": ("apart", APART.format('mount("uploads", uploads, "tmpfs")'), "may hold"),
    "bytes": ("apart", APART.format('mount("uploads", uploads, "tmpfs", 0, f"size={mib}")'), "number without a letter"),
    "the same file system again": ("apart", APART.format("mount(uploads, uploads, None, MS_BIND)"), "bind mount"),
    "over the database": (
        "apart",
        APART.format('mount("database", f"{store}/database", "tmpfs", 0, f"size={mib}m")'),
        "files are gone",
    ),
    "over both": ("apart", APART.format('mount("store", store, "tmpfs", 0, f"size={mib}m")'), "files are gone"),
    "where nobody sees it": (
        "apart",
        APART.format(
            "unshare(CLONE_NEWNS)\n    "
            'mount(None, "/", None, MS_REC | MS_PRIVATE)\n    mount("u", uploads, "tmpfs", 0, f"size={mib}m")'
        ),
        "nobody else does",
    ),
    "read-only": (
        "apart",
        APART.format('mount("u", uploads, "tmpfs", MS_RDONLY, f"size={mib}m")'),
        "EROFS",
    ),
    "beside it": (
        "apart",
        APART.format('os.mkdir(f"{store}/new")\n    mount("u", f"{store}/new", "tmpfs", 0, f"size={mib}m")'),
        "in one file system",
    ),
    "only a folder": ("apart", APART.format('os.makedirs(f"{uploads}/{mib}")'), "Nothing is mounted"),
    "a list": ("sort", "TROUBLES = ['port', 'own']", "A dict is asked for"),
    "an unknown name": ("sort", "TROUBLES = {'harbour': 'own'}", "no trouble called"),
    "an unknown answer": ("sort", "TROUBLES = {'port': 'isolation'}", "For `port` you say"),
    "not all": ("sort", "TROUBLES = {'port': 'own', 'bug': 'no'}", "Still to be sorted"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gets_its_own_message(mistake: str) -> None:
    exercise, code, words = MISTAKES[mistake]
    outcome = attempt("02", exercise, code)
    assert isinstance(outcome, NotYet), outcome
    assert words in outcome.seen + outcome.why, outcome


def sorted_as(**changed: str) -> str:
    return f"TROUBLES = { {name: helps[0] for name, helps in TROUBLES.items()} | changed }"


WRONG = [(name, answer) for name, helps in TROUBLES.items() for answer in ANSWERS if answer not in helps]


@pytest.mark.parametrize(("name", "answer"), WRONG)
def test_a_wrong_answer_is_told_by_its_kind_and_not_by_its_place(name: str, answer: str) -> None:
    outcome = attempt("02", "sort", sorted_as(**{name: answer}))
    assert isinstance(outcome, NotYet)
    (kind,) = (one for one in MISUNDERSTANDINGS if answer in one.said and TROUBLES[name][0] in one.helps)
    assert (outcome.seen, outcome.why) == (kind.seen, kind.why)
    said = outcome.seen + outcome.why
    assert not any(f"`{right}`" in said or f'"{right}"' in said for right in TROUBLES[name])


def test_what_is_said_does_not_depend_on_which_of_a_kind_is_wrong_nor_on_how_many() -> None:
    """So no single answer is confirmed, neither in words nor by a share."""
    tables = [dict(zip(TROUBLES, answers, strict=True)) for answers in itertools.product(ANSWERS, repeat=8)]
    outcomes = [sorted_well(table) for table in tables]
    assert {(one.seen, one.why) for one in outcomes if isinstance(one, NotYet)} == {
        (one.seen, one.why) for one in MISUNDERSTANDINGS
    }
    shown = judge(Sort, dict.fromkeys(TROUBLES, "own"))
    assert isinstance(shown, NotYet)
    assert shown.share == 0  # which is for grading


def test_nothing_sorted_is_not_attempted() -> None:
    for empty in ("TROUBLES = {'port': ..., 'bug': None}", "TROUBLES = {}"):
        assert isinstance(attempt("02", "sort", empty), NotAttempted)


RIGHT = {
    "whole numbers": ("p99", P99.format("ordered[(99 * len(ordered) + 99) // 100 - 1]")),
    "by counting": (
        "p99",
        """
def p99(latencies):
    for one in sorted(latencies):
        if sum(other <= one for other in latencies) >= 0.99 * len(latencies):
            return one
""",
    ),
    "from the other end": ("p99", P99.format("ordered[-1 - len(ordered) // 100]")),
    "in place": (
        "p99",
        """
def p99(latencies):
    latencies.sort()
    return latencies[-(-len(latencies) * 99 // 100) - 1]
""",
    ),
    "by the mount program": (
        "apart",
        """
def apart(uploads, mib):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "uploads", uploads], check=True)
""",
    ),
    "in bytes": ("apart", APART.format('mount("u", uploads, "tmpfs", 0, f"size={mib << 20}")')),
    "mounted elsewhere, bound here": (
        "apart",
        APART.format(
            'os.mkdir(f"{store}/new")\n    mount("u", f"{store}/new", "tmpfs", 0, f"size={mib}m")\n    '
            'mount(f"{store}/new", uploads, None, MS_BIND)'
        ),
    ),
    "a limit for the uploads": ("sort", sorted_as(upload="limit")),
}


@pytest.mark.parametrize("way", RIGHT)
def test_another_right_way_passes(way: str) -> None:
    exercise, code = RIGHT[way]
    outcome = attempt("02", exercise, code)
    assert isinstance(outcome, Passed), outcome


def test_what_is_mounted_in_a_check_does_not_reach_the_lab_host() -> None:
    lab_host = host.pid()
    before = procfs.mountinfo(lab_host)
    for mistake in ("no limit", "over both", "beside it"):
        exercise, code, _ = MISTAKES[mistake]
        attempt("02", exercise, code)
    assert host.pid() == lab_host
    assert procfs.mountinfo(lab_host) == before
    assert os.path.isdir("/proc/self")
