"""The exercises of lab 10: two boxes and a cable, the way out, a published port, and the other end of a pair."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit import temporary
from labkit.container.container import Container
from labkit.course.exercises.common.net_stand_in import Town, bridge, pair, reach, require_nat
from labkit.course.exercises.lab10 import nat_checks, published_page, veth_checks
from labkit.course.exercises.lab10.nat_checks import lone_packet
from labkit.course.exercises.lab10.port_checks import not_published
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet, Passed, Verdict
from labkit.network import Network
from labkit.process import run_in_child

__all__ = ["Connect", "OtherEnd", "Publish", "ReachOut", "lone_packet"]


class Connect(Exercise):
    """Two namespaces and a veth pair."""

    name = "connect"
    title = "Two boxes that reach each other"
    points = 2
    start = "Begin with the pair: one call makes both ends, and says in which namespace each of them is born."
    hints = (
        (
            "Three things, the last two of them at both ends: a cable, an address, and switching on. Which of them "
            "belongs to which namespace?"
        ),
        (
            '`ip.link("add", kind="veth", ifname=..., net_ns_fd=..., peer={"ifname": ..., "net_ns_fd": ...})` makes '
            "the pair. In each namespace, by `ip_in(pid)`: `link_lookup` finds the number of the interface, `addr` "
            "gives it an address, and `link` switches it on."
        ),
        (
            'For each end: `index = ip.link_lookup(ifname="cable")[0]`, `ip.addr("add", index=index, address=address, '
            'prefixlen=24)`, `ip.link("set", index=index, state="up")`.'
        ),
    )
    because = (
        "Both ends are born where they belong, so nothing of it is ever seen on the lab host. The prefix 24 says that "
        "all addresses with the same first three numbers are at the other end of this cable: with it the kernel "
        "writes the route by itself."
    )

    def check(self, connect: Callable[[int, int, str, str], object]) -> Verdict:
        """Call it with two empty namespaces; then connect from each to the other."""
        net = f"10.{self.draw_number(1, 250)}.{self.draw_number(1, 250)}"
        first = self.draw_number(2, 120)
        a, b = f"{net}.{first}", f"{net}.{first + self.draw_number(1, 120)}"
        with Town() as town:
            left, right = town.box(), town.box()
            town.build(connect, left.pid, right.pid, a, b)
            there, error = reach(left, right, b)
            back = there and reach(right, left, a)[0]
            spaces = town.survey(left=left, right=right)
        if not (there and back):
            return veth_checks.missing(spaces, a, b, error)
        return Passed(
            f"A connection from {a} arrived at {b}, and one from {b} arrived at {a}.",
            "A veth pair is a cable without a cable: what goes in at one end comes out at the other, in another "
            "namespace.",
        )


class ReachOut(Exercise):
    """Route, forwarding, NAT."""

    name = "reach_out"
    title = "A box that reaches the world outside"
    points = 3
    start = "Begin in the box: where should it send what is not for its own neighbours?"
    hints = (
        (
            "A packet makes a journey: out of the box, across the lab host, to the outside; and its answer must find "
            "back. Each of the three needs one thing."
        ),
        (
            'In the box a default route, by `ip_in(pid)`: `ip.route("add", dst="default", gateway=...)`. On the lab '
            "host, where the function runs: `1` in `/proc/sys/net/ipv4/ip_forward`, and `masquerade(subnet)`."
        ),
        (
            'With `ip_in(pid) as ip`: `ip.route("add", dst="default", gateway=gateway)`; '
            '`Path("/proc/sys/net/ipv4/ip_forward").write_text("1")`; `masquerade(subnet)`.'
        ),
    )
    because = (
        "The route is the box's business, the other two are the host's, which acts as a router here. The one at home, "
        "between your machine and the Internet, does the same two things."
    )

    def check(self, reach_out: Callable[[int, str, str], object]) -> Verdict:
        """A box on a bridge, and an outside that knows no way back; call it, and connect from the box to outside."""
        require_nat()
        net = f"10.{self.draw_number(1, 250)}.{self.draw_number(1, 250)}"
        box_address, gateway, world = f"{net}.{self.draw_number(2, 250)}", f"{net}.1", "203.0.113"
        own, far = f"{world}.{self.draw_number(2, 99)}", f"{world}.{self.draw_number(100, 250)}"
        with Town() as town:
            box, outside = town.box(), town.box()
            run_in_child(pair, town.host.pid, "to-box", box.pid, "eth0", "", box_address)
            run_in_child(pair, town.host.pid, "uplink", outside.pid, "eth0", own, far)
            run_in_child(bridge, town.host.pid, "br0", gateway, ["to-box"])
            town.build(reach_out, box.pid, gateway, f"{net}.0/24")
            there, seen_as = reach(box, outside, far)
            spaces = town.survey(box=box, outside=outside)
            if not there:
                return nat_checks.missing(town, box, outside, spaces, far, gateway)
        if seen_as != own:
            return Passed(
                f"A connection from the box reached {far}, and was seen there as {seen_as}: outside knows a way back.",
                "That is routing, and it works where somebody outside may be told. Elsewhere there is NAT.",
            )
        return Passed(
            f"A connection from {box_address} reached {far}, and was seen there as {seen_as}: the lab host's own "
            "address.",
            "For the world outside, everything in this network is one machine.",
        )


class Publish(Exercise):
    """A web server in a container, reached from the real machine."""

    name = "publish"
    title = "Publish a port"
    points = 2
    start = "Begin with an endpoint: `network.endpoint(...)` takes `publish={machine's port: container's port}`."
    hints = (
        (
            "Three things must agree: the port on which the server listens, the endpoint's port that is published, and "
            "the URL that you return. And the server must be plugged in."
        ),
        (
            '`network.endpoint("web", publish={0: 80})`: 0 stands for any port of this machine that is free, and '
            "`endpoint.published[0].host_port` says which it became. `container.start([...], root=root, "
            "network=endpoint)` starts the server."
        ),
        '`["httpd", "-f", "-p", "80", "-h", "/www"]` is the command; the URL is `f"http://127.0.0.1:{host_port}/"`.',
    )
    because = (
        "The container listens on a port of its own network, so a hundred of them may all listen on port 80. The "
        "machine's ports are what is scarce, and 0 leaves the choice to the kernel, which knows what is free."
    )

    def check(self, publish: Callable[[Network, str], Any]) -> Verdict:
        """Call it here, with a network and a root that has a page nobody can foresee; fetch the page by its URL."""
        page = self.draw_name("page")
        if self.in_room:
            return published_page.looked_at(publish, self.draw_name("net"), page)
        with temporary.Folder() as above, Network(self.draw_name("net")) as network:
            root = Path(above, "root")
            published_page.make_root(str(root), page)
            answer = publish(network, str(root))
            server = answer[0] if isinstance(answer, tuple) and answer else answer
            try:
                return self._look(network, answer, page)
            finally:
                if isinstance(server, Container):
                    server.kill()

    def _look(self, network: Network, answer: Any, page: str) -> Verdict:
        if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], Container)):
            return published_page.not_two_things(published_page.shown(answer))
        server, url = answer
        parts = published_page.parts_of(url)
        if isinstance(parts, NotYet):
            return parts
        got = published_page.fetch(url, lambda: server.alive)
        if got != page:
            return not_published(network, server, parts, got)
        ours = [one for endpoint in network.endpoints.values() for one in endpoint.published]
        if parts.port not in [one.host_port for one in ours]:
            return NotYet(
                "The page came, but not through the network: the port in the URL is none that one of its endpoints "
                "publishes.",
                "Who serves it? The exercise is to publish a port of a container in `network`.",
            )
        return Passed(
            f"The page came from `{url}`. Behind it a container listens on port {ours[0].port} of a network that this "
            "machine has no interface in.",
            "The listening socket was made on the real machine and handed to a process on the lab host; that process "
            "connects to the container. Only what you publish can be reached.",
        )


class OtherEnd(Exercise):
    """Who holds the other end of a pair."""

    name = "other_end"
    title = "Find who holds the other end"
    points = 2
    start = "Begin with what your end knows: `ip.get_links(...)` tells its own number, and that of its peer."
    hints = (
        (
            "Interfaces are numbered in each namespace anew, so a number alone means little. But the two ends of a "
            "pair know *each other's* number."
        ),
        (
            "`link['index']` is an interface's own number and `link.get_attr('IFLA_LINK')` that of its peer. Look into "
            "the namespace of each process with `ip_in(pid)`, and compare both, crosswise."
        ),
        (
            "With `ours` on the lab host and `theirs` in a box: `theirs['index'] == ours.get_attr('IFLA_LINK') and "
            "theirs.get_attr('IFLA_LINK') == ours['index']`."
        ),
    )
    because = (
        "`ip link` shows the same as `veth1@if2`: this is veth1, and its peer has the number 2 elsewhere. Both numbers "
        "together leave one candidate, since the lab host numbers its own ends without repeating."
    )

    def check(self, other_end: Callable[[str, list[int]], int]) -> Verdict:
        """Several boxes with the same numbers inside; ask for one of them."""
        with Town() as town:
            boxes = [town.box() for _ in range(self.draw_number(3, 5))]
            names = [self.draw_name("v") for _ in boxes]
            order = list(zip(names, boxes, strict=True))
            self.random.shuffle(order)
            for name, box in order:
                run_in_child(pair, town.host.pid, name, box.pid, "eth0")
            # A second interface, whose number in its box is the number of another pair on the lab host.
            run_in_child(pair, town.host.pid, self.draw_name("w"), boxes[0].pid, "eth1")
            asked = self.draw_number(1, len(boxes) - 1)
            pids = [box.pid for box in boxes]
            with town.spawn(other_end, names[asked], pids) as child:
                answer = child.value
            spaces = town.survey(box=boxes[asked])
        index = next(link["index"] for link in spaces["box"]["links"] if link["name"] == "eth0")
        return _is_other_end(answer, names[asked], pids, pids[asked], index)


def _is_other_end(answer: object, name: str, pids: list[int], truth: int, index: int) -> Verdict:
    if answer == truth:
        return Passed(
            f"The other end of `{name}` is interface {index} of process {truth}'s namespace.",
            "When a container's network is slow or silent, this is the first question: which of all the interfaces on "
            "the host is its own?",
        )
    if answer == index:
        return NotYet(
            f"`other_end({name!r}, ...)` returned {answer}: the *number* of the interface at the other end.",
            "In each of these boxes an interface has that number. Whose is it?",
        )
    if answer in pids:
        return NotYet(
            f"`other_end({name!r}, ...)` returned {answer}. That process has an interface with the number {index} too, "
            "but it is the end of another pair.",
            "Inside, numbers begin anew in each namespace. What does the interface inside know about *its* peer?",
        )
    return NotYet(
        f"`other_end({name!r}, ...)` returned {answer!r}, which is none of the processes {', '.join(map(str, pids))}.",
        "Go through `pids`, look into the namespace of each, and return the one whose interface fits.",
    )
