"""Lab 01: each likely mistake gets its own message, and other right ways than the course's pass."""

import pytest

from labkit.course.authoring.trial import attempt
from labkit.course.framework.outcomes import NotYet, Passed
from tests.requirements import need_servers


@pytest.fixture(autouse=True)
def built() -> None:
    need_servers()


def site(body: str) -> str:
    """A solution of `site` that returns this server block; PORT and APP stand for the ports."""
    return f"""
def site(port, application_port):
    return {body!r}.replace("PORT", str(port)).replace("APP", str(application_port))
"""


PROXY = "location /app/ { proxy_pass http://127.0.0.1:APP/; proxy_set_header X-Request-ID $id; }"

MISTAKES = {
    "a worker": (
        "serving",
        """
def serving(port):
    return max(p.pid for p in psutil.process_iter() if p.pid in sockets.holders(port))
""",
        "it is one of the 2 workers",
    ),
    "by name alone": (
        "serving",
        """
def serving(port):
    return min(p.pid for p in psutil.process_iter() if p.name() == "nginx")
""",
        "a process of the other web server",
    ),
    "the client": (
        "serving",
        """
def serving(port):
    for one in psutil.net_connections("tcp"):
        if one.raddr and one.raddr.port == port and one.pid:
            return one.pid
""",
        "That is a client",
    ),
    "one step too far": (
        "serving",
        """
def serving(port):
    return psutil.Process(sockets.holders(port)[0]).ppid()
""",
        "one step too far",
    ),
    "nothing found": (
        "serving",
        """
def serving(port):
    for one in psutil.net_connections("tcp"):
        if one.raddr and one.raddr.port == port and one.status == psutil.CONN_LISTEN:
            return one.pid
""",
        "its port is in `laddr`",
    ),
    "somebody else": (
        "serving",
        """
def serving(port):
    return 1
""",
        "nothing to do with port",
    ),
    "not a number": (
        "serving",
        """
def serving(port):
    return "nginx"
""",
        "no number of a process",
    ),
    "an id that begins alike": (
        "follow",
        """
def follow(request_id, logs):
    dealt = {}
    for name, text in logs.items():
        for line in text.splitlines():
            if request_id in line and name not in dealt and (found := re.search(r"[\\[<](\\d+)[\\]>]", line)):
                dealt[name] = int(found[1])
    return dealt
""",
        "begin alike",
    ),
    "text instead of numbers": (
        "follow",
        """
def follow(request_id, logs):
    dealt = {}
    for name, text in logs.items():
        for line in text.splitlines():
            if request_id in line.split():
                dealt[name] = re.search(r"[\\[<](\\d+)[\\]>]", line)[1]
    return dealt
""",
        "A PID is a number",
    ),
    "one log only": (
        "follow",
        """
def follow(request_id, logs):
    for line in logs["web"].splitlines():
        if request_id in line.split():
            return {"web": int(re.search(r"\\[(\\d+)\\]", line)[1])}
""",
        "nothing about the application server",
    ),
    "one log for all": (
        "follow",
        """
def follow(request_id, logs):
    for line in logs["web"].splitlines():
        if request_id in line.split():
            return dict.fromkeys(logs, int(re.search(r"\\[(\\d+)\\]", line)[1]))
""",
        "another of the three servers",
    ),
    "another number of the line": (
        "follow",
        """
def follow(request_id, logs):
    return {name: 200 for name in logs}
""",
        "has other numbers too",
    ),
    "not a dictionary": (
        "follow",
        """
def follow(request_id, logs):
    return 7
""",
        "The answer is a dictionary",
    ),
    "no text": (
        "site",
        """
def site(port, application_port):
    return ["server"]
""",
        "It returns text",
    ),
    "no semicolon": ("site", site("server { listen 127.0.0.1:PORT root /srv/pages; }"), "nginx did not start"),
    "a brace is missing": ("site", site("server { listen 127.0.0.1:PORT; " + PROXY), "a block with a brace"),
    "a location without a server": ("site", site(PROXY), "Each directive has its place"),
    "the application's port": (
        "site",
        site("server { listen 127.0.0.1:APP; root /srv/pages; }"),
        "listens on that port",
    ),
    "a port of one's own": (
        "site",
        site("server { listen 127.0.0.1:18080; root /srv/pages; }"),
        "nobody listens on port",
    ),
    "every address": ("site", site("server { listen PORT; root /srv/pages; }"), "not on 127.0.0.1 alone"),
    "everything to the application": (
        "site",
        site("server { listen 127.0.0.1:PORT; location / { proxy_pass http://127.0.0.1:APP; } }"),
        "It was the application that answered",
    ),
    "no root": ("site", site("server { listen 127.0.0.1:PORT; " + PROXY + "}"), "`root` names the folder"),
    "another upstream port": (
        "site",
        site("server { listen 127.0.0.1:PORT; root /srv/pages; " + PROXY.replace("APP", "17999") + "}"),
        "Which port does your `proxy_pass` name?",
    ),
    "no proxy": (
        "site",
        site("server { listen 127.0.0.1:PORT; root /srv/pages; }"),
        "A `location` with `proxy_pass`",
    ),
    "/app stays": (
        "site",
        site("server { listen 127.0.0.1:PORT; root /srv/pages; " + PROXY.replace("APP/", "APP") + "}"),
        "it knows only paths without `/app`",
    ),
    "no id": (
        "site",
        site("server { listen 127.0.0.1:PORT; root /srv/pages; " + PROXY.replace("X-Request-ID $id", "X-None 1") + "}"),
        "without its id",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gets_its_own_message(mistake: str) -> None:
    exercise, code, words = MISTAKES[mistake]
    outcome = attempt("01", exercise, code)
    assert isinstance(outcome, NotYet), outcome
    assert words in outcome.seen + outcome.why, outcome


RIGHT = {
    "by its sockets": (
        "serving",
        """
def serving(port):
    return sockets.holders(port)[0]
""",
    ),
    "the oldest of those that hold it": (
        "serving",
        """
def serving(port):
    held = [p for p in psutil.process_iter() if p.pid in sockets.holders(port)]
    return min(held, key=lambda p: (p.create_time(), p.pid)).pid
""",
    ),
    "by one regular expression each": (
        "follow",
        """
def follow(request_id, logs):
    patterns = {"web": r" ID \\[(\\d+)\\]", "application": r" ID <(\\d+)>", "database": r"\\[(\\d+)\\] ID "}
    return {name: int(re.search(patterns[name].replace("ID", re.escape(request_id)), logs[name])[1]) for name in logs}
""",
    ),
    "an alias, an upstream, and a rewrite": (
        "site",
        site(
            "upstream shop { server 127.0.0.1:APP; } server { listen 127.0.0.1:PORT; "
            "location / { alias /srv/pages/; } "
            "location ~ ^/app/ { rewrite ^/app(/.*)$ $1 break; proxy_pass http://shop; "
            "proxy_set_header X-Request-ID $id; } }"
        ),
    ),
    "the header for all": (
        "site",
        site(
            "server { listen 127.0.0.1:PORT; proxy_set_header X-Request-ID $id; root /srv/pages; "
            "location ^~ /app/ { proxy_pass http://localhost:APP/; } }"
        ),
    ),
}


@pytest.mark.parametrize("way", RIGHT)
def test_another_right_way_passes(way: str) -> None:
    exercise, code = RIGHT[way]
    outcome = attempt("01", exercise, code)
    assert isinstance(outcome, Passed), outcome
