"""The exercises of lab 01: who answers on a port, one request through three servers, the application behind nginx."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from labkit import procfs
from labkit.course.experiments import servers
from labkit.course.experiments.servers import clients, sockets
from labkit.course.experiments.servers.servers import Answer, Server
from labkit.course.framework import pace
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet, Passed, Verdict
from labkit.errors import LabkitError
from labkit.process import run_in_child, spawn

PATIENCE_SECONDS = 20.0  # a server writes a line of its log after it has answered


class Serving(Exercise):
    """From a port to the process that is responsible for it."""

    name = "serving"
    title = "Who answers on this port?"
    points = 2
    start = "Begin by asking psutil for all TCP sockets of this network: `psutil.net_connections('tcp')`."
    seconds = 120.0
    hints = (
        "A socket that waits for connections is in state LISTEN, and its local address ends in the port.",
        (
            "Of the processes that hold that socket psutil names one. Is it the first of them? Ask for its "
            "`.parent()`, and compare their `.name()`s."
        ),
        (
            "`process = psutil.Process(found.pid)`, then "
            "`while (parent := process.parent()) and parent.name() == process.name(): process = parent`."
        ),
    )
    because = (
        "All processes of one server hold the listening socket: the first one opened it, and the others have inherited "
        "it. The first is the one to signal when the server is to stop or to read its configuration anew."
    )

    def check(self, serving: Callable[[int], object]) -> Verdict:
        """Two web servers and a client that stays connected; ask for each of the two."""
        with ExitStack() as stack:
            web, other = (stack.enter_context(servers.start("web", port=port)) for port in self._ports(2))
            client = stack.enter_context(spawn(_connect, web.port))
            for asked, wrong in ((web, other), (other, web)):
                if verdict := _is_responsible(run_in_child(serving, asked.port), asked, wrong, client.pid):
                    return verdict
            return Passed(
                f"Port {web.port} is process {web.pid}'s and port {other.port} is process {other.pid}'s: two nginx "
                "side by side, told apart by their ports alone.",
                "A port is all that a client knows of a server. When a port is taken, or a server must be stopped, "
                "this is the question to ask; on a command line, `ss -ltnp` answers it.",
            )

    def _ports(self, count: int) -> list[int]:
        return self.random.sample(range(20_000, 30_000), count)


def _connect(port: int) -> socket.socket:
    global _connection
    _connection = socket.create_connection(("127.0.0.1", port))  # open for as long as this child is there
    return None  # type: ignore[return-value]


_connection: socket.socket | None = None


def _is_responsible(answer: object, asked: Server, wrong: Server, client: int) -> Verdict | None:
    called = f"`serving({asked.port})` returned {answer!r}"
    pids = asked.pids
    if answer == asked.pid and not isinstance(answer, bool):
        return None
    if answer is None:
        return NotYet(
            f"{called}, and process {asked.pid} listens on that port.",
            "A listening socket has the state `psutil.CONN_LISTEN`, and its port is in `laddr`, not in `raddr`.",
        )
    if not isinstance(answer, int):
        return NotYet(f"{called}, which is no number of a process.", "A process has a `.pid`, which is what is asked.")
    if answer in pids:
        return NotYet(
            f"{called}. That process holds the listening socket, but so does its parent {asked.pid}: it is one of the "
            f"{len(pids) - 1} workers.",
            "If a worker is stopped, the first process starts another one, as you have seen, and the server goes on. "
            "How do you come from a worker to the process that made it?",
        )
    if answer in wrong.pids:
        return NotYet(
            f"{called}. That is a process of the other web server, on port {wrong.port}.",
            "Both are called nginx, so a name is not enough. What do you compare with the port?",
        )
    if answer == client:
        return NotYet(
            f"{called}. That is a client: a process that is connected *to* port {asked.port}.",
            "A connection has two ends, and the far end's port is in `raddr`. Which state has a socket that waits?",
        )
    if answer == _parent(asked.pid):
        return NotYet(
            f"{called}. That one is the parent of the server's first process; it has started the server, but holds "
            "no socket of it.",
            "You climbed one step too far. Where do the names stop being the same?",
        )
    return NotYet(
        f"{called}, a process that has nothing to do with port {asked.port}.",
        "Begin with the socket that is in state LISTEN on that port, not with the list of processes.",
    )


def _parent(pid: int) -> int:
    return int(procfs.stat(pid)[3])


class Follow(Exercise):
    """One request, by its id, through three logs."""

    name = "follow"
    title = "Follow one request through three servers"
    points = 2
    start = "Begin with one log: find the line that has the request's id, and in it the number of the process."
    seconds = 240.0
    hints = (
        "Look at the three lines above. Each server writes the id, and the number of its process in brackets.",
        (
            "`for line in logs[name].splitlines()`: the id stands between blanks, so `request_id in line.split()` does "
            "not take `r-77` for `r-7`."
        ),
        (
            'For each name, from the first line that has the id as a word: `int(re.search(r"[\\[<](\\d+)[\\]>]", '
            "line)[1])`."
        ),
    )
    because = (
        "The id is made at the first server and handed on, so that lines of different logs can be put together. An id "
        "is found as a whole word, since one may begin as another does."
    )

    def check(self, follow: Callable[[str, Mapping[str, str]], object]) -> Verdict:
        """Real requests, some of whose ids begin alike; ask for several."""
        with _three(self.random.sample(range(20_000, 30_000), 3)) as three:
            base = self.draw_name("r")
            ids = [f"{base}{tail}" for tail in ("7", "", "70", "1")]
            for request_id in ids:
                run_in_child(clients.fetch, "/app/items", three["web"].port, request_id=request_id)
            truth = {request_id: _who_served(request_id, three) for request_id in ids}
            logs = {name: server.read_log() for name, server in three.items()}
            mains = {name: server.pid for name, server in three.items()}
        answers = {asked: follow(asked, dict(logs)) for asked in ids[1:]}
        for asked, answer in answers.items():
            if verdict := _is_followed(answer, asked, truth, mains):
                return replace(verdict, share=_share(answers, truth))
        found = truth[ids[1]]
        return Passed(
            f"Request {ids[1]} went through process {found['web']} of the web server, process "
            f"{found['application']} of the application and process {found['database']} of the database.",
            "Three servers have three logs, and a busy one has thousands of lines a second. With an id that travels "
            "along, one question finds what belongs together; on a large scale this is called tracing.",
        )


@contextmanager
def _three(ports: list[int]) -> Iterator[dict[str, Server]]:
    """Database, application and web server, each asking the one before."""
    with ExitStack() as stack:
        running: dict[str, Server] = {}
        backend = None
        for name, port in zip(("database", "application", "web"), ports, strict=True):
            running[name] = stack.enter_context(servers.start(name, port=port, backend_port=backend))
            backend = port
        yield running


_PID = re.compile(r"[\[<](\d+)[\]>]")


def _who_served(request_id: str, three: Mapping[str, Server]) -> dict[str, int]:
    """For each server the process whose line has this id; they are given some time to write it."""
    return {name: _wait_for_line(server, request_id) for name, server in three.items()}


def _wait_for_line(server: Server, request_id: str) -> int:
    deadline = time.monotonic() + pace.scaled(PATIENCE_SECONDS)
    while True:
        for line in server.read_log().splitlines():
            if request_id in line.split() and (found := _PID.search(line)):
                return int(found[1])
        if time.monotonic() > deadline:
            raise LabkitError(f"the {server.name} server has not noted request {request_id}")
        time.sleep(0.02)


def _share(answers: Mapping[str, object], truth: Mapping[str, Mapping[str, int]]) -> float:
    """How much is right: for each request, each of the three servers."""
    right: list[bool] = [
        isinstance(answer, Mapping) and bool(answer.get(name) == pid)
        for asked, answer in answers.items()
        for name, pid in truth[asked].items()
    ]
    return sum(right) / len(right)


def _is_followed(
    answer: object, asked: str, truth: Mapping[str, Mapping[str, int]], mains: Mapping[str, int]
) -> NotYet | None:
    wanted = truth[asked]
    if not isinstance(answer, Mapping):
        return NotYet(
            f'`follow("{asked}", logs)` returned {answer!r}.',
            "The answer is a dictionary: the name of each server to the PID that dealt with the request.",
        )
    for name in ("web", "application", "database"):
        if name not in answer:
            return NotYet(
                f"For request {asked} there is nothing about the {name} server; the answer has "
                f"{', '.join(map(str, answer)) or 'nothing at all'}.",
                f'Its log is `logs["{name}"]`. Does a line of it have the id?',
            )
        found = answer[name]
        if found == wanted[name]:
            continue
        said = f"Request {asked} was dealt with in the {name} server by process {wanted[name]}, and your answer is "
        if isinstance(found, str) and found.isdecimal():
            return NotYet(f"{said}the text {found!r}.", "A PID is a number: `int(...)` makes one of a text.")
        others = [one for one in truth if one != asked and truth[one][name] == found]
        if found in {wanted[one] for one in wanted if one != name}:
            return NotYet(
                f"{said}{found!r}, which is the process of another of the three servers.",
                "Each server has a log and processes of its own. Which log did you read for which name?",
            )
        if found == mains[name]:
            return NotYet(
                f"{said}{found!r}, the server's first process.",
                "That one listens and makes workers, but deals with no request. The line of the log names who did.",
            )
        if others:
            return NotYet(
                f"{said}{found!r}, which dealt with request {others[0]}.",
                f"`{asked}` and `{others[0]}` begin alike. When is a line about the one and not about the other?",
            )
        return NotYet(
            f"{said}{found!r}.",
            "The number of the process stands in brackets. A line has other numbers too: the time, the status.",
        )
    return None


class Site(Exercise):
    """nginx's configuration: pages of its own, and the application behind it."""

    name = "site"
    title = "Put the application behind nginx"
    points = 2
    start = "Begin with `server { listen 127.0.0.1:PORT; root /srv/pages; }`, PORT being the argument."
    seconds = 240.0
    hints = (
        (
            "A `server` block says where nginx listens and what it does. Inside, a `location /app/ { ... }` is for the "
            "paths that begin so; all others are files below `root`."
        ),
        (
            "`proxy_pass` hands a request on. With a `/` at the end of its address, what matched the location is taken "
            "off: `/app/items` becomes `/items`."
        ),
        ("In the location: `proxy_pass http://127.0.0.1:APPLICATION_PORT/;` and `proxy_set_header X-Request-ID $id;`."),
    )
    because = (
        "One address for the outside, and behind it a server for each kind of work: files come straight from nginx, "
        "and the application is asked only for what must be computed. In an f-string the braces of nginx are doubled."
    )

    def check(self, site: Callable[[int, int], object]) -> Verdict:
        """Start nginx with it in front of a real application, and ask both through it."""
        port, application_port, ready_port = self.random.sample(range(20_000, 30_000), 3)
        text = site(port, application_port)
        if not isinstance(text, str) or not text.strip():
            return NotYet(f"`site()` returned {text!r}.", "It returns text: the `server` block, as nginx reads it.")
        # A server block of our own besides: once that one answers, nginx has opened all its sockets.
        text = f"server {{ listen 127.0.0.1:{ready_port}; return 204; }} {text}\n"
        with ExitStack() as stack:
            application = stack.enter_context(servers.start("application", port=application_port))
            try:
                web = stack.enter_context(servers.start("web", port=ready_port, site=text))
            except LabkitError as error:
                return _not_up(str(error))
            if verdict := _listens(web, port):
                return verdict
            return _somebody_elses(web, port) or self._through_it(web, application, port)

    def _through_it(self, web: Server, application: Server, port: int) -> Verdict:
        page, path = self.draw_name("page"), self.draw_name("path")
        run_in_child(Path.write_text, web.folder / "pages" / f"{page}.html", f"<p>{page}</p>\n")  # nginx's own folder
        got = run_in_child(_ask, f"/{page}.html", port)
        if verdict := _is_page(got, page):
            return verdict
        got = run_in_child(_ask, f"/app/{path}", port)
        if verdict := _is_from_application(got, path, application):
            return verdict
        return Passed(
            f"On 127.0.0.1:{port}, `/{page}.html` came from nginx's own files, and `/app/{path}` from the application "
            f"on port {application.port}, which was told the request's id.",
            "A client sees one server. Behind it others can be added, moved or taken away, and only this file changes.",
        )


