"""What a new network namespace is given: its loopback interface, and what its users may do as in Docker's.

Ports below 1024 are anybody's to bind (`ip_unprivileged_port_start`), and anybody may ping through a socket of
datagrams (`ping_group_range`): both are dangerous only where a network is shared with others.

Sources: network_namespaces(7), icmp(7); the kernel's Documentation/networking/ip-sysctl.rst.
"""

import os
from contextlib import suppress

from labkit import syscalls

#: What every /etc/hosts begins with: hosts(5).
HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
SETTINGS = "sys/net/ipv4"  # below /proc: of the namespace of whoever opens them
_GROUP_MAX = (1 << 31) - 1  # net/ipv4/ping.c: GID_T_MAX, of a signed number


def settings(gid_map: str) -> dict[str, str]:
    """The parameters with their values, for a namespace whose user namespace has these groups: user_namespaces(7)."""
    mapped = [[int(number) for number in line.split()] for line in gid_map.splitlines()]
    last = next((count - 1 for inside, _, count in mapped if inside == 0), 0)
    return {"ip_unprivileged_port_start": "0", "ping_group_range": f"0 {min(last, _GROUP_MAX)}"}


def begin(proc: int) -> None:
    """Bring up the loopback interface of the calling thread's new namespace, and write its settings.

    `proc` is an open /proc. Settings that may not be written, as where an outer container has /proc/sys read-only, stay
    as they are.
    """
    syscalls.set_interface_up("lo")
    for name, value in _own_settings(proc).items():
        with suppress(OSError):
            fd = os.open(f"{SETTINGS}/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
            try:
                os.write(fd, value.encode())
            finally:
                os.close(fd)


def _own_settings(proc: int) -> dict[str, str]:
    global _own
    if _own is None:
        with open(os.open("self/gid_map", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)) as file:
            _own = settings(file.read())
    return _own


_own: dict[str, str] | None = None
