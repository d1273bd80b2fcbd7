"""Networks: endpoints that find each other, the way out and no way in, and nothing left behind."""

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from labkit import constants as c
from labkit import container, process, syscalls
from labkit.errors import InvalidConfig, LabkitError
from labkit.host import lab_host
from labkit.network import Endpoint, Network, nftables
from labkit.network import links as netlink
from labkit.process import Child, run_in_child

TIMEOUT = 10.0


@pytest.fixture
def shop() -> Iterator[Network]:
    with Network("shop") as network:
        yield network


@contextlib.contextmanager
def inside(endpoint: Endpoint) -> Iterator[Child]:
    """A child in the endpoint's namespace."""
    with Child() as child:
        child.call(_join, endpoint.netns_path)
        yield child


def _join(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(fd, c.CLONE_NEWNET)
    os.close(fd)


_listener = socket.socket()  # in a child, between two calls


def listen(port: int) -> None:
    """Begin to listen, in a child."""
    global _listener
    _listener.close()
    _listener = socket.create_server(("0.0.0.0", port))
    _listener.settimeout(TIMEOUT)


def greet() -> str:
    """Take one connection, say hello, and return whom it came from."""
    connection, (peer, _) = _listener.accept()
    with connection:
        connection.sendall(b"hello")
    return str(peer)


def fetch(address: str, port: int, timeout: float = TIMEOUT) -> str:
    """What a server says, or the name of the error."""
    try:
        with socket.create_connection((address, port), timeout=timeout) as connection:
            return connection.recv(100).decode()
    except OSError as error:
        return type(error).__name__


def connect(address: str, port: int, timeout: float) -> str:
    """Whether a connection can be made: "connected", or the name of the error."""
    try:
        socket.create_connection((address, port), timeout=timeout).close()
    except OSError as error:
        return type(error).__name__
    return "connected"


def talk(server: Child, client: Child | None, address: str, port: int = 80) -> tuple[str, str]:
    """Have `client` (None: this process) fetch from `server`; what it got, and whom the server saw."""
    server.call(listen, port)
    seen: list[str] = []
    waiting = threading.Thread(target=lambda: seen.append(server.call(greet)))
    waiting.start()
    got = client.call(fetch, address, port) if client else fetch(address, port)
    waiting.join(TIMEOUT)
    return got, seen[0]


def links() -> list[str]:
    """The lab host's interfaces."""
    return run_in_child(lambda: sorted(name for _, name in socket.if_nameindex()))


def forwards() -> str:
    """Whether the lab host forwards packets."""

    def read() -> str:
        with open("/proc/sys/net/ipv4/ip_forward") as file:
            return file.read().strip()

    return run_in_child(read)


def test_endpoints_reach_each_other_by_address(shop: Network) -> None:
    with inside(shop.endpoint("web")) as web, inside(shop.endpoint("db")) as db:
        assert talk(web, db, shop.endpoints["web"].address) == ("hello", shop.endpoints["db"].address)
        assert talk(db, web, shop.endpoints["db"].address) == ("hello", shop.endpoints["web"].address)
        with inside(shop.endpoints["web"]) as same:
            assert talk(web, same, "127.0.0.1") == ("hello", "127.0.0.1")


def test_endpoints_find_each_other_by_name(shop: Network) -> None:
    def have(files: dict[str, str]) -> None:
        syscalls.unshare(c.CLONE_NEWNS)
        syscalls.mount(None, "/", None, c.MS_REC | c.MS_PRIVATE)
        for path, source in files.items():
            syscalls.mount(source, f"/{path}", None, c.MS_BIND)

    web = shop.endpoint("web")
    with inside(web) as client:
        client.call(have, web.files)
        db = shop.endpoint("db")  # comes later, and is found through the file that is mounted already
        assert client.call(socket.gethostbyname, "db") == db.address
        assert client.call(socket.gethostbyname, "web") == web.address
        assert client.call(socket.gethostbyname, "localhost") == "127.0.0.1"
        with inside(db) as server:
            assert talk(server, client, "db") == ("hello", web.address)
        db.close()
        with pytest.raises(socket.gaierror):
            client.call(socket.gethostbyname, "db")
        assert client.call(socket.gethostbyname, "web") == web.address


def test_the_hosts_file_stays_the_same_file(shop: Network) -> None:
    hosts = shop.endpoint("web").files["etc/hosts"]
    before = os.stat(hosts).st_ino
    with open(hosts) as reader:
        longer = shop.endpoint("a-much-longer-name-than-the-other-one")
        assert longer.name in reader.read()
        longer.close()
        reader.seek(0)
        assert reader.read().splitlines()[-1] == f"{shop.endpoints['web'].address}\tweb"
    assert os.stat(hosts).st_ino == before
    assert os.stat(hosts).st_mode & 0o777 == 0o644


def plug_outside(network_address: str) -> int:
    """On the lab host: a namespace at the end of a pair, 203.0.113.2, that knows no way back to `network_address`."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    syscalls.unshare(c.CLONE_NEWNET)
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    syscalls.set_interface_up("lo")
    syscalls.setns(home, c.CLONE_NEWNET)
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        ip.link("add", ifname="uplink", kind="veth", peer={"ifname": "eth0", "net_ns_fd": outside})
        index = ip.link_lookup(ifname="uplink")[0]
        ip.addr("add", index=index, address="203.0.113.1", prefixlen=24)
        ip.link("set", index=index, state="up")
    syscalls.setns(outside, c.CLONE_NEWNET)
    with IPRoute() as ip:
        index = ip.link_lookup(ifname="eth0")[0]
        ip.addr("add", index=index, address="203.0.113.2", prefixlen=24)
        ip.link("set", index=index, state="up")
    return outside


def add_route(to: str, via: str) -> None:
    """In a child: a route."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        ip.route("add", dst=to, gateway=via)


def test_the_way_out_is_under_the_lab_hosts_address_and_there_is_no_way_in(shop: Network) -> None:
    web = shop.endpoint("web")
    with Child() as outside, inside(web) as client:
        outside.call(plug_outside, str(shop.subnet))
        assert talk(outside, client, "203.0.113.2") == ("hello", "203.0.113.1")  # not the endpoint's own
        outside.call(add_route, str(shop.subnet), "203.0.113.1")
        client.call(listen, 8000)
        assert outside.call(connect, web.address, 8000, 0.5) == "TimeoutError"
        # The way back is open, though: this is what a conversation begun inside needs.
        assert talk(outside, client, "203.0.113.2") == ("hello", "203.0.113.1")


def test_a_small_subnet_is_masqueraded_too() -> None:
    """pyroute2's own helper would compute the mask of /28 wrong."""
    with Network("small", subnet="10.0.5.240/28") as small, Child() as outside:
        last = small.endpoint("last", address="10.0.5.254")
        with inside(last) as client:
            outside.call(plug_outside, str(small.subnet))
            assert talk(outside, client, "203.0.113.2") == ("hello", "203.0.113.1")


def test_networks_do_not_reach_each_other(shop: Network) -> None:
    with Network("bank") as bank, inside(bank.endpoint("vault")) as vault, inside(shop.endpoint("web")) as web:
        vault.call(listen, 80)
        assert web.call(connect, bank.endpoints["vault"].address, 80, 0.5) == "TimeoutError"
        with inside(bank.endpoint("clerk")) as clerk:
            assert talk(vault, clerk, bank.endpoints["vault"].address)[0] == "hello"


def test_the_bridge_keeps_its_hardware_address(shop: Network) -> None:
    """Left to itself it takes the lowest of its ports', and what neighbours remember of the gateway is wrong."""

    def show() -> str:
        from pyroute2 import IPRoute

        with IPRoute() as ip:
            return str(ip.get_links(ifname="br-shop")[0].get_attr("IFLA_ADDRESS"))

    before = run_in_child(show)
    for number in range(6):
        shop.endpoint(f"box-{number}")
    assert run_in_child(show) == before == "02:4c:" + ":".join(f"{byte:02x}" for byte in shop.subnet[1].packed)


def test_an_address_that_is_used_again_is_reached_at_once(shop: Network) -> None:
    with inside(shop.endpoint("client")) as client:
        for number in range(3):
            with shop.endpoint(f"server-{number}") as endpoint, inside(endpoint) as server:
                assert endpoint.address == str(shop.subnet[3])
                assert talk(server, client, endpoint.address)[0] == "hello"


def test_nothing_is_left_on_the_lab_host() -> None:
    before = links(), forwards()
    with Network("shop") as shop, Network("bank") as bank:
        assert forwards() == "1"
        folder = os.path.dirname(shop.endpoint("web", publish={0: 80}).files["etc/hosts"])
        bank.endpoint("web")
        assert {"br-shop", "br-bank"} < set(links())
        assert len(links()) == len(before[0]) + 4
        shop.close()
        shop.close()
        assert forwards() == "1", "the other network still needs it"
        assert not os.path.exists(folder)
        with pytest.raises(LabkitError, match="is closed"):
            shop.endpoint("late")
    assert (links(), forwards()) == before
    assert run_in_child(nftables.bridges) == []


def test_an_endpoint_leaves_nothing(shop: Network) -> None:
    before, fds = links(), set(os.listdir("/proc/self/fd"))
    endpoint = shop.endpoint("web", publish={0: 80})
    assert len(links()) == len(before) + 1
    endpoint.close()
    endpoint.close()
    assert links() == before
    assert set(os.listdir("/proc/self/fd")) == fds
    for use in (lambda: endpoint.netns_fd, lambda: endpoint.netns_path, lambda: endpoint.publish(80)):
        with pytest.raises(LabkitError, match="is closed"):
            use()


def test_a_process_that_stays_in_a_closed_endpoint_is_alone(shop: Network) -> None:
    endpoint = shop.endpoint("web")
    with inside(endpoint) as child:
        endpoint.close()
        assert child.call(lambda: [name for _, name in socket.if_nameindex()]) == ["lo"]


def test_all_of_it_ends_with_the_lab_host() -> None:
    shop = Network("shop")
    endpoint = shop.endpoint("web", publish={0: 80})
    port = endpoint.published[0].host_port
    lab_host.reset()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    for use in (lambda: shop.endpoint("db"), lambda: Network("other") and shop._call(netlink.used_subnets)):
        with pytest.raises(LabkitError, match="the lab host has ended"):
            use()
    lab_host.reset()
    endpoint.close()
    shop.close()
    assert lab_host._current is None, "closing must not start another lab host"


def test_a_network_outlives_the_child_that_speaks_netlink(shop: Network) -> None:
    web = shop.endpoint("web")
    assert shop._child
    shop._child.kill()  # as Ctrl-C in the middle of a call does
    db = shop.endpoint("db")
    with inside(db) as client:
        client.call(listen, 1)
    web.close()
    assert len([name for name in links() if name.startswith(("web", "db"))]) == 1


def test_an_interrupted_beginning_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = links()
    call = Child.call

    def interrupted(self: Child, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        value = call(self, fn, *args, **kwargs)
        if fn in (netlink.make, netlink.plug):
            raise KeyboardInterrupt
        return value

    with monkeypatch.context() as patch:
        patch.setattr(process.Child, "call", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Network("shop")
    assert links() == before
    with Network("shop") as shop:
        before = links()
        with monkeypatch.context() as patch:
            patch.setattr(process.Child, "call", interrupted)
            with pytest.raises(KeyboardInterrupt):
                shop.endpoint("web", publish={0: 80})
        assert shop.endpoints == {}
        shop.endpoint("web").close()
        assert links() == before


@pytest.mark.parametrize("subnet", ["10.0.5.0/24", "10.0.0.0/16", "10.0.5.128/25"])
def test_a_subnet_that_overlaps_is_refused(subnet: str) -> None:
    with Network("shop", subnet="10.0.5.0/24"):
        before = links()
        with pytest.raises(InvalidConfig, match=r"overlaps 10\.0\.5\.0/24"):
            Network("other", subnet=subnet)
        assert links() == before


def test_a_network_of_the_same_name_is_refused_and_the_first_one_stays(shop: Network) -> None:
    with pytest.raises(InvalidConfig, match="'br-shop' already"):
        Network("shop")
    with inside(shop.endpoint("web")) as web, inside(shop.endpoint("db")) as db:
        assert talk(web, db, shop.endpoints["web"].address)[0] == "hello"


def test_what_is_refused_leaves_nothing(shop: Network) -> None:
    shop.endpoint("Web", address=str(shop.subnet[77]))
    before, fds = links(), set(os.listdir("/proc/self/fd"))
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    refused: dict[str, tuple[type[LabkitError], dict[str, Any]]] = {
        "is called 'web' already": (InvalidConfig, {"name": "web"}),
        "another endpoint has": (InvalidConfig, {"name": "a", "address": str(shop.subnet[77])}),
        "is not in this network": (InvalidConfig, {"name": "a", "address": "192.0.2.1"}),
        "the name of an endpoint": (InvalidConfig, {"name": "../a"}),
        f"port {port} of 127.0.0.1 is in use": (LabkitError, {"name": "a", "publish": {0: 80, port: 81}}),
        "a port of this machine": (InvalidConfig, {"name": "a", "publish": {65536: 80}}),
        "a port of an endpoint": (InvalidConfig, {"name": "a", "publish": {8080: 0}}),
        "is a mapping": (InvalidConfig, {"name": "a", "publish": [8080]}),
        "an address such as": (InvalidConfig, {"name": "a", "publish": {("nowhere", 1): 80}}),
        "does not have the address": (LabkitError, {"name": "a", "publish": {("203.0.113.77", 0): 80}}),
    }
    for words, (kind, asked) in refused.items():
        with pytest.raises(kind, match=words) as error:
            shop.endpoint(**asked)
        assert "\n" not in str(error.value)
    taken.close()
    assert list(shop.endpoints) == ["Web"]
    assert links() == before
    assert set(os.listdir("/proc/self/fd")) <= fds


def test_a_subnet_is_exhausted_and_an_address_comes_free() -> None:
    with Network("tiny", subnet="10.0.5.0/30") as tiny:
        only = tiny.endpoint("only")
        with pytest.raises(LabkitError, match="every address"):
            tiny.endpoint("more")
        only.close()
        assert tiny.endpoint("more").address == "10.0.5.2"


def test_an_interface_that_somebody_deleted_is_said(shop: Network) -> None:
    def delete() -> None:
        from pyroute2 import IPRoute

        with IPRoute() as ip:
            ip.link("del", index=ip.link_lookup(ifname="br-shop")[0])

    run_in_child(delete)
    with pytest.raises(LabkitError, match="was it deleted by hand"):
        shop.endpoint("web")
    shop.close()


def test_many_endpoints(shop: Network) -> None:
    for number in range(40):
        shop.endpoint(f"box-{number}")
    assert len(links()) == 42
    with inside(shop.endpoints["box-0"]) as one, inside(shop.endpoints["box-39"]) as other:
        assert talk(one, other, shop.endpoints["box-0"].address)[0] == "hello"


def test_a_network_of_the_real_machine_is_not_touched(shop: Network) -> None:
    shop.endpoint("web")
    with open("/proc/net/dev") as file:
        here = file.read()
    assert "br-shop" not in here
    assert os.stat("/proc/self/ns/net").st_ino != os.fstat(shop.endpoints["web"].netns_fd).st_ino


def test_what_the_bridge_has(shop: Network) -> None:
    """The kernel's own words, by another program than the one that made it."""
    endpoint = shop.endpoint("web")
    with inside(endpoint) as child:
        ip = ["ip", "-br", "addr", "show"]
        try:
            done = child.call(subprocess.run, [*ip, "eth0"], capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("ip is not installed")
        assert str(IPv4Interface(endpoint.interface)) in done.stdout
        routes = child.call(subprocess.run, ["ip", "route"], capture_output=True, text=True).stdout
        assert f"default via {shop.gateway} dev eth0" in routes


def test_containers_find_each_other_by_name_and_know_their_network_only(shop: Network, busybox: Path) -> None:
    web, db = shop.endpoint("web"), shop.endpoint("db")
    with container.start(["sleep", "1000"], root=busybox, network=web):
        shown = "ping -c 1 -W 5 web && cat /etc/hosts && ip route && ls /sys/class/net"
        done = container.run(["sh", "-c", shown], root=busybox, network=db, capture=True)
    assert done.exit_code == 0, done
    assert f"{web.address}\tweb" in done.stdout
    assert f"default via {shop.gateway} dev eth0" in done.stdout
    assert done.stdout.split()[-2:] == ["eth0", "lo"], "not the lab host's own interfaces"
    refused = container.run(["sh", "-c", "echo x >> /etc/hosts"], root=busybox, network=db, capture=True)
    assert "Read-only" in refused.stderr
    db.close()
    with pytest.raises(LabkitError, match="'db' is closed"):
        container.run(["true"], root=busybox, network=db)


def test_a_kernel_without_nat_says_why_there_is_no_way_out(shop: Network) -> None:
    lack = run_in_child(nftables.unsupported)
    assert str(shop.no_way_out) == str(lack)
    assert forwards() == ("0" if lack else "1")
    if lack:
        assert "does no NAT by nftables" in str(lack)
        assert "modprobe" in lack.mend
