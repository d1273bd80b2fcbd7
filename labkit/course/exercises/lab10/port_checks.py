"""Why a page does not come from a published port."""

from urllib.parse import SplitResult

from labkit import namespaces
from labkit.container.container import Container
from labkit.course.framework.outcomes import NotYet, Verdict
from labkit.network import Network

_LISTENING = "0A"  # in the fourth column of /proc/net/tcp


def not_published(network: Network, server: Container, url: SplitResult, got: str) -> Verdict:
    """The likeliest reason, from what was got instead of the page: an error's name, or another page."""
    published = {one.host_port: one for endpoint in network.endpoints.values() for one in endpoint.published}
    if not server.alive:
        return NotYet(
            f"The container has ended, with exit code {server.wait()}, so nobody serves the page.",
            "A server that goes to the background takes its container along: PID 1 must stay. And a `with` statement "
            "kills its container at the end.",
        )
    if url.hostname in {endpoint.address for endpoint in network.endpoints.values()}:
        return NotYet(
            f"{url.hostname} is the container's address in its own network. From this machine no way leads there.",
            "What is published has an address of *this* machine: see `endpoint.published`.",
        )
    if not published:
        return NotYet(
            "No endpoint of the network publishes a port.",
            "`network.endpoint(name, publish={0: 80})`; or `endpoint.publish(80)` afterwards.",
        )
    if url.port not in published:
        ports = " and ".join(str(port) for port in published)
        return NotYet(
            f"The URL says port {url.port or 80}. Published on this machine: {ports}.",
            "0 means *any that is free*: `endpoint.published[0].host_port` says which one it became.",
        )
    if namespaces.inode(server.pid, "net") not in {endpoint.inode for endpoint in network.endpoints.values()}:
        return NotYet(
            "The port is published, but the container is in a namespace of its own, with a loopback and no more.",
            "An endpoint is a place to be plugged into. Which argument of `container.start` says into which one?",
        )
    return _nobody_there(server, published[url.port].port, got)


def _nobody_there(server: Container, port: int, got: str) -> Verdict:
    listeners = listening(server.pid)
    if any(number == port and address not in ("0100007F",) for address, number, _ in listeners):
        return NotYet(
            f"The server answers, but not with the page: {got[:60]!r}.",
            "The page is `/www/index.html` of the root that you were given. Which folder does `httpd` serve, and which "
            "root does the container have?",
        )
    if any(number == port for _, number, _ in listeners):
        return NotYet(
            f"The server listens on port {port} of 127.0.0.1: on the loopback of its own namespace, where nobody else "
            "is.",
            "What comes from outside comes in by `eth0`. On which address must a server listen to be reached there?",
        )
    if listeners:
        numbers = " and ".join(str(number) for _, number, _ in listeners)
        return NotYet(
            f"Published is port {port} of the container, and its server listens on port {numbers}.",
            "The two must be the same: the right-hand number in `publish`, and what the server is told by `-p`.",
        )
    return NotYet(
        f"Nobody listens in the container, so a connection to its port {port} is refused.",
        "Which command serves a folder by HTTP?",
    )


def listening(pid: int) -> list[tuple[str, int, str]]:
    """Address (as /proc has it), port and inode of the listening sockets in a process's network namespace. proc(5)."""
    found = []
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{name}") as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        for row in rows:
            address, _, port = row[1].partition(":")
            if row[3] == _LISTENING:
                found.append((address, int(port, 16), row[9]))
    return found