def _ask(path: str, port: int) -> Answer | str:
    try:
        return clients.fetch(path, port)
    except OSError as error:
        return str(error)


def _not_up(said: str) -> Verdict:
    said = said.partition("last line of its log: ")[2] or said
    said = re.sub(r"^[\d/: ]+\[\w+\] [\d#]+: ", "", said)
    hint = "nginx names the line and the word. It numbers the lines of your text from 1."
    if "not allowed here" in said:
        hint = "Each directive has its place: a `location` stands in a `server { ... }`, and `listen` there too."
    elif "could not bind" in said or "Address already in use" in said:
        hint = "Somebody listens on that port already: the application? nginx listens on `port`."
    elif "unexpected" in said or "not terminated" in said:
        hint = "A simple directive ends with a semicolon, and a block with a brace; each brace that opens must close."
    elif "Permission denied" in said:
        hint = "A port below 1024 is for root. Use the port that is given as an argument."
    return NotYet(f"nginx did not start with this configuration; it said: {said}", hint)


def _listens(web: Server, port: int) -> Verdict | None:
    addresses = run_in_child(sockets.listening, port)
    if not addresses:
        return NotYet(
            f"nginx runs, but nobody listens on port {port}.",
            "Which port does your `listen` name? It must be the argument, not a number that you have chosen.",
        )
    if set(addresses) != {sockets.LOOPBACK}:
        return NotYet(
            f"nginx listens on port {port} of every address that the machine has, not on 127.0.0.1 alone.",
            "With a port alone, or 0.0.0.0, everybody in the network can come in. `listen` takes an address too.",
        )
    return None


