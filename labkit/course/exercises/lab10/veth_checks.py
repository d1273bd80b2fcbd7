"""What is wrong with a cable between two boxes: from the outside in, the first thing that is missing."""

from labkit.course.exercises.common.net_stand_in import Link, Space
from labkit.course.framework.outcomes import NotYet, Verdict


def missing(spaces: dict[str, Space], a: str, b: str, error: str) -> Verdict:
    """Why `left`, which shall be `a`, and `right`, which shall be `b`, do not reach each other."""
    left, right, host = _ends(spaces["left"]), _ends(spaces["right"]), _ends(spaces["host"])
    return (
        _no_pair(left, right, host)
        or _not_joined(spaces, left, right)
        or _addresses(spaces, a, b)
        or _switched_off(left, right)
        or NotYet(
            f"The cable is there, but a connection from {a} to {b} failed: {error}.",
            "Compare both ends in the picture: address, prefix, state, routes.",
        )
    )


def _ends(space: Space) -> list[Link]:
    return [link for link in space["links"] if link["kind"] == "veth"]


def _no_pair(left: list[Link], right: list[Link], host: list[Link]) -> Verdict | None:
    if not left and not right and not host:
        return NotYet(
            "There is no veth pair anywhere, neither in the two boxes nor on the lab host.",
            "An empty namespace has only `lo`. Which kind of link has two ends?",
        )
    if not left and not right:
        names = " and ".join(f"`{link['name']}`" for link in host)
        return NotYet(
            f"There is a pair, but its ends {names} are on the lab host: no box has one.",
            "A link is born where the call is made. `net_ns_fd` says where it belongs, once for each end.",
        )
    if not left or not right:
        has, lacks = ("left", "right") if left else ("right", "left")
        where = f"; the other one, `{host[0]['name']}`, is on the lab host" if host else ""
        return NotYet(
            f"The {has} box has an end of a pair, and the {lacks} one has none{where}.",
            "Each end is told by itself where it belongs: the first by `net_ns_fd`, the other within `peer`.",
        )
    return None


def _not_joined(spaces: dict[str, Space], left: list[Link], right: list[Link]) -> Verdict | None:
    if any(link["peer"] and link["peer"]["id"] == spaces["right"]["id"] for link in left):
        return None
    if any(link["master"] for link in _ends(spaces["host"])):
        return None  # by way of a bridge
    return NotYet(
        f"Each box has an end, `{left[0]['name']}` and `{right[0]['name']}`, but they are ends of two different pairs.",
        "One pair has two ends. Does your function make one pair, or one for each box?",
    )


def _addresses(spaces: dict[str, Space], a: str, b: str) -> Verdict | None:
    have = {
        name: [address for link in spaces[name]["links"] for address in link["addresses"] if link["kind"] != "loopback"]
        for name in ("left", "right")
    }
    plain = {name: [one.split("/")[0] for one in addresses] for name, addresses in have.items()}
    if b in plain["left"] and a in plain["right"]:
        return NotYet(
            f"The left box has {b} and the right one {a}: it should be the other way round.",
            "Which address belongs to which process? The order is that of the arguments.",
        )
    for name, wanted in (("left", a), ("right", b)):
        if wanted not in plain[name]:
            found = f"has {', '.join(have[name])}" if have[name] else "has no address"
            on_host = [
                link["name"]
                for link in spaces["host"]["links"]
                if any(one.split("/")[0] == wanted for one in link["addresses"])
            ]
            also = f" The address is at `{on_host[0]}` of the lab host." if on_host else ""
            return NotYet(
                f"The {name} box {found}; it should have {wanted}.{also}",
                "An address belongs to an interface, and the interface to a namespace. In which one was the call made?",
            )
    for name, wanted in (("left", a), ("right", b)):
        if f"{wanted}/24" not in have[name] and f"{wanted}/32" in have[name]:
            return NotYet(
                f"The {name} box has the address {wanted}/32: a network in which it is alone.",
                "The prefix says which addresses are neighbours, and without one there are none. Which `prefixlen` "
                "makes both of them neighbours?",
            )
    return None


def _switched_off(left: list[Link], right: list[Link]) -> Verdict | None:
    off = [f"the {name} box's `{link['name']}`" for name, links in (("left", left), ("right", right)) for link in links]
    off = [
        words
        for words, link in zip(off, [*left, *right], strict=True)
        if not link["up"]  # "carrier" says whether the other end is
    ]
    if off:
        return NotYet(
            f"Down: {' and '.join(off)}.",
            "A new interface is switched off, and a cable needs both ends on. Which call switches one on, and for "
            "which ends did you make it?",
        )
    return None
