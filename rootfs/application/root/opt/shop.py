"""The application server's application: a shop's list of items, which it keeps in the database.

    GET  /items          all items, as JSON
    POST /items          a new one, whose name is the body
    GET  /anything/else  a page that says who has answered

It speaks WSGI, the agreement by which any Python web server can call any Python application (PEP 3333). gunicorn calls
`application` once for each request, in one of its worker processes.
"""

import json
import os
import re
from typing import Any

import psycopg2

DATABASE = os.environ["DATABASE"]  # where it is, as libpq writes it: host=... port=... user=... dbname=...


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer one request."""
    # Whoever passed the request on gave it an id, which goes on to the database: so one request can be followed.
    request = re.sub(r"[^\w-]", "", environ.get("HTTP_X_REQUEST_ID", ""))[:40] or "-"
    body: object
    match environ["REQUEST_METHOD"], environ["PATH_INFO"]:
        case "GET", "/items":
            rows = ask(request, "select id, name from items order by id")
            status, body = "200 OK", [{"id": number, "name": name} for number, name in rows]
        case "POST", "/items":
            name = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
            [(number,)] = ask(request, "insert into items (name) values (%s) returning id", name)
            status, body = "201 Created", {"id": number, "name": name}
        case "GET", path:
            status, body = "200 OK", {"path": path, "request": request, "answered by": "the application"}
        case _:
            status, body = "405 Method Not Allowed", {}
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(body).encode() + b"\n"]


def ask(request: str, statement: str, *values: str) -> list[tuple[Any, ...]]:
    """The rows that one statement gives, on a connection of its own, which is named after the request."""
    connection = psycopg2.connect(DATABASE, application_name=request)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())
    finally:
        connection.close()