def _somebody_elses(web: Server, port: int) -> Verdict | None:
    """Whether it is not nginx that listens on the port."""
    if run_in_child(sockets.held_by, port, web.pids):
        return None
    return NotYet(
        f"Somebody listens on port {port}, and it is not nginx.",
        "Asked for is a configuration of nginx. What else did your function start?",
    )


def _is_page(got: Answer | str, page: str) -> Verdict | None:
    asked = f"A new page was put into /srv/pages, and `/{page}.html` asked for. "
    if isinstance(got, str):
        return NotYet(f"{asked}There was no answer: {got}.", "Does the block that listens on the port answer at all?")
    if got.text == f"<p>{page}</p>\n":
        return None
    if "answered by" in got.text:
        return NotYet(
            f"{asked}It was the application that answered, not nginx.",
            "A page is a file, and nginx reads files far faster than the application could. Your `location` takes in "
            "more than `/app/`: which paths begin with `/`?",
        )
    if got.status == 404:
        return NotYet(
            f"{asked}nginx answered 404: it looked for the file somewhere else.",
            "`root` names the folder, as nginx sees it: /srv/pages. Is it there, and outside of the `location`?",
        )
    return NotYet(f"{asked}The answer was {got.status}.", "Nothing but a file needs to be sent here. What else is set?")


