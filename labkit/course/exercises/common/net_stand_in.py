"""A stand-in for the lab host's network, for checks of code that makes links, routes and rules.

Its "host" is a network namespace of its own, in which the learner's function runs and does as it likes; `box()` makes
others, empty. All of it ends with the check, and the lab host's own network was never touched.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self, TypeVar

from labkit import namespaces, procfs, syscalls
from labkit.constants import CLONE_NEWNET
from labkit.course.exercises.common import ended
from labkit.course.framework import pace
from labkit.course.views import network_map
from labkit.network import nftables
from labkit.process import Child, run_in_child, spawn, spawn_closed

T = TypeVar("T")
Space = dict[str, Any]
Link = dict[str, Any]
PORT = 4000
WAIT_SECONDS = 1.0  # for a lone packet
# For a connection: an interface that was switched on this moment may drop a packet, and TCP sends it again after 1 s.
CONNECT_SECONDS = 3.0


class Town:
    """The namespaces of one check."""

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._places: list[Place] = []
        self.host = self._place(_alone)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def box(self) -> "Place":
        """A process in a network namespace of its own, with nothing in it, its loopback down."""
        return self._place(syscalls.unshare, CLONE_NEWNET)

    def _place(self, fn: Callable[..., Any], *args: Any) -> "Place":
        place = self._stack.enter_context(Place(fn, *args))
        self._places.append(place)
        return place

    @contextmanager
    def spawn(self, fn: Callable[..., Any], *args: Any) -> Iterator[Child]:
        """As `process.spawn`, on the stand-in."""
        with spawn(_enter_and_call, self.host.pid, fn, args) as child:
            yield child

    def build(self, fn: Callable[..., Any], *args: Any) -> None:
        """Call `fn` on the stand-in, and end it and all that it has begun: what it has built has to work by itself.

        Links, routes and rules are the kernel's, and stay. A process that carries bytes from one box to the other, and
        so makes it look as if they were connected, does not.
        """
        before = ended.running()
        with self.spawn(fn, *args):
            pass
        ended.all_but(before)
        ended.still([place.pid for place in self._places])

    def survey(self, **children: "Place") -> dict[str, Space]:
        """What is in the namespaces of the host and of `children`, by their names; the host's is "host"."""
        children = {"host": self.host, **children}
        inodes = {name: procfs.namespace_inode(child.pid, "net") for name, child in children.items()}
        places = {inodes[name]: f"/proc/{child.pid}/ns/net" for name, child in children.items()}
        found = {space["id"]: space for space in run_in_child(network_map.survey, places)}
        return {name: found[inode] for name, inode in inodes.items()}


class Place:
    """A process in a network namespace, which others may look into and join; and one that acts for the check there."""

    def __init__(self, fn: Callable[..., Any], *args: Any) -> None:
        self._stack = ExitStack()
        self.pid = self._stack.enter_context(spawn(fn, *args)).pid
        self._hand = self._stack.enter_context(spawn_closed(namespaces.enter, self.pid, ("net",)))

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Call a function there."""
        return self._hand.call(fn, *args)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _alone() -> None:
    syscalls.unshare(CLONE_NEWNET)
    syscalls.set_interface_up("lo")


def _enter_and_call(pid: int, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    namespaces.enter(pid, ("net",))
    return fn(*args)


def require_nat() -> None:
    """Raise `Unsupported` where this machine's kernel has no NAT."""
    if lack := run_in_child(nftables.unsupported):
        raise lack


# Whether one box reaches another: the only question that counts

_sockets: dict[str, socket.socket] = {}  # in a child, from one call to the next


def reach(client: Place, server: Place, address: str) -> tuple[bool, str]:
    """Whether a connection from `client` to `address` arrives at `server`; and as whose, or which error there was."""
    token = os.urandom(8)
    server.call(_listen, pace.scaled(CONNECT_SECONDS))
    error = client.call(_connect, address, pace.scaled(CONNECT_SECONDS))
    if error:
        return False, error
    peer = server.call(_greet, token)
    if peer is None:
        return False, "somebody else"
    return client.call(_read) == token, peer


def arrives(client: Place, server: Place, address: str) -> str | None:
    """The address that a lone packet (UDP) from `client` arrives with at `server`, though no answer may come back."""
    server.call(_listen_udp, pace.scaled(WAIT_SECONDS))
    client.call(_send_udp, address)
    return server.call(_receive_udp)


def _listen(seconds: float) -> None:
    _forget("listener")
    _sockets["listener"] = socket.create_server(("0.0.0.0", PORT))
    _sockets["listener"].settimeout(seconds)


def _connect(address: str, seconds: float) -> str:
    _forget("connection")
    try:
        _sockets["connection"] = socket.create_connection((address, PORT), timeout=seconds)
    except OSError as error:
        return "timeout" if isinstance(error, TimeoutError) else os.strerror(error.errno or 0)
    return ""


def _greet(token: bytes) -> str | None:
    try:
        connection, (peer, _) = _sockets["listener"].accept()
    except OSError:
        return None
    with connection:
        connection.sendall(token)
    return str(peer)


def _read() -> bytes:
    try:
        return _sockets["connection"].recv(100)
    except OSError:
        return b""


def _listen_udp(seconds: float) -> None:
    _forget("udp")
    _sockets["udp"] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    _sockets["udp"].bind(("0.0.0.0", PORT))
    _sockets["udp"].settimeout(seconds)


def _send_udp(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(b"hello", (address, PORT))
        except OSError:
            return


def _receive_udp() -> str | None:
    try:
        _, (peer, _) = _sockets["udp"].recvfrom(100)
    except OSError:
        return None
    return str(peer)


def _forget(name: str) -> None:
    if name in _sockets:
        _sockets.pop(name).close()


# Links, made by netlink


def pair(near: int, near_name: str, far: int, far_name: str, near_address: str = "", far_address: str = "") -> None:
    """In a child: a veth pair between the network namespaces of two processes, both ends up and addressed."""
    with in_namespace(near) as ip:
        ip.link("add", ifname=near_name, kind="veth", peer={"ifname": far_name, "net_ns_fd": f"/proc/{far}/ns/net"})
    for pid, name, address in ((near, near_name, near_address), (far, far_name, far_address)):
        with in_namespace(pid) as ip:
            index = ip.link_lookup(ifname=name)[0]
            if address:
                ip.addr("add", index=index, address=address, prefixlen=24)
            ip.link("set", index=index, state="up")


def bridge(pid: int, name: str, address: str, ports: list[str]) -> None:
    """In a child: a bridge with `address` in the network namespace of a process, with `ports` in it."""
    with in_namespace(pid) as ip:
        ip.link("add", ifname=name, kind="bridge")
        index = ip.link_lookup(ifname=name)[0]
        ip.addr("add", index=index, address=address, prefixlen=24)
        ip.link("set", index=index, state="up")
        for port in ports:
            ip.link("set", index=ip.link_lookup(ifname=port)[0], master=index)


def in_namespace(pid: int) -> Any:
    """A netlink socket of the network namespace of process `pid`: it stays there, though this process comes back."""
    from pyroute2 import IPRoute

    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.enter(pid, ("net",))
        return IPRoute()
    finally:
        syscalls.setns(home, CLONE_NEWNET)
        os.close(home)
