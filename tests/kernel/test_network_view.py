"""The picture of the network: what one look finds, what it is called, and how it follows."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from labkit import constants as c
from labkit import syscalls
from labkit.course.views.network_view import NetworkView
from labkit.host import lab_host
from labkit.network import Network
from labkit.process import Child, run_in_child, spawn
from tests.kernel.test_network import inside


@pytest.fixture
def shop() -> Iterator[Network]:
    with Network("shop", subnet="10.0.5.0/24") as network:
        network.endpoint("web", publish={0: 80})
        network.endpoint("db")
        yield network


def space(view: NetworkView, name: str) -> Any:
    (found,) = [one for one in view.state["namespaces"] if one["name"] == name]
    return found


def link(view: NetworkView, name: str, interface: str = "eth0") -> Any:
    (found,) = [one for one in space(view, name)["links"] if one["name"] == interface]
    return found


def set_link(name: str, state: str) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname=name)[0], state=state)


def add_address(name: str, address: str) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        ip.addr("add", index=ip.link_lookup(ifname=name)[0], address=address, prefixlen=24)


def remove_default_route(gateway: str) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        ip.route("del", dst="default", gateway=gateway)


def pair_between(pid: int, other: int) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        ip.link("add", ifname="left", kind="veth", peer={"ifname": "right", "net_ns_fd": f"/proc/{other}/ns/net"})
        ip.link("set", index=ip.link_lookup(ifname="left")[0], net_ns_fd=f"/proc/{pid}/ns/net")


def test_what_a_look_finds(shop: Network) -> None:
    with NetworkView([shop]) as view:
        state = view.state
        assert state["namespaces"][0]["name"] == "lab host"
        assert {one["name"] for one in state["namespaces"]} == {"lab host", "web", "db"}
        assert link(view, "web")["addresses"] == ["10.0.5.2/24"]
        assert link(view, "web")["peer"] == {
            "id": space(view, "lab host")["id"],
            "name": shop.endpoints["web"].link,
        }
        assert link(view, "lab host", shop.endpoints["web"].link)["master"] == "br-shop"
        assert "default via 10.0.5.1 dev eth0" in space(view, "web")["routes"]
        assert state["forwards"] is True
        assert state["masqueraded"] == ["br-shop"]
        assert state["troubles"] == []
        (published,) = state["published"]
        assert published["outside"] == f"127.0.0.1:{shop.endpoints['web'].published[0].host_port}"
        json.dumps(state)
        assert "eth0 veth up 10.0.5.2/24 to" in view.as_text()


def test_it_follows_what_happens(shop: Network) -> None:
    with NetworkView([shop]) as view, inside(shop.endpoints["web"]) as web:
        before = view.state
        view.refresh()
        assert view.state["namespaces"][0] == before["namespaces"][0]
        web.call(set_link, "eth0", "down")
        view.refresh()
        assert not link(view, "web")["up"]
        assert not link(view, "lab host", shop.endpoints["web"].link)["carrier"]
        assert "eth0 of web has an address and is down." in view.state["troubles"]
        web.call(set_link, "eth0", "up")
        web.call(add_address, "eth0", "10.0.5.3")
        view.refresh()
        (trouble,) = view.state["troubles"]
        assert trouble == "10.0.5.3 is there more than once: eth0 of db and eth0 of web."
        assert link(view, "web")["duplicates"] == ["10.0.5.3/24"]
        assert space(view, "web")["routes"] == ["10.0.5.0/24 dev eth0"], "the route went with the interface"


def test_a_route_that_is_gone(shop: Network) -> None:
    with NetworkView([shop]) as view, inside(shop.endpoints["db"]) as db:
        db.call(remove_default_route, shop.gateway)
        view.refresh()
        assert space(view, "db")["routes"] == ["10.0.5.0/24 dev eth0"]


def test_namespaces_made_by_hand_have_the_names_they_are_given() -> None:
    with spawn(syscalls.unshare, c.CLONE_NEWNET) as one, spawn(syscalls.unshare, c.CLONE_NEWNET) as two:
        run_in_child(pair_between, one.pid, two.pid)
        with NetworkView(names={"one": one}) as view:
            other = f"process {two.pid}"
            assert link(view, "one", "left")["peer"] == {"id": space(view, other)["id"], "name": "right"}
            assert link(view, other, "right")["peer"] == {"id": space(view, "one")["id"], "name": "left"}
            assert not link(view, "one", "lo")["up"]
            two.kill()
            view.refresh()
            assert other not in {one["name"] for one in view.state["namespaces"]}


def test_two_pairs_with_the_same_numbers_are_not_mixed_up() -> None:
    """Indices are numbered anew in each namespace, so two pairs may have the same ones."""
    with (
        spawn(syscalls.unshare, c.CLONE_NEWNET) as a,
        spawn(syscalls.unshare, c.CLONE_NEWNET) as b,
        spawn(syscalls.unshare, c.CLONE_NEWNET) as x,
        spawn(syscalls.unshare, c.CLONE_NEWNET) as y,
    ):
        with Child() as elsewhere:
            elsewhere.call(syscalls.unshare, c.CLONE_NEWNET)
            elsewhere.call(pair_between, a.pid, b.pid)
        with Child() as elsewhere:
            elsewhere.call(syscalls.unshare, c.CLONE_NEWNET)
            elsewhere.call(pair_between, x.pid, y.pid)
        with NetworkView(names={"a": a, "b": b, "x": x, "y": y}) as view:
            for near, far in (("a", "b"), ("x", "y")):
                assert link(view, near, "left")["index"] == link(view, "a", "left")["index"]
                assert link(view, near, "left")["peer"]["id"] == space(view, far)["id"]


def test_it_ends_with_the_lab_host(shop: Network) -> None:
    view = NetworkView([shop])
    lab_host.reset()
    assert view.refresh() is False
    assert view.state["status"] == "ended"
    assert lab_host._current is None, "a look must not start another lab host"
    view.close()


def test_a_look_goes_on_after_its_child_was_killed(shop: Network) -> None:
    """As a check does with everything that began while it ran."""
    with NetworkView([shop]) as view:
        assert view._child
        view._child.kill()
        assert view.refresh() is True
        assert {one["name"] for one in view.state["namespaces"]} == {"lab host", "web", "db"}


def test_what_cannot_be_named(shop: Network) -> None:
    with pytest.raises(TypeError, match="'it' must be a child"):
        NetworkView(names={"it": "web"})
