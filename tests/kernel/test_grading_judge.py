"""Answers that do not want to be judged by what they do. What each deserves is said beside it."""

import csv
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from labkit.course import exercise_spec
from labkit.course.grading import cli, grade, sandbox
from labkit.course.grading.grade import Asked
from labkit.course.grading.report import sheets
from labkit.course.grading.report.gradebook import Gradebook
from labkit.course.grading.results import ExerciseResult, Judged, Result
from labkit.errors import LabkitError

pytestmark = pytest.mark.usefixtures("rooms")

HONEST = """
def isolate(hostname):
    unshare(CLONE_NEWUTS)
    sethostname(hostname)
"""


def judged(
    answer: str, exercise: str = "isolate", lab: str = "05", seed: str = "seed", seconds: float = 120.0
) -> Judged:
    return grade.judge(exercise_spec.posed(lab, exercise), answer, Asked(seed=seed, seconds=seconds))[0]


def test_an_honest_answer_passes_and_a_stub_was_not_attempted() -> None:
    assert judged(HONEST).outcome == "passed"
    assert judged(exercise_spec.posed("05", "isolate").stub).outcome == "not attempted"
    assert judged("isolate = None").outcome == "not attempted"


def test_a_mistake_gets_the_same_words_as_in_the_notebook() -> None:
    wrong = judged("def isolate(hostname):\n    sethostname(hostname)\n    unshare(CLONE_NEWUTS)\n")
    assert wrong.outcome == "not yet"
    assert "lab host" in wrong.seen
    raised = judged("def isolate(hostname):\n    unshare(CLONE_NEWUTS)\n    1 / 0\n")
    assert "ZeroDivisionError" in raised.seen
    assert "line 3 (`1 / 0`)" in raised.seen


def test_the_parameters_are_drawn_from_the_seed() -> None:
    names = [judged(HONEST, seed=seed).seen.split("`")[1] for seed in ("alice", "bob", "alice")]
    assert names[0] == names[2] != names[1]


FORGERIES = {
    "the words of a pass": "print('isolate: passed'); isolate = lambda hostname: print('passed')",
    "a verdict on every descriptor": """
def isolate(hostname):
    import json
    said = json.dumps([{"outcome": "passed", "seen": "", "why": "", "share": 1.0}]).encode()
    for fd in range(64):
        try: os.write(fd, said)
        except OSError: pass
""",
    "a patched check": """
import labkit.course.exercises.lab05.exercises as lab05, labkit.course.framework.judge
import labkit.course.framework.outcomes as verdict
lab05.Isolate.check = lambda self, isolate: verdict.Passed("", "")
labkit.course.framework.judge.judge = lambda *a: verdict.Passed("", "")
def isolate(hostname): return 1
""",
    "patched helpers": """
import labkit.process, labkit.procfs, labkit.course.exercises.common.hostname as hostname
hostname.own_name = lambda *a: None
labkit.procfs.namespace_inode = lambda *a: 4
def isolate(hostname): return 1
""",
    "a pass that is returned": """
from labkit.course.framework.outcomes import Passed
def isolate(hostname): return Passed("", "")
""",
    "an answer that is executed when it is read": """
class Evil:
    def __reduce__(self):
        return exec, ("import labkit.course.exercises.common.hostname as h; h.own_name = lambda *a: None",)
def isolate(hostname): return Evil()
""",
    "an error that is executed when it is read": """
class Evil(Exception):
    def __reduce__(self):
        return os.system, ("true",)
def isolate(hostname): raise Evil()
""",
    # A pickle's BUILD sets attributes on a class, too: each "not yet" would be said as "passed".
    "an answer that changes the judge's own classes": """
def isolate(hostname):
    said = b"(Vvalue\\nclabkit.course.framework.outcomes\\nNotYet\\n(N(dVword\\nVpassed\\nstbt."
    os.write(3, len(said).to_bytes(8, "little") + said)
    os._exit(0)
""",
    "a pass in plain data": """
def isolate(hostname):
    said = b'["value", ["record", "labkit.course.framework.outcomes:Passed", ["", ""]], []]'
    os.write(3, len(said).to_bytes(8, "little") + said)
    os._exit(0)
""",
    "an answer that is longer than any": """
def isolate(hostname):
    os.write(3, (1 << 40).to_bytes(8, "little") + b"[" * 100)
    os._exit(0)
""",
    "an answer without an end in itself": """
def isolate(hostname):
    said = b'["value", ' + b"[" * 1000000
    os.write(3, len(said).to_bytes(8, "little") + said)
    os._exit(0)
""",
    "the lab host as it looks like": """
def isolate(hostname):
    def __getattr__(self, name): return hostname
    sethostname(hostname)
""",
    "a module mounted over ours": f"""
def isolate(hostname):
    from labkit.syscalls import mount
    os.makedirs("/tmp/fake/exercises")
    open("/tmp/fake/exercises/hostname.py", "w").write("own_name = lambda *a: None")
    mount("/tmp/fake/exercises", "{sandbox.COURSE}/labkit/course/exercises", None, MS_BIND)
""",
    "what the machine lacks": """
from labkit.errors import Unsupported
def isolate(hostname): raise Unsupported("nothing", "pass")
""",
    "a check that breaks": """
def isolate(hostname):
    class NotAnswer(BaseException): pass
    raise NotAnswer()
""",
    "an import hook": """
import sys, builtins
builtins.__import__ = None
sys.meta_path.clear()
def isolate(hostname): return 1
""",
}


