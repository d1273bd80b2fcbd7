"""Lab 10: each likely mistake gets its own message, and other right ways than the course's pass."""

import os
import signal
import socket

import pytest

from labkit import host, procfs
from labkit.course.authoring.trial import attempt, outcome_of
from labkit.course.exercise_spec import posed
from labkit.course.exercises.common import ended
from labkit.course.exercises.common.net_stand_in import Town
from labkit.course.framework.outcomes import NotAttempted, NotYet, Passed
from labkit.process import run_in_child
from tests.requirements import need_command

CONNECT = """
def connect(left, right, left_address, right_address):
    with IPRoute() as ip:
        far = {"ifname": "cable", "net_ns_fd": f"/proc/{right}/ns/net"}
        ip.link("add", ifname="cable", kind="veth", net_ns_fd=f"/proc/{left}/ns/net", peer=far)
    for pid, address in ((left, left_address), (right, right_address)):
        with ip_in(pid) as ip:
            index = ip.link_lookup(ifname="cable")[0]
            ip.addr("add", index=index, address=address, prefixlen=24)
            ip.link("set", index=index, state="up")
"""
REACH_OUT = """
def reach_out(pid, gateway, subnet):
    with ip_in(pid) as ip:
        ip.route("add", dst="default", gateway=gateway)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    masquerade(subnet)
"""
PUBLISH = """
def publish(network, root):
    web = network.endpoint("web", publish={0: 80})
    server = container.start(["httpd", "-f", "-p", "80", "-h", "/www"], root=root, network=web)
    return server, f"http://127.0.0.1:{web.published[0].host_port}/"
"""
OTHER_END = """
def other_end(interface, pids):
    with IPRoute() as ip:
        ours = ip.link("get", index=ip.link_lookup(ifname=interface)[0])[0]
    for pid in pids:
        with ip_in(pid) as ip:
            for theirs in ip.get_links():
                if theirs["index"] == ours.get_attr("IFLA_LINK") and theirs.get_attr("IFLA_LINK") == ours["index"]:
                    return pid
"""


def changed(code: str, old: str, new: str = "") -> str:
    """`code` with one line, or a part of one, exchanged."""
    assert code.count(old) == 1, old
    return code.replace(old, new)


