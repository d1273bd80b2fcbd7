"""Published ports: a server of the lab host, reached from the real machine.

The lab host's network is connected to nothing outside. So the caller, who is outside, opens the listening socket, and
hands it to a relay on the lab host (`labkit.network.proxy`), which connects to the endpoint from there.
"""

import contextlib
import os
import select
import socket
from collections.abc import Iterable
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL
from ipaddress import ip_address
from typing import NamedTuple

from labkit import host
from labkit.errors import InvalidConfig, LabkitError
from labkit.host import messages
from labkit.kernel import interrupts
from labkit.network import proxy
from labkit.network.addresses import checked_port

LOOPBACK = "127.0.0.1"
_PORTS_PER_RELAY = messages.REQUEST_DESCRIPTORS - 1  # a request carries the reply socket, too
_BACKLOG = 128


class Wanted(NamedTuple):
    """What is to be published: connections to (address, host_port) of the machine shall reach `port` inside."""

    address: str
    host_port: int
    port: int


class Published(NamedTuple):
    """A port that is open on the machine, and the endpoint's that it leads to."""

    address: str
    host_port: int
    port: int

    def __str__(self) -> str:
        shown = f"[{self.address}]" if ":" in self.address else self.address
        return f"{shown}:{self.host_port} -> {self.port}"


def wanted(address: object, host_port: object, port: object) -> Wanted:
    """Checked: `host_port` 0 asks for any that is free. `InvalidConfig`: it makes no sense."""
    try:
        ip_address(address)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        raise InvalidConfig(f"a port is published on an address such as {LOOPBACK}, not {address!r}") from None
    host = checked_port(host_port, "a port of this machine", any_free=True)
    return Wanted(str(address), host, checked_port(port, "a port of an endpoint"))


class Listeners:
    """Listening sockets of the machine, not yet served by anybody. All could be opened, or none is."""

    def __init__(self, ports: Iterable[Wanted]) -> None:
        self.sockets: list[socket.socket] = []
        self.published: list[Published] = []
        try:
            for one in ports:
                sock = _listening(one)
                self.sockets.append(sock)
                self.published.append(Published(one.address, sock.getsockname()[1], one.port))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close them here; where a relay has them they stay open."""
        for sock in self.sockets:
            sock.close()


def _listening(one: Wanted) -> socket.socket:
    family = socket.AF_INET6 if ip_address(one.address).version == 6 else socket.AF_INET
    where = f"port {one.host_port} of {one.address}"
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a server that has ended linger
        sock.bind((one.address, one.host_port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == EADDRINUSE:
            mend = "choose another one, or 0 for any that is free"
            raise LabkitError(f"{where} is in use on this machine: {mend}") from None
        if error.errno == EACCES:
            raise LabkitError(
                f"{where} is for root alone: choose one from 1024 on, or 0 for any that is free"
            ) from None
        if error.errno == EADDRNOTAVAIL:
            raise LabkitError(f"this machine does not have the address {one.address}: take {LOOPBACK}") from None
        raise LabkitError(f"{where} cannot be opened: {error.strerror}") from None
    return sock


class Relays:
    """The processes that serve an endpoint's published ports."""

    def __init__(self) -> None:
        self._started: list[host.Started] = []

    def serve(self, listeners: Listeners, address: str) -> None:
        """Serve `listeners` by connections to `address`; they are the relays' then, and closed here."""
        try:
            pairs = list(zip(listeners.sockets, listeners.published, strict=True))
            for first in range(0, len(pairs), _PORTS_PER_RELAY):
                some = pairs[first : first + _PORTS_PER_RELAY]
                targets = [(address, published.port) for _, published in some]
                listening = {str(number): sock.fileno() for number, (sock, _) in enumerate(some)}
                with interrupts.Deferred():
                    self._started.append(
                        host.current().request(proxy.start, proxy.ProxySpec(targets=targets), listening)
                    )
        finally:
            listeners.close()

    def close(self) -> None:
        """End them and every connection through them; the ports are free on return. Twice is as good as once."""
        while self._started:
            started = self._started.pop()
            started.reply.close()  # has the zygote kill it
            poll = select.poll()
            poll.register(started.pidfd, select.POLLIN)
            poll.poll(5000)
            os.close(started.pidfd)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            for started in self._started:
                started.reply.close()
                os.close(started.pidfd)
