"""Published ports: every byte, both ends of a conversation, many at once, and who is gone."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from labkit import constants as c
from labkit import host, procfs, syscalls
from labkit.errors import LabkitError
from labkit.network import Endpoint, Network
from labkit.process import Child

TIMEOUT = 20.0
MIB = 1 << 20
IDLE = 5  # the descriptors of a relay of one port: the first three, the port, the epoll


@pytest.fixture
def web() -> Iterator[Endpoint]:
    with Network("shop") as network:
        yield network.endpoint("web", publish={0: 80})


@contextlib.contextmanager
def serving(endpoint: Endpoint, handle: Any, port: int = 80) -> Iterator[Child]:
    """A server in the endpoint's namespace, which calls `handle(connection)` in a thread for each connection."""
    with Child() as child:
        child.call(_serve, endpoint.netns_path, handle, port)
        yield child


_seen: list[Any] = []  # in the server: what its connections have seen


def _serve(path: str, handle: Any, port: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(fd, c.CLONE_NEWNET)
    os.close(fd)
    listener = socket.create_server(("0.0.0.0", port), backlog=512)

    def one(connection: socket.socket) -> None:
        with connection:
            handle(connection)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def _look(count: int) -> list[Any]:
    """In the server: what its connections have seen, once it is `count` of them."""
    with _changed:
        assert _changed.wait_for(lambda: len(_seen) >= count, TIMEOUT), _seen
        return list(_seen)


_changed = threading.Condition()


def _note(what: Any) -> None:
    with _changed:
        _seen.append(what)
        _changed.notify_all()


def read_all(sock: socket.socket) -> bytes:
    """Up to the end of the other side's direction."""
    chunks = []
    while chunk := sock.recv(1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


def reversed_at_the_end(connection: socket.socket) -> None:
    """A protocol that needs half-close: the answer comes once the request has ended."""
    connection.sendall(read_all(connection)[::-1])


def echo(connection: socket.socket) -> None:
    """Send back what comes, as it comes."""
    while chunk := connection.recv(1 << 16):
        connection.sendall(chunk)


def tell_how_it_ends(connection: socket.socket) -> None:
    """Note whether a connection ended in order or by an error."""
    connection.sendall(b"?")
    try:
        _note(len(read_all(connection)))
    except OSError as error:
        _note(type(error).__name__)


def pour(connection: socket.socket) -> None:
    """Send until nobody takes it, and note how much that was."""
    connection.settimeout(1.0)
    sent = 0
    try:
        while sent < 256 * MIB:
            sent += connection.send(bytes(MIB))
    except TimeoutError:
        pass
    _note(sent)
    connection.settimeout(TIMEOUT)
    read_all(connection)


def connect(endpoint: Endpoint, which: int = 0) -> socket.socket:
    """A connection from the real machine to a published port."""
    published = endpoint.published[which]
    return socket.create_connection((published.address, published.host_port), timeout=TIMEOUT)


def relay_of(endpoint: Endpoint) -> int:
    """The PID of the process that serves its published ports."""
    (started,) = endpoint._relays._started
    wait_for_descriptors(started.pid, IDLE)  # it closes what it has of the zygote's first
    return started.pid


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def wait_for_descriptors(pid: int, count: int) -> None:
    """Wait, for bounded time, until a process has `count` descriptors open."""
    pause = threading.Event()
    for _ in range(1000):
        if descriptors(pid) == count:
            return
        pause.wait(TIMEOUT / 1000)
    assert descriptors(pid) == count


def test_one_direction_ends_before_the_other(web: Endpoint) -> None:
    sent = os.urandom(5 * MIB)
    with serving(web, reversed_at_the_end), connect(web) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == sent[::-1]


def test_the_server_may_end_first(web: Endpoint) -> None:
    def ends(connection: socket.socket) -> None:
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_WR)
        _note(read_all(connection).decode())

    with serving(web, ends) as server, connect(web) as client:
        assert read_all(client) == b"bye"
        client.sendall(b"still here")
        client.shutdown(socket.SHUT_WR)
        assert server.call(_look, 1) == ["still here"]


def test_many_connections_at_once(web: Endpoint) -> None:
    relay = relay_of(web)
    with serving(web, echo):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(web)) for _ in range(200)]
            for number, client in enumerate(clients):
                client.sendall(f"hello {number}".encode())
            for number, client in enumerate(clients):
                assert client.recv(100) == f"hello {number}".encode()
            assert descriptors(relay) == IDLE + 400
        wait_for_descriptors(relay, IDLE)
    assert procfs.stat(relay)[2] == "S"


def test_a_client_that_is_gone(web: Endpoint) -> None:
    with serving(web, tell_how_it_ends) as server:
        with connect(web) as client:
            assert client.recv(1) == b"?"
            client.sendall(b"12345")
        assert server.call(_look, 1) == [5]
        client = connect(web)
        assert client.recv(1) == b"?"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()  # by a reset
        assert server.call(_look, 2) == [5, "ConnectionResetError"]


