"""The example of hidden checks: what solves an exercise passes them, what is made for the notebook's check does not."""

import pytest

from labkit.course import exercise_spec
from labkit.files import state_folder
from tests.notebooks.rooms import judged, need_rooms

HIDDEN = (state_folder.checkout() / "docs" / "hidden" / "lab05.py").read_text()

SPECIAL: dict[str, tuple[str, str]] = {
    "for names that begin as the notebook's do": (
        "isolate",
        """
def isolate(hostname):
    if hostname.startswith("box-"):
        unshare(CLONE_NEWUTS)
        sethostname(hostname)
""",
    ),
    "once for each process": (
        "isolate",
        """
done = []
def isolate(hostname):
    if not done:
        unshare(CLONE_NEWUTS)
        done.append(True)
    sethostname(hostname)
""",
    ),
    "by number and name": (
        "together",
        """
def together(first, second):
    here = os.stat("/proc/self/ns/uts").st_ino
    inside = [os.stat(f"/proc/{pid}/ns/uts").st_ino for pid in (first, second)]
    return first != second and here not in inside and inside[0] == inside[1]
""",
    ),
    "from the lab host only": (
        "join",
        """
home = os.stat("/proc/self/ns/uts").st_ino
def join(pid):
    if os.stat("/proc/self/ns/uts").st_ino == home:
        setns(os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY), CLONE_NEWUTS)
""",
    ),
}


@pytest.mark.parametrize("name", ["isolate", "together", "join"])
def test_a_solution_passes(name: str) -> None:
    need_rooms()
    one = exercise_spec.posed("05", name)
    assert [said["outcome"] for said in judged(one, one.solved, hidden=(HIDDEN,))] == ["passed", "passed"]


@pytest.mark.parametrize("how", SPECIAL)
def test_what_is_made_for_the_notebooks_check_does_not(how: str) -> None:
    need_rooms()
    name, answer = SPECIAL[how]
    seen, hidden = judged(exercise_spec.posed("05", name), answer, hidden=(HIDDEN,))
    assert (seen["outcome"], hidden["outcome"]) == ("passed", "not yet"), (seen, hidden)
    # The reason is shown to learners: it says what kind of question it was, and no more.
    assert not any(word in hidden["why"] for word in ("unshare", "setns", "ns/uts", "inode", "box-", "twice"))


def test_an_untouched_stub_is_not_attempted_twice() -> None:
    need_rooms()
    one = exercise_spec.posed("05", "isolate")
    assert [said["outcome"] for said in judged(one, one.stub, hidden=(HIDDEN,))] == ["not attempted"] * 2
