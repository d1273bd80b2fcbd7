"""The networks of a lab host: one look at every network namespace in it, as plain data for the picture.

`look(host_pid)` runs in a child on the lab host, which it asks by netlink; it changes nothing. Namespaces are found by
who is in them, by who has one open, and by what is mounted. All of that may vanish at any moment: what could not be
looked into any more is left out.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Interface
from typing import Any

from labkit import constants as c
from labkit import procfs, syscalls
from labkit.network import nftables

Link = dict[str, Any]
Namespace = dict[str, Any]
_LOOPBACK, _UP, _LOWER_UP = 0x8, 0x1, 0x10000  # IFF_*, netdevice(7)
_ROUTES_MAIN = 254


def look(host_pid: int) -> dict[str, Any]:
    """Everything the picture shows: the namespaces, the lab host's first, and whether packets are passed on."""
    places = {os.stat("/proc/self/ns/net").st_ino: "/proc/self/ns/net", **_places(host_pid)}
    members = _members(host_pid)
    found = survey(places)
    for space in found:
        space["processes"] = members.get(space["id"], [])
    return {"namespaces": found, "forwards": _forwards(), "masqueraded": nftables.masquerading()}


def survey(places: dict[int, str]) -> list[Namespace]:
    """The links, routes and pairs of some namespaces: `places` says where each can be opened, by its inode."""
    found = []
    for inode, place in places.items():
        with suppress(OSError):  # it has ended meanwhile
            found.append({"id": inode, **_inside(place, places)})
    _connect(found)
    return found


def _members(host_pid: int) -> dict[int, list[int]]:
    """The processes in each namespace, by its inode."""
    found: dict[int, list[int]] = {}
    for pid in procfs.descendants(host_pid):
        with suppress(OSError):
            found.setdefault(procfs.namespace_inode(pid, "net"), []).append(pid)
    return found


def _places(host_pid: int) -> dict[int, str]:
    """Where each namespace can be opened, by its inode, in a steady order."""
    found: dict[int, str] = {}
    for pid in procfs.descendants(host_pid):
        with suppress(OSError):
            found.setdefault(procfs.namespace_inode(pid, "net"), f"/proc/{pid}/ns/net")
            for fd in os.listdir(f"/proc/{pid}/fd"):
                path = f"/proc/{pid}/fd/{fd}"
                with suppress(OSError):
                    if os.readlink(path).startswith("net:["):
                        found.setdefault(os.stat(path).st_ino, path)
    for mount in procfs.mountinfo():
        if mount.filesystem == "nsfs" and mount.root.startswith("net:["):
            found.setdefault(int(mount.root[5:-1]), mount.mount_point)
    return dict(sorted(found.items()))


@contextmanager
def _entered(place: str) -> Iterator[Any]:
    """A netlink socket of another namespace, which stays with it; this process is there for a moment only."""
    from pyroute2 import IPRoute

    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(there, c.CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            ip = IPRoute()
        finally:
            syscalls.setns(home, c.CLONE_NEWNET)
    finally:
        os.close(home)
    with ip:
        yield ip


def _inside(place: str, places: dict[int, str]) -> dict[str, Any]:
    """The links of a namespace, with their addresses, and its routes."""
    with _entered(place) as ip:
        links = {one["index"]: _link(one) for one in ip.get_links()}
        for one in ip.get_addr(family=2):
            if one["index"] in links:
                address = one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS")
                links[one["index"]]["addresses"].append(f"{address}/{one['prefixlen']}")
        numbers = _numbers(ip, places) if any(one["peer_number"] is not None for one in links.values()) else {}
        routes = [_route(one, links) for one in ip.get_routes(family=2, table=_ROUTES_MAIN)]
    for link in links.values():
        master = links.get(link.pop("master_index"))
        link["master"] = master["name"] if master else None
    return {"links": list(links.values()), "routes": routes, "numbers": numbers}


def _link(one: Any) -> Link:
    info = one.get_attr("IFLA_LINKINFO")
    flags = one["flags"]
    return {
        "index": one["index"],
        "name": one.get_attr("IFLA_IFNAME"),
        "kind": "loopback" if flags & _LOOPBACK else (info.get_attr("IFLA_INFO_KIND") if info else None) or "device",
        "up": bool(flags & _UP),
        "carrier": bool(flags & _LOWER_UP),  # False for a pair's end whose other end is down
        "mac": one.get_attr("IFLA_ADDRESS"),
        "addresses": [],
        "master_index": one.get_attr("IFLA_MASTER"),
        "peer_index": one.get_attr("IFLA_LINK"),
        "peer_number": one.get_attr("IFLA_LINK_NETNSID"),
        "peer": None,
    }


def _route(one: Any, links: dict[int, Link]) -> str:
    """As `ip route` writes it."""
    to = one.get_attr("RTA_DST")
    words = [f"{to}/{one['dst_len']}" if to else "default"]
    if gateway := one.get_attr("RTA_GATEWAY"):
        words += ["via", gateway]
    if link := links.get(one.get_attr("RTA_OIF")):
        words += ["dev", link["name"]]
    return " ".join(words)


def _numbers(ip: Any, places: dict[int, str]) -> dict[int, int]:
    """The namespaces that the one of `ip` has a number for, by that number: how the kernel there names a peer's."""
    found = {}
    for inode, place in places.items():
        with suppress(OSError):
            fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            try:
                number = (ip.get_netnsid(fd=fd) or {}).get("nsid")
            finally:
                os.close(fd)
            if number is not None and number >= 0:
                found[number] = inode
    return found


def _connect(found: list[Namespace]) -> None:
    """Say of each end of a veth pair where the other one is; None where that was not found."""
    spaces = {space["id"]: {link["index"]: link for link in space["links"]} for space in found}
    for space in found:
        numbers = space.pop("numbers")
        for link in space["links"]:
            index, number = link.pop("peer_index"), link.pop("peer_number")
            there = space["id"] if number is None else numbers.get(number)
            other = spaces.get(there, {}).get(index)
            if link["kind"] == "veth" and other:
                link["peer"] = {"id": there, "name": other["name"]}


def _forwards() -> bool:
    with open("/proc/sys/net/ipv4/ip_forward") as file:
        return file.read().strip() != "0"


def duplicates(namespaces: list[Namespace]) -> dict[str, list[tuple[int, str]]]:
    """Addresses that more than one interface has, and which: (namespace, interface). Loopback's do not count."""
    holders: dict[str, list[tuple[int, str]]] = {}
    for space in namespaces:
        for link in space["links"]:
            for address in link["addresses"]:
                if not IPv4Interface(address).is_loopback:
                    holders.setdefault(address.split("/")[0], []).append((space["id"], link["name"]))
    return {address: where for address, where in holders.items() if len(where) > 1}
