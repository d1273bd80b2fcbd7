"""Subnets, addresses, names: what is refused, in words, and what is chosen where nothing was asked for."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from labkit.errors import InvalidConfig, LabkitError
from labkit.network import addresses

NET = IPv4Network("10.0.5.0/29")

NO_SUBNETS = {
    "nonsense": "such as '10.0.5.0/24'",
    "10.0.0.300/24": "such as '10.0.5.0/24'",
    "10.0.0.0/33": "such as '10.0.5.0/24'",
    "10.0.5.1/24": "the network itself is written 10.0.5.0/24",
    "10.0.5.0/31": "/30 or shorter",
    "10.0.5.1": "/30 or shorter",
    "10.0.0.0/7": "such as '10.0.5.0/24'|10.0.0.0/7 is far too large",
    "0.0.0.0/0": "far too large",
    "0.0.0.0/8": "no network|unspecified",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link-local",
    "224.0.1.0/24": "multicast",
    "240.0.0.0/8": "reserved",
    "fd00::/64": "IPv4",
    "10.0.5.0/24\0": "such as '10.0.5.0/24'",
    "": "such as '10.0.5.0/24'",
    5: "such as '10.0.5.0/24'",
    b"\x0a\0\0\0": "such as '10.0.5.0/24'",
}


@pytest.mark.parametrize("subnet", NO_SUBNETS, ids=repr)
def test_what_is_no_subnet_is_refused_in_one_sentence(subnet: object) -> None:
    with pytest.raises(InvalidConfig, match=NO_SUBNETS[subnet]) as refused:
        addresses.checked_subnet(subnet)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("subnet", ["10.0.0.0/8", "192.168.7.0/30", "172.16.0.0/12", "100.64.0.0/10", "8.8.8.0/24"])
def test_a_subnet(subnet: str) -> None:
    assert str(addresses.checked_subnet(subnet)) == subnet


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("10.0.6.2", "is not in this network"),
        ("10.0.5.0", "the network itself"),
        ("10.0.5.7", "broadcast"),
        ("10.0.5.1", "the bridge's own"),
        ("10.0.5.3", "another endpoint"),
        ("10.0.5", "is written as"),
        ("10.0.5.2/29", "is written as"),
        ("::1", "is written as"),
        (167773442, "is written as"),
        ("", "is written as"),
    ],
)
def test_an_address_that_an_endpoint_cannot_have(address: object, words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        addresses.checked_address(address, NET, [IPv4Address("10.0.5.3")])


def test_the_lowest_free_address_until_none_is_left() -> None:
    used: list[IPv4Address] = []
    for last in (2, 3, 4, 5, 6):
        used.append(addresses.free_address(NET, used))
        assert str(used[-1]) == f"10.0.5.{last}"
    with pytest.raises(LabkitError, match="every address"):
        addresses.free_address(NET, used)
    used.remove(IPv4Address("10.0.5.4"))
    assert str(addresses.free_address(NET, used)) == "10.0.5.4"


def test_a_subnet_that_is_free() -> None:
    first = addresses.free_subnet([])
    assert not addresses.free_subnet([first]).overlaps(first)
    with pytest.raises(LabkitError, match="in use"):
        addresses.free_subnet([IPv4Network("10.0.0.0/8")])


def test_subnets_that_overlap_are_refused() -> None:
    for other in ("10.0.0.0/8", "10.0.5.0/30", "10.0.5.0/29"):
        with pytest.raises(InvalidConfig, match="overlaps"):
            addresses.refuse_overlap(NET, [IPv4Network("192.168.0.0/16"), IPv4Network(other)])
    addresses.refuse_overlap(NET, [IPv4Network("10.0.5.8/29")])


NO_NAMES = [
    "",
    ".",
    "..",
    "a..b",
    "a/b",
    "../a",
    "a\0b",
    "a b",
    "-a",
    "a-",
    "a\n",
    "ü",
    "x" * 64,
    "x" * 300,
    None,
    7,
    "%d:",
]


@pytest.mark.parametrize("name", NO_NAMES, ids=lambda name: repr(name)[:20])
def test_what_is_no_name_is_refused_in_one_sentence(name: object) -> None:
    with pytest.raises(InvalidConfig, match="the name of a box") as refused:
        addresses.checked_name(name, "a box")
    assert len(str(refused.value)) < 300
    assert str(refused.value).isprintable()


def test_localhost_is_taken() -> None:
    with pytest.raises(InvalidConfig, match="every machine's name"):
        addresses.checked_name("LocalHost", "a box")


@pytest.mark.parametrize("name", ["web", "Web_2", "a.b-c", "7", "x" * 63])
def test_a_name_gives_a_name_for_an_interface(name: str) -> None:
    checked = addresses.checked_name(name, "a box")
    names = {addresses.interface_name(checked, begin="br-"), addresses.interface_name(checked, of="shop")}
    names.add(addresses.interface_name(checked, of="other"))
    assert len(names) == 3
    assert all(len(one.encode()) <= 15 for one in names)


@pytest.mark.parametrize("port", [0, -1, 65536, 1 << 40, "80", 80.0, None, True])
def test_what_is_no_port(port: object) -> None:
    with pytest.raises(InvalidConfig, match="1 to 65535"):
        addresses.checked_port(port, "a port")
    assert addresses.checked_port(0, "a port", any_free=True) == 0
    assert addresses.checked_port(65535, "a port") == 65535


def test_an_address_always_has_the_same_hardware_address() -> None:
    assert addresses.hardware_address(IPv4Address("10.0.5.2")) == "02:4c:0a:00:05:02"