MISTAKES = {
    # connect
    "no pair": (
        "connect",
        "def connect(left, right, left_address, right_address):\n    int()\n",
        "no veth pair anywhere",
    ),
    "both ends on the lab host": (
        "connect",
        """
def connect(left, right, left_address, right_address):
    with IPRoute() as ip:
        ip.link("add", ifname="cable", kind="veth", peer={"ifname": "other"})
""",
        "no box has one",
    ),
    "one end on the lab host": (
        "connect",
        """
def connect(left, right, left_address, right_address):
    with IPRoute() as ip:
        ip.link("add", ifname="stays", kind="veth", peer={"ifname": "cable", "net_ns_fd": f"/proc/{left}/ns/net"})
""",
        "the other one, `stays`, is on the lab host",
    ),
    "two pairs": (
        "connect",
        """
def connect(left, right, left_address, right_address):
    for pid, address in ((left, left_address), (right, right_address)):
        with ip_in(pid) as ip:
            ip.link("add", ifname="cable", kind="veth", peer={"ifname": "other"})
            for name in ("cable", "other"):
                ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")
            ip.addr("add", index=ip.link_lookup(ifname="cable")[0], address=address, prefixlen=24)
""",
        "two different pairs",
    ),
    "no address": (
        "connect",
        changed(CONNECT, '            ip.addr("add", index=index, address=address, prefixlen=24)\n'),
        "has no address; it should have",
    ),
    "addresses exchanged": (
        "connect",
        changed(
            CONNECT, "((left, left_address), (right, right_address))", "((left, right_address), (right, left_address))"
        ),
        "the other way round",
    ),
    "the same address twice": (
        "connect",
        changed(CONNECT, "(right, right_address)", "(right, left_address)"),
        "it should have",
    ),
    "no prefix": ("connect", changed(CONNECT, "prefixlen=24", "prefixlen=32"), "a network in which it is alone"),
    "not switched on": (
        "connect",
        changed(CONNECT, '            ip.link("set", index=index, state="up")\n'),
        "the left box's `cable` and the right box's `cable`",
    ),
    "only one end switched on": (
        "connect",
        changed(CONNECT, 'ip.link("set"', 'pid == left and ip.link("set"'),
        "Down: the right box's `cable`.",
    ),
    "addresses on the lab host": (
        "connect",
        changed(CONNECT, 'ip.addr("add", index=index, address=address, prefixlen=24)', "pass")
        + """
    with IPRoute() as ip:
        ip.addr("add", index=1, address=left_address, prefixlen=24)
""",
        "is at `lo` of the lab host",
    ),
    # reach_out
    "no route": (
        "reach_out",
        changed(REACH_OUT, '        ip.route("add", dst="default", gateway=gateway)\n', "        pass\n"),
        "The box has no way to",
    ),
    "the route on the lab host": (
        "reach_out",
        changed(
            REACH_OUT,
            '    with ip_in(pid) as ip:\n        ip.route("add", dst="default", gateway=gateway)\n',
            "    with IPRoute() as ip:\n        uplink = ip.link_lookup(ifname='uplink')[0]\n"
            "        ip.route('add', dst='default', oif=uplink, family=socket.AF_INET)\n",
        ),
        "but on the lab host",
    ),
    "another gateway": (
        "reach_out",
        changed(REACH_OUT, "gateway=gateway", 'gateway=gateway.rsplit(".", 1)[0] + ".254"'),
        "its way out is",
    ),
    "no forwarding": (
        "reach_out",
        changed(REACH_OUT, 'write_text("1")', 'write_text("0")'),
        "and the lab host drops it",
    ),
    "no NAT": ("reach_out", changed(REACH_OUT, "    masquerade(subnet)\n"), "Nobody out there knows that address"),
    "NAT for another network": (
        "reach_out",
        changed(REACH_OUT, "masquerade(subnet)", 'masquerade("192.168.77.0/24")'),
        "Nobody out there knows that address",
    ),
    # publish
    "nothing returned": ("publish", changed(PUBLISH, "    return server,", "    _ = server,"), "returned `None`"),
    "only the URL returned": ("publish", changed(PUBLISH, "return server, ", "return "), "It returns two things"),
    "no URL": ("publish", changed(PUBLISH, 'f"http://127.0.0.1:{', 'f"127.0.0.1:{'), "is no URL"),
    "the address inside": (
        "publish",
        changed(PUBLISH, 'f"http://127.0.0.1:{web.published[0].host_port}/"', 'f"http://{web.address}/"'),
        "in its own network",
    ),
    "not published": (
        "publish",
        changed(
            changed(PUBLISH, ", publish={0: 80}"), "{web.published[0].host_port}", "{network.subnet.prefixlen + 1}"
        ),
        "No endpoint of the network publishes",
    ),
    "the container's port in the URL": (
        "publish",
        changed(PUBLISH, "{web.published[0].host_port}", "80"),
        "The URL says port 80",
    ),
    "another port inside": ("publish", changed(PUBLISH, '"-p", "80"', '"-p", "8000"'), "listens on port 8000"),
    "listens on its own loopback": (
        "publish",
        changed(PUBLISH, '"-p", "80"', '"-p", "127.0.0.1:80"'),
        "on the loopback of its own namespace",
    ),
    "not plugged in": ("publish", changed(PUBLISH, ", network=web)", ")"), "with a loopback and no more"),
    "another folder": ("publish", changed(PUBLISH, '"/www"', '"/tmp"'), "The server answers, but not with the page"),
    "in the background": ("publish", changed(PUBLISH, '"-f", '), "The container has ended"),
    "ended by with": (
        "publish",
        changed(
            PUBLISH,
            "    return server,",
            "    with server:\n        pass\n    return server,",
        ),
        "The container has ended",
    ),
    # other_end
    "the number of the peer": (
        "other_end",
        """
def other_end(interface, pids):
    with IPRoute() as ip:
        return ip.link("get", index=ip.link_lookup(ifname=interface)[0])[0].get_attr("IFLA_LINK")
""",
        "the *number* of the interface",
    ),
    "one number compared": (
        "other_end",
        changed(OTHER_END, ' and theirs.get_attr("IFLA_LINK") == ours["index"]'),
        "the end of another pair",
    ),
    "nobody": ("other_end", changed(OTHER_END, "return pid", "pass"), "returned None"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gets_its_own_message(mistake: str) -> None:
    exercise, code, words = MISTAKES[mistake]
    outcome = attempt("10", exercise, code)
    assert isinstance(outcome, NotYet), outcome
    assert words in outcome.seen + outcome.why, outcome


BY_IP = """
def ip(*words):
    import subprocess
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
"""
RIGHT = {
    "moved afterwards": (
        "connect",
        """
def connect(left, right, left_address, right_address):
    with IPRoute() as ip:
        ip.link("add", ifname="one", kind="veth", peer={"ifname": "two"})
        for name, pid in (("one", left), ("two", right)):
            ip.link("set", index=ip.link_lookup(ifname=name)[0], net_ns_pid=pid)
    for name, pid, address in (("one", left, left_address), ("two", right, right_address)):
        with ip_in(pid) as ip:
            index = ip.link_lookup(ifname=name)[0]
            ip.link("set", index=index, state="up")
            ip.addr("add", index=index, address=address, prefixlen=16)
""",
    ),
    "over a bridge": (
        "connect",
        """
def connect(left, right, left_address, right_address):
    with IPRoute() as ip:
        ip.link("add", ifname="bridge", kind="bridge")
        bridge = ip.link_lookup(ifname="bridge")[0]
        ip.link("set", index=bridge, state="up")
        for name, pid in (("one", left), ("two", right)):
            ip.link("add", ifname=name, kind="veth", peer={"ifname": "eth0", "net_ns_pid": pid})
            ip.link("set", index=ip.link_lookup(ifname=name)[0], master=bridge, state="up")
    for pid, address in ((left, left_address), (right, right_address)):
        with ip_in(pid) as ip:
            index = ip.link_lookup(ifname="eth0")[0]
            ip.addr("add", index=index, address=address, prefixlen=24)
            ip.link("set", index=index, state="up")
""",
    ),
    "by the ip program": (
        "connect",
        BY_IP
        + """
def connect(left, right, left_address, right_address):
    ip("ip", "link", "add", "cable", "netns", str(left), "type", "veth", "peer", "name", "cable", "netns", str(right))
    for pid, address in ((left, left_address), (right, right_address)):
        enter = ("nsenter", f"--net=/proc/{pid}/ns/net", "ip")
        ip(*enter, "addr", "add", f"{address}/24", "dev", "cable")
        ip(*enter, "link", "set", "cable", "up")
""",
    ),
    "two routes instead of a default": (
        "reach_out",
        changed(
            REACH_OUT,
            '        ip.route("add", dst="default", gateway=gateway)\n',
            '        ip.route("add", dst="0.0.0.0/1", gateway=gateway)\n'
            '        ip.route("add", dst="128.0.0.0/1", gateway=gateway)\n',
        ),
    ),
    "the route and the rule by programs": (
        "reach_out",
        BY_IP
        + """
def reach_out(pid, gateway, subnet):
    ip("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "route", "add", "default", "via", gateway)
    Path("/proc/sys/net/ipv4/conf/all/forwarding").write_text("1")
    ip("nft", "add", "table", "ip", "mine")
    ip("nft", "add", "chain", "ip", "mine", "out", "{ type nat hook postrouting priority srcnat; }")
    ip("nft", "add", "rule", "ip", "mine", "out", "oifname", "uplink", "masquerade")
""",
    ),
    "published later, by localhost": (
        "publish",
        """
def publish(network, root):
    box = network.endpoint("box")
    server = container.start(["httpd", "-f", "-p", "8123", "-h", "/www"], root=root, network=box)
    found = box.publish(8123)
    return server, f"http://localhost:{found.host_port}/index.html"
""",
    ),
    "another server": (
        "publish",
        """
def publish(network, root):
    box = network.endpoint("box", publish={0: 81})
    answer = 'printf "HTTP/1.0 200 OK\\\\r\\\\n\\\\r\\\\n"; cat /www/index.html'
    script = f"while true; do ({answer}) | nc -l -p 81; done"
    server = container.start(["sh", "-c", script], root=root, network=box)
    return server, f"http://127.0.0.1:{box.published[0].host_port}/"
""",
    ),
    "by the ip program, the other end": (
        "other_end",
        BY_IP
        + """
def other_end(interface, pids):
    import re
    shown = re.match(r"(\\d+): [^@]+@if(\\d+)", ip("ip", "link", "show", interface))
    for pid in pids:
        inside = ip("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-o", "link")
        if re.search(rf"^{shown[2]}: [^@\\n]+@if{shown[1]}:", inside, re.MULTILINE):
            return pid
""",
    ),
}


@pytest.mark.parametrize("way", RIGHT)
def test_another_right_way_passes(way: str) -> None:
    if "program" in way:
        need_command("ip")
        need_command("nsenter")
    if "rule by" in way:
        need_command("nft")
    exercise, code = RIGHT[way]
    outcome = attempt("10", exercise, code)
    assert isinstance(outcome, Passed), outcome


@pytest.mark.parametrize("exercise", ["connect", "reach_out", "publish", "other_end"])
def test_the_stub_is_not_attempted_and_the_solution_passes(exercise: str) -> None:
    one = posed("10", exercise)
    assert isinstance(outcome_of(one, one.stub), NotAttempted)
    outcome = outcome_of(one, one.solved)
    assert isinstance(outcome, Passed), outcome


def test_what_a_learner_does_to_links_and_rules_does_not_reach_the_lab_host() -> None:
    def state() -> tuple[list[str], str]:
        with open("/proc/sys/net/ipv4/ip_forward") as file:
            return sorted(name for _, name in socket.if_nameindex()), file.read()

    lab_host = host.pid()
    before = run_in_child(state)
    for mistake in ("both ends on the lab host", "no NAT", "another folder"):
        exercise, code, _ = MISTAKES[mistake]
        attempt("10", exercise, code)
    assert host.pid() == lab_host
    assert run_in_child(state) == before


def test_nothing_but_the_kernel_works_on_when_the_function_has_returned() -> None:
    with Town() as town:
        box = town.box()
        before = ended.running()
        town.build(_leaves_another_behind)
        assert not ended.running() - before
        assert {procfs.stat(place.pid)[2] for place in (box, town.host)} == {"T"}


def _leaves_another_behind() -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.pause()
        os._exit(0)