def _is_from_application(got: Answer | str, path: str, application: Server) -> Verdict | None:
    asked = f"`/app/{path}` was asked for. "
    if isinstance(got, str):
        return NotYet(f"{asked}There was no answer: {got}.", "Where does the `location` send the request?")
    if got.status in (502, 504):
        return NotYet(
            f"{asked}nginx answered {got.status}: whom it asked in turn does not answer. The application listens on "
            f"port {application.port}.",
            "Which port does your `proxy_pass` name? It is the second argument.",
        )
    try:
        answer = json.loads(got.text)
        seen, request_id = answer["path"], answer["request"]
    except (ValueError, KeyError, TypeError):
        return NotYet(
            f"{asked}The answer, {got.status}, is not the application's.",
            "nginx looked for a file, or sent it elsewhere. A `location` with `proxy_pass` hands a request on.",
        )
    if seen != f"/{path}":
        return NotYet(
            f"{asked}The application got it as `{seen}`; it knows only paths without `/app`.",
            "With a `/` at the end of its address, `proxy_pass` takes off what the `location` matched.",
        )
    if request_id == "-":
        return NotYet(
            f"{asked}It reached the application, but without its id.",
            "The request came without one, and nginx has made one: it is in the variable `$id`. Which directive sets a "
            "header of the request that is handed on?",
        )
    return None
