"""Four real servers, from the distribution's packages: file (vsftpd), database (PostgreSQL), web (nginx), application
(gunicorn, and a small shop that keeps its items in the database; nginx passes /app/ on to it).

    servers.build()                      # once, with the network; ./lab setup does it too
    with servers.start_all() as four:    # on the lab host, with their usual ports, on 127.0.0.1 there
        servers.fetch("/")               # the web server's page
        servers.fetch("/app/items")      # through the web server: the application's list, which is in the database
        servers.query("select name from items")
        servers.upload("a.txt", b"...")
        four["database"].log             # its log file; also .pid, .pids, .port, .folder, .read_log(), .stop()

Whatever is interrupted, a server ends with the lab host, and nothing of it is left. The clients here are for a
notebook; code that already runs on the lab host calls those of `clients`, in this room. `server.request` is one
request, to be made there: of a victim for `labkit.course.experiments.noise`, say.
"""

from typing import Any

from labkit.course.experiments.servers import clients
from labkit.course.experiments.servers.clients import Answer
from labkit.course.experiments.servers.kinds import KINDS, SITE, Setting
from labkit.course.experiments.servers.server import Server
from labkit.course.experiments.servers.trees import NAMES, build, missing
from labkit.course.experiments.servers.trees import find as tree
from labkit.errors import InvalidConfig
from labkit.process import run_in_child

__all__ = [
    "NAMES",
    "SITE",
    "Answer",
    "Server",
    "Servers",
    "build",
    "download",
    "fetch",
    "listing",
    "missing",
    "query",
    "start",
    "start_all",
    "tree",
    "upload",
]


def start(
    name: str, *, port: int | None = None, backend_port: int | None = None, site: str = "", data: str | None = None
) -> Server:
    """Start the server "file", "database", "application" or "web", and wait until it answers.

    Ports are the usual ones where they are not given: 2121, 5432, 8000, 8080. `backend_port` is the port of the server
    that it asks in turn: the web server of the application, the application of the database. `site` is the `server`
    block of nginx's configuration, where it is to be another than `SITE`. `data` is a folder, such as a file system of
    the lab host's, in which the database or the file server shall keep what it is given; otherwise that is in its own.

    `Unsupported`: it has not been built. `LabkitError`: the port is taken, or it does not come up; the last line of its
    log is in the message. `InvalidConfig`: there is no such server, or no such port, or it keeps nothing.
    """
    if name not in KINDS:
        raise InvalidConfig(f"there is no server called {name!r}, only {', '.join(KINDS)}")
    kind = KINDS[name]
    if data is not None and not kind.data:
        raise InvalidConfig(f"the {name} server keeps nothing that could lie in {data}")
    setting = Setting(
        kind.port if port is None else port, kind.backend_port if backend_port is None else backend_port, site
    )
    return Server(kind, setting, data)


class Servers(dict[str, Server]):
    """Running servers by name. In a `with` statement they are stopped on leaving, in reverse order."""

    def stop(self) -> None:
        """Stop them, those that need others before those others."""
        for server in reversed(self.values()):
            server.stop()

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_all() -> Servers:
    """Start all four, on their usual ports. What `start` raises; then none of them runs."""
    running = Servers()
    try:
        for name in KINDS:
            running[name] = start(name)
    except BaseException:
        running.stop()
        raise
    return running


def fetch(path: str = "/", port: int = 8080, *, body: str | None = None, request_id: str = "") -> Answer:
    """From a notebook: `clients.fetch` in a child on the lab host."""
    return run_in_child(clients.fetch, path, port, body=body, request_id=request_id)


def query(sql: str, *values: Any, port: int = 5432) -> list[tuple[Any, ...]]:
    """From a notebook: `clients.query` in a child on the lab host."""
    return run_in_child(clients.query, sql, *values, port=port)


def upload(name: str, content: bytes, port: int = 2121) -> None:
    """From a notebook: `clients.upload` in a child on the lab host."""
    run_in_child(clients.upload, name, content, port)


def download(name: str, port: int = 2121) -> bytes:
    """From a notebook: `clients.download` in a child on the lab host."""
    return run_in_child(clients.download, name, port)


def listing(port: int = 2121) -> list[str]:
    """From a notebook: `clients.listing` in a child on the lab host."""
    return run_in_child(clients.listing, port)
