"""What a network consists of in the kernel, made by netlink: a bridge, veth pairs, routes, and rules for packets.

::

    the lab host's namespace                       an endpoint's namespace
    br-shop  10.88.0.1/24 ── web-3fa9c1 ═══ veth ═══ eth0  10.88.0.2/24, default via 10.88.0.1
       │
       └─ forwarded, and masqueraded on the way out

These functions run in a child on the lab host that has imported pyroute2 and stays alive; `labkit.network` calls them
there. They keep nothing but the descriptors of namespaces: all else is in the kernel, found again by its name, so that
another child can go on where one was killed.

Sources: rtnetlink(7), veth(4), network_namespaces(7), ip_forward in `ip-sysctl.rst`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EEXIST, ENODEV, ENOENT, EOPNOTSUPP, EPERM, EPROTONOSUPPORT, EROFS
from ipaddress import IPv4Interface, IPv4Network
from typing import Any

from labkit import constants as c
from labkit import syscalls
from labkit.errors import InvalidConfig, LabkitError, Unsupported
from labkit.kernel import netns
from labkit.network import nftables

INSIDE = "eth0"  # what an endpoint calls its end of the pair
_IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"


def used_subnets() -> list[IPv4Network]:
    """The subnets that the lab host's own interfaces are in, loopback left out."""
    with _iproute() as ip:
        found = [IPv4Interface(f"{one.get_attr('IFA_ADDRESS')}/{one['prefixlen']}") for one in ip.get_addr(family=2)]
    return [one.network for one in found if not one.is_loopback]


def make(bridge: str, address: IPv4Interface, hardware_address: str) -> tuple[bool, Unsupported | None]:
    """Make a bridge with `address`, write the rules, and forward what comes through it; all or nothing.

    Returns whether the lab host forwarded packets before, and why it does not now: without rules nothing is forwarded.
    The bridge's hardware address is given: left alone it would change whenever a port with a lower one joins, and what
    neighbours remember would be wrong.
    """
    with open(_IP_FORWARD) as file:
        forwarded = file.read().strip() != "0"
    with _iproute() as ip, _told("making the bridge"):
        try:
            ip.link("add", ifname=bridge, kind="bridge", address=hardware_address)
        except ip_error() as error:
            if error.code == EEXIST:
                raise InvalidConfig(f"the lab host has an interface {bridge!r} already; choose another name") from None
            raise
        try:
            index = _index(ip, bridge)
            ip.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
            ip.link("set", index=index, state="up")
            if (lack := nftables.write(bridge, address.network)) is None:
                _forward(True)
        except BaseException:
            remove(bridge, forwarded)
            raise
    return forwarded, lack


def remove(bridge: str, forward: bool) -> None:
    """Take away a bridge and its rules, as far as they are there; forward packets, or do not, once none is left."""
    with _iproute() as ip, suppress(ip_error()):
        if found := ip.link_lookup(ifname=bridge):
            ip.link("del", index=found[0])
    nftables.remove(bridge)
    if not forward and not nftables.bridges():
        _forward(False)


def plug(bridge: str, link: str, address: IPv4Interface, gateway: str, hardware_address: str) -> int:
    """Make a network namespace plugged into `bridge`; return its descriptor, in this process.

    The pair is made with its far end in the namespace already: nobody sees it half done. Whoever closes the last
    descriptor of the namespace ends it, and the pair with it.
    """
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    namespace = -1
    try:
        with _iproute() as ip, _told("plugging an endpoint in"):
            syscalls.unshare(c.CLONE_NEWNET)
            try:
                namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
                with _proc() as proc:
                    netns.begin(proc)
                inside = _iproute()  # a netlink socket stays with the namespace it was made in
            finally:
                syscalls.setns(home, c.CLONE_NEWNET)
            with inside:
                far = {"ifname": INSIDE, "net_ns_fd": namespace, "address": hardware_address}
                ip.link("add", ifname=link, kind="veth", master=_index(ip, bridge), state="up", peer=far)
                index = _index(inside, INSIDE)
                inside.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
                inside.link("set", index=index, state="up")
                inside.route("add", dst="default", gateway=gateway)
        return namespace
    except BaseException:
        if namespace >= 0:
            unplug(link, namespace)
        raise
    finally:
        os.close(home)


def unplug(link: str, namespace: int | None) -> None:
    """Take a pair away, and close the descriptor of its namespace, if this process has it.

    The kernel takes its time to clear a namespace that nobody holds, so the pair is not left to that.
    """
    try:
        with _iproute() as ip, suppress(ip_error()):
            if found := ip.link_lookup(ifname=link):
                ip.link("del", index=found[0])
    finally:
        if namespace is not None:
            os.close(namespace)


def _forward(on: bool) -> None:
    with open(_IP_FORWARD, "w") as file:
        file.write("1" if on else "0")


@contextmanager
def _proc() -> Iterator[int]:
    fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _iproute() -> Any:
    from pyroute2 import IPRoute

    return IPRoute()


def ip_error() -> Any:
    """The exception that pyroute2 raises with an errno in `.code`."""
    from pyroute2.netlink.exceptions import NetlinkError

    return NetlinkError


def _index(ip: Any, name: str) -> int:
    found = ip.link_lookup(ifname=name)
    if not found:
        raise LabkitError(f"the lab host has no interface {name!r} any more: was it deleted by hand?")
    return int(found[0])


@contextmanager
def _told(doing: str) -> Iterator[None]:
    """Errors as people can read them, and as can travel to a process that has not imported pyroute2."""
    try:
        yield
    except OSError as error:
        number = error.errno
    except ip_error() as error:
        number = error.code
    else:
        return
    if number in (EOPNOTSUPP, ENOENT, EPROTONOSUPPORT, ENODEV):
        lack = f"this kernel cannot do what a network takes ({doing}: {os.strerror(number)})"
        raise Unsupported(lack, "load its modules, as root: modprobe -a bridge veth")
    if number in (EPERM, EACCES, EROFS):  # the last where an outer container has /proc/sys read-only
        lack = f"a network may not be made here ({doing}: {os.strerror(number)})"
        raise Unsupported(lack, "a container around this one forbids it; `./lab doctor` says how to get a machine")
    raise LabkitError(f"{doing} failed: {os.strerror(number or 0)}")
