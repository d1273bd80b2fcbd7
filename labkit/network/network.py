"""Networks: a bridge on the lab host, and endpoints for containers to be plugged into.

::

    with Network("shop", subnet="10.0.5.0/24") as shop:
        web = shop.endpoint("web", publish={8080: 80})
        container.start(["httpd", "-f"], network=web)        # http://127.0.0.1:8080 reaches it

All of it is on the lab host, and ends with the network or with the lab host, whichever comes first; the machine's own
interfaces and rules are never touched. Endpoints of one network reach each other by address and by name. They reach
what the lab host reaches, under its address. From the machine they are reached by published ports only.

A network has a child on the lab host that speaks netlink (`labkit.network.links`). Several threads may use it.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Interface, IPv4Network
from typing import ParamSpec, Self, TypeVar
from weakref import WeakKeyDictionary

from labkit import host, process
from labkit.errors import InvalidConfig, LabkitError
from labkit.kernel.nofile import plainly
from labkit.network import addresses, links
from labkit.network.hosts_file import Names
from labkit.network.ports import LOOPBACK, Listeners, Published, Relays, Wanted, wanted

P = ParamSpec("P")
T = TypeVar("T")

#: Whether a lab host forwarded packets before its first network, which the last one brings back.
_forwarded: WeakKeyDictionary[host.LabHost, bool] = WeakKeyDictionary()

ANSWER_SECONDS = 60.0  # of the child that speaks netlink; a call takes milliseconds

Publish = Mapping[int, int] | Mapping[tuple[str, int], int] | Mapping[int | tuple[str, int], int]


class Network:
    """A bridge with a subnet. As a context manager it is closed, with all its endpoints, on leaving."""

    def __init__(self, name: str, subnet: str | None = None) -> None:
        """Make it. Without a `subnet` (such as "10.0.5.0/24"; IPv4, /8 to /30) one that is free is taken.

        `InvalidConfig`: the name or the subnet makes no sense or is taken; `Unsupported`: this machine has no bridges.
        """
        self.name = addresses.checked_name(name, "a network")
        asked = None if subnet is None else addresses.checked_subnet(subnet)
        self.bridge = addresses.interface_name(name, begin="br-")  #: the bridge's interface on the lab host
        self.endpoints: dict[str, Endpoint] = {}  #: by name
        self.closed = False
        self._lock = threading.RLock()
        self._lab_host = host.current()
        self._child: process.Child | None = None
        with plainly(f"making the network {name!r}"):
            self._names = Names()
            try:
                self._make(asked)
            except BaseException as error:
                # Interrupted or killed, its child has undone nothing. But a bridge that was there is another network's.
                if not isinstance(error, InvalidConfig):
                    with contextlib.suppress(LabkitError, OSError):
                        self._call(links.remove, self.bridge, False)
                self._names.close()
                self._end_child()
                raise

    def _make(self, asked: IPv4Network | None) -> None:
        used = self._call(links.used_subnets)
        if asked:
            addresses.refuse_overlap(asked, used)
        self.subnet = asked or addresses.free_subnet(used)
        self.gateway = str(addresses.gateway(self.subnet))  #: the bridge's address
        here = IPv4Interface(f"{self.gateway}/{self.subnet.prefixlen}")
        forwarded, lack = self._call(links.make, self.bridge, here, addresses.hardware_address(here.ip))
        _forwarded.setdefault(self._lab_host, forwarded)
        self.no_way_out = lack  #: None; or why endpoints reach nothing outside: a kernel without the rules for it

    def endpoint(self, name: str, address: str | None = None, publish: Publish | None = None) -> "Endpoint":
        """Plug in a new endpoint, ready to be joined; the lowest free `address`, if none is given.

        `publish` says which port of the machine leads to which port of the endpoint: `{8080: 80}` on 127.0.0.1 only,
        `{("0.0.0.0", 8080): 80}` on every address, `{0: 80}` on a port that is free.
        `InvalidConfig` or `LabkitError`, and nothing is left: it makes no sense, or an address, name or port is taken.
        """
        with self._lock:
            if self.closed:
                raise LabkitError(f"the network {self.name!r} is closed; make a new one")
            name = addresses.checked_name(name, "an endpoint")
            if name.lower() in (other.lower() for other in self.endpoints):
                raise InvalidConfig(f"an endpoint of {self.name!r} is called {name!r} already")
            used = [one.interface.ip for one in self.endpoints.values()]
            checked = addresses.free_address(self.subnet, used)
            if address is not None:
                checked = addresses.checked_address(address, self.subnet, used)
            endpoint = Endpoint(self, name, IPv4Interface(f"{checked}/{self.subnet.prefixlen}"))
            with plainly(f"plugging in the endpoint {name!r}"):
                try:
                    endpoint._begin(_all_wanted(publish or {}))
                    self.endpoints[name] = endpoint
                    self._write_names()
                except BaseException:
                    endpoint.close()
                    raise
            return endpoint

    def close(self) -> None:
        """Close its endpoints, then take the bridge and its rules away. Twice is as good as once."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            try:
                for endpoint in list(self.endpoints.values()):
                    endpoint.close()
                self._call(links.remove, self.bridge, _forwarded[self._lab_host])
            except LabkitError:
                if self._lab_host.alive:
                    raise
                # The lab host has ended, and all of this with it.
            finally:
                with plainly(f"closing the network {self.name!r}"):
                    self._names.close()
                    self._end_child()

    def _forget(self, endpoint: "Endpoint") -> None:
        if self.endpoints.get(endpoint.name) is endpoint:
            del self.endpoints[endpoint.name]
            self._write_names()

    def _write_names(self) -> None:
        known = {name.lower(): (name, one.interface.ip) for name, one in self.endpoints.items()}
        for one in self.endpoints.values():
            for name in one._host_names:  # which nobody takes from an endpoint, or from who had it first
                known.setdefault(name.lower(), (name, one.interface.ip))
        self._names.write(known.values())

    def _call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of `netlink` on the lab host; in a new child, where the last one was interrupted."""
        with self._lock:
            if not self._lab_host.alive:
                raise LabkitError(f"the lab host has ended, and the network {self.name!r} with it; make it anew")
            if self._child is None or not self._child.alive:
                self._end_child()
                self._child = process.Child()
                self._child.answer_seconds = ANSWER_SECONDS
            with plainly(f"the network {self.name!r}: {fn.__name__}()"):
                return self._child.call(fn, *args, **kwargs)

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.subnet}, {', '.join(self.endpoints) or 'nobody in it'}"
        return f"<Network {self.name}: {state}>"


class Endpoint:
    """A network namespace with an address in a network. `Network.endpoint` makes it."""

    def __init__(self, network: Network, name: str, interface: IPv4Interface) -> None:
        self.network = network
        self.name = name
        self.interface = interface  #: address and prefix
        self.address = str(interface.ip)
        self.link = addresses.interface_name(name, of=network.name)  #: the lab host's end of its pair
        self._netns_fd = -1
        self.published: tuple[Published, ...] = ()
        self._theirs: tuple[process.Child, int] | None = None  # the child that holds the namespace too, and its number
        self._relays = Relays()
        self._host_names: list[str] = []  # of containers that have joined

    @property
    def netns_fd(self) -> int:
        """A descriptor of its namespace, which setns(2) with CLONE_NEWNET joins. `LabkitError`: it is closed."""
        if self._netns_fd < 0:
            raise LabkitError(f"the endpoint {self.name!r} is closed; make a new one")
        return self._netns_fd

    @property
    def inode(self) -> int:
        """The identity of its namespace, as in `net:[4026532251]`."""
        return os.fstat(self.netns_fd).st_ino

    @property
    def netns_path(self) -> str:
        """A path that processes on the lab host can open the namespace by, while the network is open."""
        child, number = self._theirs or (None, -1)
        if self.netns_fd < 0 or child is None or not child.alive:
            raise LabkitError(f"the endpoint {self.name!r} has no path any more; make a new one")
        return f"/proc/{child.pid}/fd/{number}"

    @property
    def files(self) -> dict[str, str]:
        """Files to bind-mount read-only into a container: from the path in it, without "/", to the one here."""
        return self.network._names.files

    @contextlib.contextmanager
    def host_name(self, name: str) -> Iterator[None]:
        """Have `name`, the host name of a container in this endpoint, found at its address too, until it is left."""
        self._set_host_names([*self._host_names, name])
        try:
            yield
        finally:
            left = list(self._host_names)
            left.remove(name)
            self._set_host_names(left)

    def _set_host_names(self, names: list[str]) -> None:
        with self.network._lock:
            self._host_names = names
            if not self.network.closed and self.network.endpoints.get(self.name) is self:
                self.network._write_names()

    def publish(self, port: int, host_port: int = 0, address: str = LOOPBACK) -> Published:
        """Publish one more port; any that is free where `host_port` is 0. It stays so until the endpoint is closed."""
        with self.network._lock:
            if self.netns_fd >= 0:  # which raises where it is closed
                self._serve(Listeners([wanted(address, host_port, port)]))
            return self.published[-1]

    def close(self) -> None:
        """End published ports, and unplug it; its name and address are free then. Twice is as good as once.

        Processes in its namespace stay there, alone with a loopback interface.
        """
        with self.network._lock:
            self._relays.close()
            if self._netns_fd >= 0:
                os.close(self._netns_fd)
                self._netns_fd = -1
                child, number = self._theirs or (None, -1)
                same = child is not None and child is self.network._child
                with contextlib.suppress(LabkitError):  # the lab host has ended, and all of this with it
                    self.network._call(links.unplug, self.link, number if same else None)
            self.network._forget(self)

    def _begin(self, ports: list[Wanted]) -> None:
        """Open the machine's ports, which may be taken; make the namespace; connect the two."""
        listeners = Listeners(ports)
        try:
            network = self.network
            hardware_address = addresses.hardware_address(self.interface.ip)
            number = network._call(
                links.plug, network.bridge, self.link, self.interface, network.gateway, hardware_address
            )
            assert network._child
            self._theirs = network._child, number
            # A descriptor does not travel with the answer; but who may look into a process may open what it has open.
            self._netns_fd = os.open(f"/proc/{network._child.pid}/fd/{number}", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            listeners.close()
            with contextlib.suppress(LabkitError):  # interrupted: the child is gone, its namespace only soon
                self.network._call(links.unplug, self.link, None)
            raise
        self._serve(listeners)

    def _serve(self, listeners: Listeners) -> None:
        self._relays.serve(listeners, self.address)
        self.published += tuple(listeners.published)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_netns_fd", -1) >= 0:
            with contextlib.suppress(OSError):
                os.close(self._netns_fd)

    def __repr__(self) -> str:
        state = "closed" if self._netns_fd < 0 else ", ".join([str(self.interface), *map(str, self.published)])
        return f"<Endpoint {self.name} of {self.network.name}: {state}>"


def _all_wanted(publish: Publish) -> list[Wanted]:
    if not isinstance(publish, Mapping):
        raise InvalidConfig("publish is a mapping such as {8080: 80}, from this machine's port to the endpoint's")
    found = []
    for outside, port in publish.items():
        address, host_port = outside if isinstance(outside, tuple) and len(outside) == 2 else (LOOPBACK, outside)
        found.append(wanted(address, host_port, port))
    return found
