"""Rules for packets: what leaves a network goes under the lab host's address, and nobody walks in uninvited.

The kernel's nftables is a small machine: a rule is a row of instructions that load something of the packet into a
register, compare it, and go on or give up. Here they are as such, sent by pyroute2. The program `nft`, which turns a
language into them, would be a package more to have and a process to start each time. (pyroute2's own helper for
addresses is no help: it takes 10.0.0.0/28 for a mask of 255.255.255.15.)

Runs in a child on the lab host, as `netlink` does. Source: nft(8); `include/uapi/linux/netfilter/nf_tables.h`.
"""

import os
from contextlib import suppress
from errno import EAFNOSUPPORT, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT
from ipaddress import IPv4Network
from typing import Any

from labkit import syscalls
from labkit.constants import CLONE_NEWNET
from labkit.errors import LabkitError, Unsupported

TABLES = "labkit-"  # the names of our tables begin so; the bridge's name follows
_SRCNAT = 100  # the priority of source NAT: after every filter has seen the packet as it was
_IIFNAME, _OIFNAME = 6, 7  # NFT_META_IIFNAME and _OIFNAME: the interfaces a packet came by, and leaves by
_NETWORK_HEADER, _SOURCE_ADDRESS, _DESTINATION_ADDRESS = 1, 12, 16  # NFT_PAYLOAD_NETWORK_HEADER, and where in it
_CT_STATE, _ESTABLISHED_OR_RELATED = 0, 2 | 4  # NFT_CT_STATE, and bits of it
_EQUAL, _NOT_EQUAL = 0, 1
_DROP, _ACCEPT = 0, 1


def write(bridge: str, subnet: IPv4Network) -> Unsupported | None:
    """Write the rules of one network; or say why this kernel has no such rules. `nft list ruleset` shows them as::

        table ip labkit-br-shop {
            chain postrouting { type nat hook postrouting priority srcnat; policy accept;
                ip saddr 10.88.0.0/24 oifname != "br-shop" masquerade }
            chain forward { type filter hook forward priority filter; policy accept;
                oifname "br-shop" iifname != "br-shop" ct state & (established | related) == 0 drop }
        }

    Who is in the network may begin conversations with the outside. From outside, other networks included, nobody may
    begin one: that is what publishing a port is for.
    """
    try:
        _write(TABLES + bridge, bridge, subnet)
    except (_netlink_error(), OSError) as error:
        remove(bridge)
        lack = _lack(error)
        if isinstance(lack, Unsupported):
            return lack
        raise lack from None
    return None


def _lack(error: Exception) -> LabkitError:
    """What an error of netlink means, in a form that other processes can read."""
    number = int(getattr(error, "code", None) or getattr(error, "errno", None) or 0)
    if number in (ENOENT, EOPNOTSUPP, EAFNOSUPPORT, EPROTONOSUPPORT):
        mend = "load its modules, as root: modprobe -a nft_chain_nat nft_masq nft_ct; or use another kernel"
        return Unsupported(f"this kernel does no NAT by nftables ({os.strerror(number)})", mend)
    return LabkitError(f"the rules for packets could not be written: {os.strerror(number)}")


def _write(table: str, bridge: str, subnet: IPv4Network) -> None:
    with _nftables() as nft:
        nft.table("add", name=table)
        chain = {"table": table, "name": "postrouting", "hook": "postrouting", "type": "nat", "policy": _ACCEPT}
        nft.chain("add", priority=_SRCNAT, **chain)
        masquerade = [*from_subnet(subnet), *interface(_OIFNAME, _NOT_EQUAL, bridge), _instruction("masq")]
        nft.rule("add", table=table, chain="postrouting", expressions=[masquerade])
        chain = {"table": table, "name": "forward", "hook": "forward", "type": "filter", "policy": _ACCEPT}
        nft.chain("add", priority=0, **chain)
        into = [*interface(_OIFNAME, _EQUAL, bridge), *interface(_IIFNAME, _NOT_EQUAL, bridge)]
        nft.rule("add", table=table, chain="forward", expressions=[[*into, *begins_conversation(), _verdict(_DROP)]])


