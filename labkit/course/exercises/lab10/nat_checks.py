"""Why a box does not reach the outside: followed along the packet's way."""

from labkit.course.exercises.common.net_stand_in import Place, Space, Town, arrives, bridge, in_namespace, pair, reach
from labkit.course.framework.outcomes import NotYet, Verdict
from labkit.network.nftables import masquerade
from labkit.process import run_in_child


def missing(town: Town, box: Place, outside: Place, spaces: dict[str, Space], far: str, gateway: str) -> Verdict:
    """The first thing that is missing between `box` and `far`, which is at `outside`."""
    if mistake := _route(spaces, far, gateway):
        return mistake
    if not town.host.call(_forwards):
        return NotYet(
            f"The box sends what is for {far} to {gateway}, which is the lab host; and the lab host drops it.",
            "A machine passes on packets that are not for itself only if it is told to be a router. Which file in "
            "`/proc/sys/net/ipv4` says so?",
        )
    seen_as = arrives(box, outside, far)
    if seen_as is None:
        return NotYet(
            f"The box has its route and the lab host forwards, but nothing arrives at {far}.",
            "Is there a rule that drops, or one that changes where packets go? `nft list ruleset` shows all of them.",
        )
    return NotYet(
        f"Packets of the box arrive at {far}, with the sender {seen_as}. Nobody out there knows that address, so the "
        "answers go nowhere.",
        "Outside, one address of this side is known: the lab host's own. Who could write it into the packets, and the "
        "right one into the answers?",
    )


def lone_packet(nat: bool) -> tuple[str | None, bool]:
    """In a town of its own, with route and forwarding: the address by which a packet of the box 10.0.99.2 arrives
    outside, at 203.0.113.7, and whether a conversation with it is possible. With `nat`, the host masquerades."""
    with Town() as town:
        box, outside = town.box(), town.box()
        run_in_child(pair, town.host.pid, "to-box", box.pid, "eth0", "", "10.0.99.2")
        run_in_child(pair, town.host.pid, "uplink", outside.pid, "eth0", "203.0.113.1", "203.0.113.7")
        run_in_child(bridge, town.host.pid, "br0", "10.0.99.1", ["to-box"])
        run_in_child(_default_route, box.pid, "10.0.99.1")
        town.host.call(_forward)
        if nat:
            town.host.call(masquerade, "10.0.99.0/24")
        seen_as = arrives(box, outside, "203.0.113.7")
        return seen_as, reach(box, outside, "203.0.113.7")[0]


def _default_route(pid: int, gateway: str) -> None:
    with in_namespace(pid) as ip:
        ip.route("add", dst="default", gateway=gateway)


def _forward() -> None:
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("1")


def _route(spaces: dict[str, Space], far: str, gateway: str) -> Verdict | None:
    default = [route for route in spaces["box"]["routes"] if route.startswith("default")]
    if not default:
        if any(route.startswith("default") for route in spaces["host"]["routes"]):
            return NotYet(
                "The default route is there, but on the lab host: the box still knows its own neighbours only.",
                "Routes belong to a namespace. In which one was the call made?",
            )
        return NotYet(
            f"The box has no way to {far}: its routes are {' and '.join(spaces['box']['routes']) or 'none'}.",
            "A route says to which neighbour packets for a destination go. Which one stands for all that is not said "
            "otherwise, and who is the neighbour?",
        )
    if f"via {gateway}" not in default[0]:
        return NotYet(
            f"The box has the route `{default[0]}`; its way out is {gateway}.",
            "A gateway is a neighbour that passes packets on. Who is that here?",
        )
    return None


def _forwards() -> bool:
    with open("/proc/sys/net/ipv4/ip_forward") as file:
        return file.read().strip() != "0"
