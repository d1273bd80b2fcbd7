"""What a network is planned with: subnets, addresses, and names that both people and the kernel accept.

Everything here is arithmetic and checking; nothing of it touches the machine. Only IPv4: the labs need no more, and
what a learner sees with it fits on a line. Sources: RFC 1918 (private addresses), RFC 1123 (names), IFNAMSIZ in
netdevice(7).
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

from labkit.errors import InvalidConfig, LabkitError

INTERFACE_BYTES_MAX = 15  # IFNAMSIZ is 16, with the final NUL
LONGEST_PREFIX = 30  # two bits for hosts: this network's own address, the bridge, one endpoint, broadcast
_CHOICES = IPv4Network("10.88.0.0/16")  # where a subnet is chosen from, if none was asked for
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_TAKEN = {"localhost", "ip6-localhost", "ip6-loopback"}


def checked_name(name: object, what: str) -> str:
    """`name`, where it can be a host's name and part of an interface's. `InvalidConfig`: it cannot; `what` it is of."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        shown = repr(name) if len(repr(name)) <= 70 else f"one of {len(str(name))} characters"
        raise InvalidConfig(
            f"the name of {what} is 1 to 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends and "
            f"no '..'; not {shown}"
        )
    if name.lower() in _TAKEN:
        raise InvalidConfig(f"{name!r} is every machine's name for itself; choose another one for {what}")
    return name


def checked_subnet(subnet: object) -> IPv4Network:
    """`subnet`, such as `10.0.5.0/24`, as a network in which hosts can have addresses. `InvalidConfig`: it is none."""
    try:
        found = ip_network(subnet)  # type: ignore[arg-type]  # it refuses what it does not know
    except (ValueError, TypeError):
        raise InvalidConfig(_no_subnet(subnet)) from None
    if not isinstance(subnet, str | IPv4Network) or not isinstance(found, IPv4Network):
        raise InvalidConfig(f"a subnet is an IPv4 network such as '10.0.5.0/24', not {subnet!r}")
    if found.prefixlen > LONGEST_PREFIX:
        raise InvalidConfig(
            f"{found} has no room for a bridge and an endpoint: its prefix must be /{LONGEST_PREFIX} or shorter"
        )
    if found.prefixlen < 8:
        raise InvalidConfig(f"{found} is far too large for one network: its prefix must be /8 or longer")
    for why in ("loopback", "multicast", "link_local", "reserved", "unspecified"):
        if getattr(found, f"is_{why}") or getattr(found.network_address, f"is_{why}"):
            raise InvalidConfig(
                f"{found} are {why.replace('_', '-')} addresses; take private ones, such as 10.0.5.0/24"
            )
    if found.network_address in IPv4Network("0.0.0.0/8"):
        raise InvalidConfig(f"{found} are addresses of no network; take private ones, such as 10.0.5.0/24")
    return found


def _no_subnet(subnet: object) -> str:
    try:
        meant = ip_network(subnet, strict=False)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return f"a subnet is an IPv4 network such as '10.0.5.0/24', not {subnet!r}"
    return f"{subnet} is an address within a network; the network itself is written {meant}"


def free_subnet(used: Iterable[IPv4Network]) -> IPv4Network:
    """A /24 that meets none of `used`. `LabkitError`: there is none left."""
    used = list(used)
    for candidate in _CHOICES.subnets(new_prefix=24):
        if not any(candidate.overlaps(one) for one in used):
            return candidate
    raise LabkitError(f"every /24 of {_CHOICES} is in use on the lab host; close a network, or ask for a subnet")


def refuse_overlap(subnet: IPv4Network, used: Iterable[IPv4Network]) -> None:
    """`InvalidConfig` where `subnet` shares addresses with one that the lab host has already."""
    for one in used:
        if subnet.overlaps(one):
            raise InvalidConfig(f"{subnet} overlaps {one}, which the lab host has already; take another subnet")


def gateway(subnet: IPv4Network) -> IPv4Address:
    """The first host's address: the bridge has it, and it is the others' way out."""
    return subnet.network_address + 1


def checked_address(address: object, subnet: IPv4Network, used: Iterable[IPv4Address]) -> IPv4Address:
    """`address` as one that an endpoint of `subnet` can have. `InvalidConfig`: it cannot."""
    try:
        found = ip_address(address)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        found = None
    if not isinstance(address, str | IPv4Address) or not isinstance(found, IPv4Address):
        raise InvalidConfig(f"an address is written as '{subnet.network_address + 2}' is, not {address!r}")
    if found not in subnet:
        raise InvalidConfig(f"{found} is not in this network, which is {subnet}")
    if found in (subnet.network_address, subnet.broadcast_address):
        which = "the network itself" if found == subnet.network_address else "everybody in it (broadcast)"
        raise InvalidConfig(f"{found} means {which}; an endpoint's address lies between")
    if found == gateway(subnet):
        raise InvalidConfig(f"{found} is the bridge's own address; take another one of {subnet}")
    if found in used:
        raise InvalidConfig(f"another endpoint has the address {found} already")
    return found


def free_address(subnet: IPv4Network, used: Iterable[IPv4Address]) -> IPv4Address:
    """The lowest address that nobody has. `LabkitError`: all are taken."""
    taken = {*used, gateway(subnet)}
    for candidate in _hosts(subnet):
        if candidate not in taken:
            return candidate
    raise LabkitError(f"every address of {subnet} is taken; close an endpoint, or make a network with a larger subnet")


def _hosts(subnet: IPv4Network) -> Iterator[IPv4Address]:
    for number in range(int(subnet.network_address) + 1, int(subnet.broadcast_address)):
        yield IPv4Address(number)


def checked_port(port: object, what: str, *, any_free: bool = False) -> int:
    """`port` as a TCP port number. 0 asks for any that is free, where that makes sense. `InvalidConfig`: it is none."""
    lowest = 0 if any_free else 1
    if isinstance(port, bool) or not isinstance(port, int) or not lowest <= port <= 65535:
        also = ", or 0 for any that is free" if any_free else ""
        raise InvalidConfig(f"{what} is a number from 1 to 65535{also}, not {port!r}")
    return port


def hardware_address(address: IPv4Address) -> str:
    """The MAC address that goes with `address`, always the same one.

    Neighbours remember for minutes which MAC an address has. Where an endpoint takes over an address of one that has
    gone, what they remember is still right. The first byte says "locally administered" (RFC 9542).
    """
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x4C, *address.packed))


def interface_name(name: str, *, begin: str = "", of: str | None = None) -> str:
    """A name for a network interface, of 15 bytes at most: `begin` and `name`, if that fits.

    Else, or where it would not be unique without `of`, some of it and a part of a hash of all.
    """
    if of is None and len(begin + name) <= INTERFACE_BYTES_MAX:
        return begin + name
    digest = hashlib.sha256(f"{of}/{name}".encode()).hexdigest()[:6]
    room = INTERFACE_BYTES_MAX - len(begin) - 1 - len(digest)
    return f"{begin}{name[:room]}-{digest}"