def test_a_server_that_is_not_there_or_gone(web: Endpoint) -> None:
    # The reset may come before connect(2) has returned.
    with pytest.raises(ConnectionResetError), connect(web) as client:
        client.recv(1)
    with serving(web, echo), connect(web) as client:
        client.sendall(b"a")
        assert client.recv(1) == b"a"
    # Its process was killed: the kernel ends its connections, and the relay passes that on.
    with pytest.raises(ConnectionResetError), connect(web) as client:
        client.recv(1)


def test_who_reads_slowly_holds_up_the_sender_and_not_the_relay(web: Endpoint) -> None:
    relay = relay_of(web)
    with serving(web, pour) as server, connect(web) as slow:
        (sent,) = server.call(_look, 1)
        assert sent < 256 * MIB
        resident = int(procfs.status(relay)["VmRSS"].split()[0]) // 1024
        assert resident < 64, "MiB"
        before = int(procfs.stat(relay)[13])
        with connect(web) as other:
            assert len(other.recv(1000)) > 0
        assert int(procfs.stat(relay)[13]) - before < 100, "it does not turn in circles, waiting"
        slow.recv(1)


def test_several_ports_some_later(web: Endpoint) -> None:
    with Network("bank") as bank:
        ports = {("127.0.0.1", 0): 1, ("::1", 0): 2} if socket.has_ipv6 and _has_ipv6() else {("127.0.0.1", 0): 1}
        vault = bank.endpoint("vault", publish=ports)
        later = [vault.publish(number) for number in range(10, 20)]
        assert len(vault.published) == len(ports) + 10
        for number, published in enumerate(later, start=10):
            assert published.port == number
            with serving(vault, echo, published.port), connect(vault, len(ports) + number - 10) as client:
                client.sendall(b"x")
                assert client.recv(1) == b"x"
        if len(ports) > 1:
            with serving(vault, echo, 2), connect(vault, 1) as client:
                client.sendall(b"x")
                assert client.recv(1) == b"x"


def _has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as sock, contextlib.suppress(OSError):
        sock.bind(("::1", 0))
        return True
    return False


def test_more_ports_at_once_than_one_request_carries() -> None:
    with Network("shop") as network:
        endpoint = network.endpoint("web", publish={(f"127.0.0.{last}", 0): 80 for last in range(2, 52)})
        assert len(endpoint._relays._started) == 3
        with serving(endpoint, echo), connect(endpoint, 49) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"


def test_the_port_is_free_once_the_endpoint_is_closed(web: Endpoint) -> None:
    host_port = web.published[0].host_port
    relay = relay_of(web)
    with serving(web, echo), connect(web) as client:
        web.close()
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert not os.path.exists(f"/proc/{relay}")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", host_port), timeout=TIMEOUT)
    web.network.endpoint("again", publish={host_port: 80}).close()


def test_a_port_is_open_on_loopback_alone_unless_asked_otherwise(web: Endpoint) -> None:
    assert web.published[0].address == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", web.published[0].host_port), timeout=TIMEOUT)
    with web.network.endpoint("open", publish={("0.0.0.0", 0): 80}) as everywhere, serving(everywhere, echo):
        client = socket.create_connection(("127.0.0.2", everywhere.published[0].host_port), timeout=TIMEOUT)
        with client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"


def test_a_relay_holds_nothing_of_the_zygote(web: Endpoint) -> None:
    relay = relay_of(web)
    targets = [os.readlink(f"/proc/{relay}/fd/{fd}") for fd in os.listdir(f"/proc/{relay}/fd")]
    assert sorted(target.split(":")[0] for target in targets) == [
        "/dev/null",
        "/dev/null",
        "/dev/null",
        "anon_inode",
        "socket",
    ]
    assert procfs.stat(relay)[1] == "labkit-relay"


def test_no_descriptor_left_is_waited_out(web: Endpoint) -> None:
    """Who cannot be served yet waits in the queue, and the relay does not turn in circles meanwhile."""
    import resource

    relay = relay_of(web)
    _, hard = resource.prlimit(relay, resource.RLIMIT_NOFILE)
    resource.prlimit(relay, resource.RLIMIT_NOFILE, (descriptors(relay) + 4, hard))
    with serving(web, echo):
        first, second, third = connect(web), connect(web), connect(web)
        for client in (first, second):
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        third.sendall(b"x")
        assert "S" in {procfs.stat(relay)[2] for _ in range(500)}, "it sleeps meanwhile"
        first.close()
        assert third.recv(1) == b"x"
        second.close()
        third.close()


def test_the_port_of_a_server_that_this_machine_runs_is_refused(web: Endpoint) -> None:
    ours = socket.create_server(("127.0.0.1", 0))
    with ours, pytest.raises(LabkitError, match="is in use on this machine"):
        web.publish(81, host_port=ours.getsockname()[1])
    assert len(web.published) == 1
    assert len(web._relays._started) == 1


def test_relays_end_with_the_lab_host(web: Endpoint) -> None:
    pidfd = os.pidfd_open(relay_of(web))
    host.reset()
    with pytest.raises(ConnectionRefusedError):
        connect(web)
    os.close(pidfd)
