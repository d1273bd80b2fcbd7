"""Clients of the four servers. They speak to 127.0.0.1, so they run where the servers do: in a child on the lab host.

`labkit.course.experiments.servers` has the same functions for a notebook, which run these in such a child.
"""

import ftplib
import http.client
import io
from dataclasses import dataclass
from typing import Any

TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Answer:
    """What a web or application server answered."""

    status: int  #: 200: here it is; 404: there is no such thing; 502: whom I asked for it does not answer
    headers: dict[str, str]  #: by their names in lower case
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")


def fetch(path: str = "/", port: int = 8080, *, body: str | None = None, request_id: str = "") -> Answer:
    """Ask the web or the application server for `path`: with GET, or with POST where there is a `body`.

    `request_id` goes along in the header X-Request-ID. OSError: nobody answers on that port.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        headers = {"X-Request-ID": request_id} if request_id else {}
        connection.request("GET" if body is None else "POST", path, body, headers)
        reply = connection.getresponse()
        names = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(reply.status, names, reply.read())
    finally:
        connection.close()


def query(sql: str, *values: Any, port: int = 5432, database: str = "shop") -> list[tuple[Any, ...]]:
    """Have the database execute one statement, in which each %s stands for one of `values`; return the rows it gives.

    psycopg2.Error: it refuses, or does not answer.
    """
    import psycopg2

    connection = psycopg2.connect(
        host="127.0.0.1", port=port, user="shop", dbname=database, connect_timeout=int(TIMEOUT_SECONDS)
    )
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


def upload(name: str, content: bytes, port: int = 2121) -> None:
    """Put a file on the file server. ftplib.Error, OSError: it refuses, or does not answer."""
    with _ftp(port) as ftp:
        ftp.storbinary(f"STOR {name}", io.BytesIO(content))


def download(name: str, port: int = 2121) -> bytes:
    """A file of the file server. ftplib.Error, OSError: it refuses (550: no such file), or does not answer."""
    content = io.BytesIO()
    with _ftp(port) as ftp:
        ftp.retrbinary(f"RETR {name}", content.write)
    return content.getvalue()


def listing(port: int = 2121) -> list[str]:
    """The names of the files on the file server."""
    with _ftp(port) as ftp:
        return sorted(ftp.nlst())


def _ftp(port: int) -> ftplib.FTP:
    ftp = ftplib.FTP(timeout=TIMEOUT_SECONDS)
    ftp.connect("127.0.0.1", port)
    ftp.login()
    return ftp


def probe(name: str, port: int) -> None:
    """Ask the server `name` for something that it always has. An exception: it gives no answer, or not a good one."""
    match name:
        case "file":
            download("welcome.txt", port)
        case "database":
            query("select 1", port=port, database="postgres")
        case _:
            fetch("/", port)


def furnish(port: int) -> None:
    """Give a new database its first content."""
    query("create database shop", port=port, database="postgres")
    query("create table items (id serial primary key, name text not null)", port=port)
    query("insert into items (name) values ('bread'), ('cheese'), ('apples')", port=port)
