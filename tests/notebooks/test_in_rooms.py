"""Every exercise of every lab, judged in a room: the course's solution passes, and the stub is "not attempted"."""

import pytest

from labkit.course.exercise_spec import Posed
from labkit.course.source import lab_source
from tests.notebooks.rooms import all_exercises, judged, need_rooms, tried
from tests.requirements import need, need_servers

EVERY = all_exercises()
every_exercise = pytest.mark.parametrize(
    "posed", EVERY, ids=[f"{one.written_in.stem.split('_')[0]}-{one.exercise.name}" for one in EVERY]
)
#: What a lab asks of a machine and its exercises do not ask of a room: there, no guest is booted.
NOT_IN_ROOMS = {"guest"}


@every_exercise
def test_the_solution_passes(posed: Posed) -> None:
    need_rooms()
    need(*(word for word in (*lab_source.needs(posed.written_in), *posed.needs) if word not in NOT_IN_ROOMS))
    if posed.written_in.stem.startswith("01"):
        need_servers()
    (said,) = judged(posed, posed.solved)
    assert said["outcome"] == "passed", said
    assert said["share"] == 1


@every_exercise
def test_the_stub_is_not_attempted(posed: Posed) -> None:
    need_rooms()
    (said,) = judged(posed, posed.stub)
    assert said["outcome"] == "not attempted", said
    assert said["share"] == 0


SORTED = """TROUBLES = {
    "port": "own", "library": "own", "report": "limit", "leak": "limit",
    "upload": "own", "partner": "no", "bug": "no", "power": %s,
}"""
TABLE = """shares = {
    "kernel": {"process", "container"}, "uptime": {"process", "container"}, "memory": {"process", "container"},
    "cpu": {"process", "container"}, "users": {"process", "container"}, "hostname": {"process"},
    "processes": {"process"}, "seen": {"process"}, "ports": {"process"}, "files": %s,
}"""
ORDER = """ORDER = [
    "group", "namespaces", "fork", "hostname", "private", "root", "furnish", "pivot", "close", "workdir", "powers",
    "filter",
]
WHY = %s
"""


@pytest.mark.parametrize(
    ("lab", "name", "answer", "share"),
    [
        ("02", "sort", SORTED % "...", 7 / 8),
        ("02", "sort", SORTED % "'limit'", 7 / 8),
        ("04", "shares", TABLE % "{'process', 'guest'}", 8 / 10),
        ("04", "shares", TABLE % "{'process'}", 9 / 10),
        ("12", "order", ORDER % "{}", 1 / 2),
        ("12", "order", ORDER % "{('private', 'root'): 'leak', ('fork', 'furnish'): ['leak']}", 2 / 3),
    ],
)
def test_what_is_half_right_has_its_share(lab: str, name: str, answer: str, share: float) -> None:
    need_rooms()
    said = tried(lab, name, answer)
    assert (said["outcome"], said["share"]) == ("not yet", pytest.approx(share)), said


def test_publish_is_not_taken_in_by_a_server_beside_the_container() -> None:
    """The page is served, the container runs, and the one has nothing to do with the other."""
    need_rooms()
    said = tried(
        "10",
        "publish",
        """
import http.server, os
def publish(network, root):
    web = network.endpoint("web", publish={0: 80})
    server = container.start(["httpd", "-f", "-p", "80", "-h", "/www"], root=root, network=web)
    folder = os.path.join(root, "www")
    files = http.server.SimpleHTTPRequestHandler
    own = http.server.HTTPServer(("127.0.0.1", 0), lambda *a: files(*a, directory=folder))
    if os.fork() == 0:
        own.serve_forever()
    return server, f"http://127.0.0.1:{own.server_port}/"
""",
    )
    assert said["outcome"] == "not yet", said
    assert "not through the network" in said["seen"]


def test_publish_says_what_is_missing_in_a_room_too() -> None:
    need_rooms()
    answer = """
def publish(network, root):
    web = network.endpoint("web", publish={0: 80})
    server = container.start(["httpd", "-f", "-p", "8000", "-h", "/www"], root=root, network=web)
    return server, f"http://127.0.0.1:{web.published[0].host_port}/"
"""
    assert "listens on port 8000" in tried("10", "publish", answer)["seen"]
    assert "no URL" in tried("10", "publish", answer.replace('f"http://', 'f"'))["seen"]
    assert "two things" in tried("10", "publish", answer.replace("return server,", "return"))["why"]


def test_mend_by_hand_is_half_of_it_in_a_room_too() -> None:
    need_rooms()
    said = tried(
        "00", "mend", "from labkit.process import run_in_child\ndef mend():\n    run_in_child(sethostname, 'labhost')"
    )
    assert said["outcome"] == "not yet", said
    assert "Part of the mess is gone" in said["seen"]
    assert said["share"] == pytest.approx(1 / 3)


def test_an_answers_memory_does_not_take_the_judge_along() -> None:
    """Where the kernel limits memory it ends the process that wants too much; the verdict is said all the same."""
    need_rooms()
    need("cgroup-v2")
    answer = "def p99(latencies):\n    kept = []\n    while True:\n        kept.append(bytearray(b'x' * (1 << 24)))\n"
    said = tried("02", "p99", answer, memory_bytes=400 << 20)
    assert said["outcome"] == "not yet", said
    assert "did not return" in said["seen"]


def test_site_is_not_taken_in_by_another_server_than_nginx() -> None:
    need_rooms()
    need_servers()
    answer = """
import http.server, os
def site(port, application_port):
    own = http.server.HTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler)
    if os.fork() == 0:
        os.setsid()
        own.serve_forever()
    return f"server {{ listen 127.0.0.1:{port + 1}; }}"
"""
    said = tried("01", "site", answer)
    assert said["outcome"] == "not yet", said
    assert "not nginx" in said["seen"]
