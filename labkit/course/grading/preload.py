"""Imports into the zygote, before anybody may have mounted something else where modules lie."""

import importlib
import os
import pkgutil
import sys
from contextlib import suppress

from labkit import host
from labkit.kernel.record import Record
from labkit.launch.pending import Started

#: What the standard library imports only when it is needed: codecs above all, "idna" for the name of a host.
_LATER = (
    *(
        f"encodings.{name}"
        for name in ("ascii", "cp437", "idna", "latin_1", "punycode", "utf_16", "utf_32", "utf_8_sig")
    ),
    "stringprep",
    "unicodedata",
    "zoneinfo",
)
# And what our own modules import inside of functions, from other packages. A check whose helper needs another one is
# "not checked" in a room until it is named here or in `_names`: tests/notebooks/test_in_rooms.py.
_FOR_NETWORKS = ("pyroute2", "pyroute2.netlink.exceptions", "pyroute2.nftables.expressions", "pyroute2.nftables.main")


def into_zygote() -> None:
    """Import into the zygote what this process has imported; start the lab host if there is none."""
    names = sorted(_names())
    started = host.current().request(start, PreloadSpec(path=host.absolute_import_path(), names=names), {})
    started.reply.recv(1)  # its end
    started.reply.close()
    os.close(started.pidfd)


def _names() -> set[str]:
    """What helpers may import, now or inside of their functions."""
    names = {name for name, module in sys.modules.items() if getattr(module, "__spec__", None)}
    names |= set(_LATER)
    for package in [
        name for name in names if name.partition(".")[0] == "labkit" and not name.startswith("labkit.course")
    ]:
        for found in pkgutil.iter_modules(getattr(sys.modules[package], "__path__", ())):
            if not found.ispkg:
                names.add(f"{package}.{found.name}")
    if "labkit.network" in names:
        names |= set(_FOR_NETWORKS)
    if "labkit.course.experiments.servers.clients" in names:
        names.add("psycopg2")
    return names


class PreloadSpec(Record):
    """Where Python finds modules, and which are to be imported."""

    path: list[str]
    names: list[str]


def start(spec: PreloadSpec, fds: dict[str, int], networks: object) -> Started:
    """In the zygote: import; then fork a child that ends at once, since a request is for a child."""
    sys.path[:] = spec.path
    for name in spec.names:
        with suppress(ImportError):
            importlib.import_module(name)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return Started(pid, os.pidfd_open(pid), leaves_orphans=False)