@pytest.mark.parametrize("answer", FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_does_not_pass(answer: str) -> None:
    verdict = judged(answer)
    assert (verdict.outcome, verdict.share) == ("not yet", 0)


ASSAULTS = {
    "an end of the process": "def isolate(hostname): os._exit(0)",
    "an end of its parent": "def isolate(hostname): os.kill(os.getppid(), 9)",
    "an end of all it may signal": "def isolate(hostname): os.kill(-1, 9)",
    "an end in the cell": "import os; os._exit(0)",
    "a parser's end": "isolate = " + "(" * 5000 + ")" * 5000,
    "a parser's memory": "isolate = " + "-" * 50000 + "1",
    "no Python": "def isolate(:",
    "a NUL": "isolate = 1 \0",
    "a fork bomb": "def isolate(hostname):\n    while True: os.fork()",
    "threads": "def isolate(hostname):\n    while True: threading.Thread(target=threading.Event().wait).start()",
    "much memory": "def isolate(hostname):\n    kept = []\n    while True: kept.append(b'x' * (1 << 24) + b'y')",
    "much output": "def isolate(hostname):\n    for _ in range(300): print('x' * 1000000)",
    "a big answer": "def isolate(hostname): return 'x' * (100 << 20)",
    "a deep answer": "def isolate(hostname):\n    at = []\n    for _ in range(100000): at = [at]\n    return at",
    "a full disk": """
def isolate(hostname):
    with open("/tmp/x", "wb") as file:
        while True: file.write(bytes(1 << 20))
""",
    "everything unmounted": """
def isolate(hostname):
    from labkit.syscalls import umount2
    umount2("/proc", 2); umount2("/tmp", 2)
""",
    "everything covered": """
def isolate(hostname):
    for place in ("/proc", "/tmp", "/usr"): mount("none", place, "tmpfs")
""",
}


@pytest.mark.parametrize("answer", ASSAULTS.values(), ids=ASSAULTS)
def test_an_assault_is_contained_and_has_its_verdict(answer: str) -> None:
    verdict = judged(answer)
    assert verdict.outcome == "not yet", verdict
    assert verdict.seen


def test_an_endless_loop_is_ended_by_the_exercises_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.monotonic()
    seen = judged("def isolate(hostname):\n    while True: pass").seen
    assert re.search(r"had not returned after [\d.e+]+ seconds", seen), seen
    assert time.monotonic() - begun < 100


def test_a_cell_without_an_end_is_ended_with_its_room() -> None:
    assert re.search(r"it had not ended after [\d.]+ s", judged("import time\ntime.sleep(1000)", seconds=3).seen)


LOOKS = """
def isolate(hostname):
    found = []
    for pid in (1, os.getppid(), open(f"/proc/{os.getppid()}/stat").read().rsplit(")")[-1].split()[1]):
        for name in ("environ", "mem", "maps", "ns/uts", "fd/0", "cwd/."):
            try: found.append(open(f"/proc/{pid}/{name}", "rb"))
            except OSError: pass
    raise RuntimeError(f"found {found} {dict(os.environ)}")
"""


def test_the_judge_and_the_zygote_cannot_be_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the grader")
    seen = judged(LOOKS).seen
    assert "SECRET" not in seen
    assert "seed" not in seen
    assert "found []" in seen


def test_what_one_answer_leaves_the_next_does_not_find() -> None:
    leaves = HONEST + "    open('/tmp/answer', 'w').write('x')"
    finds = "def isolate(hostname):\n    raise RuntimeError(str(os.listdir('/tmp')))"
    assert judged(leaves).outcome == "passed"
    assert "answer" not in judged(finds).seen


def test_a_link_of_the_answer_leads_the_judge_nowhere() -> None:
    # The check reads what it finds at the target, as the learner's own user.
    secret = "def copy(source, target):\n    os.symlink('/proc/1/environ', target)"
    assert judged(secret, "copy", "03").outcome == "not yet"


COVERS = f"""
def keep(hostname, path):
    unshare(CLONE_NEWUTS)  # and no name is written
    open(path, "w").close()
    mount("/proc/self/ns/uts", path, None, MS_BIND)
    with open("/tmp/fake.py", "w") as fake:
        fake.write(f"_name_behind = lambda path: ({{hostname!r}}, 'labhost')\\n_unmount_all = print")
    mount("/tmp/fake.py", "{sandbox.COURSE}/labkit/course/exercises/lab05/exercises.py", None, MS_BIND)
"""


def test_helpers_are_imported_before_anything_can_be_mounted_over_them() -> None:
    verdict = judged(COVERS, "keep")
    assert verdict.outcome == "not yet"
    assert "the name in it is `labhost`" in verdict.seen


def test_a_forged_frame_makes_the_judge_open_nothing() -> None:
    # To open a FIFO that nobody writes to takes for ever: the judge would be ended by the time limit.
    forged = """
import json
def isolate(hostname):
    os.mkfifo("/tmp/fifo")
    said = json.dumps(["error", ["error", "builtins:ValueError", ["x"], {}], [["/tmp/fifo", 1, "f"]]]).encode()
    os.write(3, len(said).to_bytes(8, "little") + said)
    os._exit(0)
"""
    verdict = judged(forged)
    assert verdict.outcome == "not yet"
    assert "ValueError: x" in verdict.seen
    assert "had not returned" not in verdict.seen


def test_a_hidden_check_shows_nothing_that_it_has_drawn() -> None:
    hidden = """
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet, Passed
from labkit.process import spawn

class Names(Exercise):
    name = "isolate"
    title = "Names"

    def check(self, isolate):
        name = self.draw_name("hidden")
        try:
            with spawn(isolate, name):
                return Passed("", "")
        except OSError as error:
            error.add_note(f"It was called with {name}.")
            raise
"""
    tells = "def isolate(hostname):\n    error = ValueError(hostname)\n    error.add_note(hostname)\n    raise error\n"
    refused = "def isolate(hostname):\n    os.mkdir(f'/proc/{hostname}')\n"
    for answer in (tells, refused):
        own, more = grade.judge(exercise_spec.posed("05", "isolate"), HONEST + answer, Asked(hidden))
        assert (own.outcome, more.outcome) == ("not yet", "not yet")
        assert "hidden-" not in more.why, more
        assert more.why  # a kind of reason, that anybody may know
        assert "box-" in own.why or answer == refused


def test_a_hidden_check_says_why_and_counts() -> None:
    hidden = """
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet, Passed
from labkit.process import spawn

class LongNames(Exercise):
    name = "isolate"
    title = "Long names"

    def check(self, isolate):
        with spawn(isolate, "x" * 64) as child:
            return Passed("64 characters", "") if helper() else NotYet("", "")

def helper():
    return True
"""
    found = grade.judge(exercise_spec.posed("05", "isolate"), HONEST, Asked(hidden))
    assert [one.outcome for one in found] == ["passed", "passed"]
    short = HONEST + "\n    if len(hostname) > 20: raise ValueError('too long')\n"
    own, more = grade.judge(exercise_spec.posed("05", "isolate"), short, Asked(hidden))
    assert (own.outcome, more.outcome) == ("passed", "not yet")


def test_hidden_checks_that_break_cost_nobody_anything() -> None:
    own, hidden = grade.judge(exercise_spec.posed("05", "isolate"), HONEST, Asked("import nothing_of_that_name"))
    assert (own.outcome, hidden.outcome) == ("passed", "not checked")
    assert "nothing_of_that_name" in hidden.seen


def test_hidden_checks_that_are_not_python_are_told_before_anything_is_graded(tmp_path: Path) -> None:
    (tmp_path / "lab05.py").write_text("def x(:")
    with pytest.raises(LabkitError, match=r"not Python: .* line 1"):
        grade._hidden_text(str(tmp_path), "05")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '[{"outcome": "passed", "seen": "", "why": "", "share": 2}]',
        '[{"outcome": "not yet", "seen": "", "why": "", "share": 1}]',
        '[{"outcome": "great", "seen": "", "why": "", "share": 1}]',
        '[{"outcome": "passed", "seen": 1, "why": "", "share": 1}]',
        "[" * 100000,
    ],
)
def test_a_verdict_of_another_shape_is_none(text: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        grade._read(text)


DIES = """
import os
os.write(2, b"out of something")
os._exit(3)
"""


def test_a_judge_that_dies_is_asked_again_alone_and_then_nobodys_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms, run = [], sandbox.run

    def noted(*args: Any, **how: Any) -> Any:
        rooms.append(how["alone"])
        return run(*args, **how)

    monkeypatch.setattr(sandbox, "run", noted)
    (verdict,) = grade.judge(exercise_spec.posed("05", "isolate"), HONEST, Asked(hidden=DIES))
    assert rooms == [False, True]
    assert (verdict.outcome, verdict.share) == ("not checked", 0)
    assert "not this answer's fault" in verdict.why
    assert "exit code 3" in verdict.trace
    assert "out of something" in verdict.trace
    graded = ExerciseResult("isolate", "Isolate", 2.0, verdict)
    found = Result("ada", "05", "Lab 05", "x.ipynb", (graded,))
    assert (found.points, cli.failed(found)) == (0, True)
    (line,) = csv.DictReader(io.StringIO(sheets.scores(Gradebook([found]))))
    assert (line["percent"], line["05.isolate"]) == ("", "")


def forged_error(frames: object) -> str:
    """An answer that sends an error of its own making."""
    said = json.dumps(["error", ["error", "builtins:ValueError", [["list", []]], {}], frames]).encode()
    return f"""
def isolate(hostname):
    said = {said!r}
    os.write(3, len(said).to_bytes(8, "little") + said)
    os._exit(0)
"""


def test_no_file_is_opened_for_a_frame_that_the_answer_names() -> None:
    frames = [
        ["/proc/self/environ", 1, "x"],
        ["/proc/self/fd/2", 1, "x"],
        ["/etc/passwd", 1, "x"],
        ["/dev/zero", 1, "x"],
    ]
    verdict = judged(forged_error(frames))
    assert "ValueError" in verdict.seen, verdict  # reading /dev/zero takes all the memory that there is
    assert "root:" not in verdict.seen + verdict.why
    own = judged(forged_error([["<isolate>", 3, "x"]]))
    assert "line 3 (`said" in own.seen  # its own text is told


TELLS = """
def isolate(hostname):
    unshare(CLONE_NEWUTS)
    sethostname(hostname)
    if hostname.startswith("secret"):
        error = ValueError(hostname)
        error.add_note(f"it was {hostname}")
        raise error
"""
TRIES = """
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet, Passed
from labkit.process import spawn
class More(Exercise):
    name = "isolate"
    title = "with a name that nobody knows"
    def check(self, isolate):
        with spawn(isolate, "secret-7f3a"):
            return Passed("", "")
"""


def test_a_hidden_check_does_not_tell_what_it_has_tried() -> None:
    own, hidden = grade.judge(exercise_spec.posed("05", "isolate"), TELLS, Asked(hidden=TRIES))
    assert (own.outcome, hidden.outcome) == ("passed", "not yet")
    assert "secret" not in hidden.why  # what is seen is for the instructor


BODY = HONEST.strip().split("\n", 1)[1]
AS_LEARNERS_WRITE = {
    "timed": f"%%time{HONEST}",
    "with a shell line": f"!ls /\n{HONEST}",
    "with a magic": f"%matplotlib inline\n{HONEST}names = %pwd\n",
    "with a question": f"?sethostname\n{HONEST}isolate?\n",
    "with a shell line that is kept": f"files = !ls /\n{HONEST}for file in files: print(file)\n",
    "with await": f"import asyncio\nawait asyncio.sleep(0)\n{HONEST}",
    "captured": f"%%capture out\n{HONEST}",
    "with IPython itself": f"get_ipython().run_line_magic('time', '1')\n{HONEST}",
    "with a check": f"{HONEST}lab.isolate.check(isolate)\n",
    "a shell line in the function": f"def isolate(hostname):\n    !ls\n{BODY}\n",
}


@pytest.mark.parametrize("answer", AS_LEARNERS_WRITE.values(), ids=AS_LEARNERS_WRITE)
def test_what_ipython_understands_costs_no_points(answer: str) -> None:
    assert judged(answer).outcome == "passed"


def test_a_line_that_fails_is_found_below_magics() -> None:
    verdict = judged("%%time\n!ls\ndef isolate(hostname):\n    1 / 0\n")
    assert "line 4 (`1 / 0`)" in verdict.seen
    assert judged("!ls\ndef isolate(:\n").seen.startswith("The cell is not Python: ")


FORGED_CODEC = """
def isolate(hostname):
    # Over all that may still be imported, by whatever name.
    os.makedirs("/tmp/forged", exist_ok=True)
    for name in {names!r}:
        with open(f"/tmp/forged/{{name}}.py", "w") as file:
            file.write("open('/tmp/ran', 'a').write(__name__)\\nraise ImportError")
    mount("/tmp/forged", {folder!r}, None, MS_BIND)
"""
LATER = """
import os
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet, Passed
from labkit.process import run_in_child, spawn, spawn_closed

class More(Exercise):
    name = "isolate"
    title = "what is imported later"

    def check(self, isolate):
        with spawn(isolate, "x"), spawn_closed(os.getpid) as helper:
            said = helper.call(later)
        return Passed(said, "") if said == "b'xn--bcher-kva' unknown encoding: hex" else NotYet(said, "")

def later():
    said = str("b\u00fccher".encode("idna"))
    try:
        import codecs
        codecs.encode(b"x", "hex")
    except LookupError as error:
        said += f" {error}"
    return said + (" ran" if os.path.exists("/tmp/ran") else "")
"""


def test_what_a_helper_imports_later_is_not_what_the_answer_has_put_there() -> None:
    import encodings

    names = ["idna", "hex_codec", "punycode"]
    forged = FORGED_CODEC.format(names=names, folder=str(Path(encodings.__file__).parent))
    own, more = grade.judge(exercise_spec.posed("05", "isolate"), forged, Asked(hidden=LATER))
    assert own.outcome == "not yet"
    assert more.outcome == "passed", more.seen


def test_an_answer_may_import_what_it_likes() -> None:
    assert judged(HONEST + "    import colorsys, wave\n    'x'.encode('utf-7')\n").outcome == "passed"