def masquerade(subnet: str, table: str = "nat") -> None:
    """Have what comes from `subnet` and goes elsewhere go under this host's own address. As `nft` has it::

    nft add table ip nat
    nft add chain ip nat postrouting '{ type nat hook postrouting priority srcnat; }'
    nft add rule ip nat postrouting ip saddr 10.0.5.0/24 ip daddr != 10.0.5.0/24 masquerade

    `Unsupported`: this kernel has no NAT by nftables.
    """
    network = IPv4Network(subnet)
    try:
        with _nftables() as nft:
            nft.table("add", name=table)
            chain = {"table": table, "name": "postrouting", "hook": "postrouting", "type": "nat", "policy": _ACCEPT}
            nft.chain("add", priority=_SRCNAT, **chain)
            rule = [*_address(_SOURCE_ADDRESS, _EQUAL, network), *_address(_DESTINATION_ADDRESS, _NOT_EQUAL, network)]
            nft.rule("add", table=table, chain="postrouting", expressions=[[*rule, _instruction("masq")]])
    except (_netlink_error(), OSError) as error:
        raise _lack(error) from None


def unsupported() -> Unsupported | None:
    """Why this kernel has no NAT by nftables, or None. For a child: it tries, in a new network namespace of its own."""
    syscalls.unshare(CLONE_NEWNET)
    try:
        masquerade("10.0.0.0/8")
    except Unsupported as lack:
        return lack
    return None


def remove(bridge: str) -> None:
    """Take them away, if they are there."""
    with suppress(_netlink_error(), OSError), _nftables() as nft:
        nft.table("del", name=TABLES + bridge)


def bridges() -> list[str]:
    """The bridges that there are rules of ours for."""
    names: list[str] = []
    with suppress(_netlink_error(), OSError), _nftables() as nft:
        names = [str(table.get_attr("NFTA_TABLE_NAME")) for table in nft.get_tables()]
    return [name.removeprefix(TABLES) for name in names if name.startswith(TABLES)]


def masquerading() -> list[str]:
    """The tables with a rule that masquerades, whoever wrote it; ours go by their bridges."""
    found = set()
    with suppress(_netlink_error(), OSError), _nftables() as nft:
        for rule in nft.get_rules():
            names = [one.get_attr("NFTA_EXPR_NAME") for one in rule.get_attr("NFTA_RULE_EXPRESSIONS") or ()]
            if "masq" in names:
                found.add(str(rule.get_attr("NFTA_RULE_TABLE")).removeprefix(TABLES))
    return sorted(found)


def from_subnet(subnet: IPv4Network) -> list[Any]:
    """Go on only with a packet whose source is in `subnet`."""
    return _address(_SOURCE_ADDRESS, _EQUAL, subnet)


def _address(offset: int, comparison: int, subnet: IPv4Network) -> list[Any]:
    load = _instruction("payload", dreg=1, base=_NETWORK_HEADER, offset=offset, len=4)
    return [load, _mask(subnet.netmask.packed), _compare(comparison, subnet.network_address.packed)]


def interface(key: int, comparison: int, name: str) -> list[Any]:
    """Go on only where the interface's name compares so with `name`."""
    return [_instruction("meta", key=key, dreg=1), _compare(comparison, name.encode().ljust(16, b"\0"))]


def begins_conversation() -> list[Any]:
    """Go on only with a packet that belongs to no connection yet."""
    mask = _mask(_ESTABLISHED_OR_RELATED.to_bytes(4, "little"))
    return [_instruction("ct", key=_CT_STATE, dreg=1), mask, _compare(_EQUAL, bytes(4))]


def _mask(bits: bytes) -> Any:
    return _instruction("bitwise", sreg=1, dreg=1, len=4, mask=_data(bits), xor=_data(bytes(4)))


def _compare(comparison: int, value: bytes) -> Any:
    return _instruction("cmp", sreg=1, op=comparison, data=_data(value))


def _verdict(code: int) -> Any:
    (instruction,) = _expressions().verdict(code)
    return instruction


def _instruction(kind: str, **operands: Any) -> Any:
    return _expressions().genex(kind, operands)


def _data(value: bytes) -> Any:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _expressions() -> Any:
    from pyroute2.nftables import expressions

    return expressions


def _netlink_error() -> Any:
    from pyroute2.netlink.exceptions import NetlinkError

    return NetlinkError


def _nftables() -> Any:
    from pyroute2.nftables.main import NFTables

    return NFTables()
