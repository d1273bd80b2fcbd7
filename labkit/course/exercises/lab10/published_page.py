"""A published page: its container's root, fetching it, and, where a judge checks, whose page it is. For lab 10."""

import http.client
import os
import shutil
import signal
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult

from labkit import namespaces, procfs, rootfs, temporary
from labkit.container.container import Container
from labkit.course.exercises.common.notebook_stand_in import Desk, held
from labkit.course.exercises.lab10.port_checks import listening, not_published
from labkit.course.framework import pace
from labkit.course.framework.outcomes import NotYet, Passed, Verdict
from labkit.network import Network
from labkit.process import run_in_child

_PAGE_BYTES = 10_000


def make_root(root: str, page: str) -> None:
    """Make `root` a root file system with a `page` to serve. Root's own folder may be closed, and is not needed."""
    shutil.copytree(rootfs.find("busybox"), root, symlinks=True, ignore=shutil.ignore_patterns("root"))
    Path(root, "www").mkdir()
    Path(root, "www", "index.html").write_text(page)


def shown(answer: object) -> str:
    """What a function has returned, as a verdict says it."""
    text = repr(answer)
    return f"`{text}`" if len(text) <= 60 else f"a {type(answer).__name__}"


def not_two_things(what: str) -> NotYet:
    return NotYet(
        f"`publish()` returned {what}.",
        "It returns two things: the container, still running, and the URL. `return server, url` makes a tuple.",
    )


def parts_of(url: object) -> SplitResult | NotYet:
    """The parts of a URL of a web server; or that it is none."""
    try:
        parts = urllib.parse.urlsplit(url) if isinstance(url, str) else None
        if parts and parts.scheme == "http" and parts.hostname and parts.port != 0:
            return parts
    except ValueError:  # a port that is no number
        pass
    return NotYet(f"{url!r:.100} is no URL of a web server.", 'One looks like this: `"http://127.0.0.1:8080/"`.')


def fetch(url: str, alive: Callable[[], bool] = lambda: True) -> str:
    """The page at `url`, or the name of the error; a server that has only begun to start has its moment."""
    error = ""
    deadline = time.monotonic() + pace.scaled(2.0)
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=pace.scaled(2.0)) as answer:
                return str(answer.read(_PAGE_BYTES).decode("utf-8", "replace"))
        except urllib.error.HTTPError as failed:
            return f"HTTP {failed.code}"
        except (OSError, http.client.HTTPException, ValueError) as failed:
            reason = getattr(failed, "reason", failed)
            error = type(reason).__name__
            if error == "ConnectionRefusedError" or not alive():
                break
        time.sleep(0.02)
    return error


# Where a judge checks: the function is called at a desk, and what it returns there proves nothing


def looked_at(publish: Callable[[Network, str], Any], name: str, page: str) -> Verdict:
    """Call it at a desk; fetch the page from beside it, find who serves it, and see that nobody else does."""
    with temporary.Folder() as above, Desk() as desk:
        root = f"{above}/root"
        desk.child.call(make_root, root, page)
        told: object = desk.child.call(_publish, publish, name, root)
        if not (isinstance(told, tuple) and len(told) == 3):
            return not_two_things("something else")  # whoever runs there has changed even this
        url, what, is_container = told
        if not is_container:
            return not_two_things(f"{what}"[:80])
        parts = parts_of(url)
        if isinstance(parts, NotYet):
            return parts
        got = run_in_child(fetch, url)
        if got != page:
            return _told_why(desk, url, got)
        return _through_a_container(desk, parts, page)


def _through_a_container(desk: Desk, parts: SplitResult, page: str) -> Verdict:
    """Who serves the page? Somebody in a network of its own, and without them nobody."""
    url = parts.geturl()
    if parts.hostname not in ("127.0.0.1", "localhost"):
        return NotYet(
            f"The page came from {parts.hostname}, which is not this machine.", "Publish a port of *this* one."
        )
    here = namespaces.inode(desk.child.pid, "net")
    serving = [
        (pid, ports)
        for pid in procfs.descendants(desk.child.pid)
        if _net_of(pid) not in (here, None) and (ports := _listens_itself(pid))
    ]
    for pid, ports in serving:
        apart = all(not namespaces.same(kind, pid, desk.host) for kind in ("mnt", "pid"))
        for port in ports if apart else ():
            if namespaces.inside(pid, ("net",), fetch, f"http://127.0.0.1:{port}/{parts.path.lstrip('/')}") != page:
                continue
            _end(pid)
            if run_in_child(fetch, url) == page:
                break  # somebody else has served it, too
            return Passed(
                f"The page came from `{url}`. Behind it a container listened on port {port} of a network that this "
                "machine has no interface in; without it the page was gone.",
                "The listening socket was made on the real machine and handed to a process on the lab host; that "
                "process connects to the container. Only what you publish can be reached.",
            )
    return NotYet(
        "The page came, but not through the network: the port in the URL is none that one of its endpoints publishes.",
        "Who serves it? The exercise is to publish a port of a container in `network`.",
    )


def _end(pid: int) -> None:
    """End all of a container, which `pid` is in."""
    with ExitStack() as stack:
        ended = []
        for one in namespaces.members("pid", namespaces.inode(pid, "pid")):
            with suppress(ProcessLookupError):
                ended.append(stack.enter_context(held(one)))
                os.kill(one, signal.SIGKILL)
        while any(one.alive for one in ended):
            time.sleep(0.01)


def _net_of(pid: int) -> int | None:
    try:
        return procfs.namespace_inode(pid, "net")
    except OSError:
        return None


def _listens_itself(pid: int) -> list[int]:
    """The ports of all addresses on which sockets of this very process listen."""
    own = set()
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            own.add(os.readlink(f"/proc/{pid}/fd/{number}"))
    except OSError:
        return []
    return [port for address, port, inode in listening(pid) if f"socket:[{inode}]" in own and address != "0100007F"]


def _told_why(desk: Desk, url: str, got: str) -> NotYet:
    """What the desk makes of it. It may say what it likes: it is no more than a reason why this is not yet it."""
    why = desk.child.call(_why_not, url, got)
    if isinstance(why, NotYet):
        return NotYet(f"{why.seen}", f"{why.why}")
    return NotYet("The page does not come from that URL.", "Is the port published, and does the server listen on it?")


# At the desk

_there: list[Any] = []


def _publish(publish: Callable[[Network, str], Any], name: str, root: str) -> tuple[str, str, bool]:
    network = Network(name)
    answer = publish(network.__enter__(), root)
    _there[:] = [network, answer]
    right = isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], Container)
    return str(answer[1]) if right else "", shown(answer), right


def _why_not(url: str, got: str) -> Verdict:
    network, (server, _) = _there
    parts = parts_of(url)
    return parts if isinstance(parts, NotYet) else not_published(network, server, parts, got)
