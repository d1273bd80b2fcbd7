"""The live view "the network as a picture": bridges, pairs, namespaces, addresses, routes and published ports."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from labkit import host, namespaces, procfs
from labkit.course.views import network_map
from labkit.course.views.live import LiveView
from labkit.errors import LabkitError
from labkit.network import Endpoint, Network
from labkit.process import Child


class NetworkView(LiveView):
    """A view of every network namespace on the lab host. It ends with the lab host, or with `close()`."""

    script = "network_view.js"
    style = "network_view.css"
    plain = "Live view: the network as a picture. Run the cell in JupyterLab to see it."

    def __init__(self, networks: Sequence[Network] = (), names: Mapping[str, Any] | None = None, *, title: str = ""):
        """Endpoints of `networks` go by their names, with their published ports; `names` says what others are called:
        a name and a child, a container (anything with a `pid`), a PID, or an endpoint each. `TypeError`: it is none."""
        self._networks = list(networks)
        self._names = dict(names or {})
        for name, thing in self._names.items():
            if not isinstance(thing, int | Endpoint) and not hasattr(thing, "pid"):
                raise TypeError(f"{name!r} must be a child, a container, a PID or an endpoint, not {thing!r}")
        self._lab_host = host.current()
        self._child: Child | None = None
        super().__init__(title or "The network", self._lab_host.pid)

    def look(self) -> dict[str, Any] | None:
        """One look at the lab host's network namespaces, with the names they go by here."""
        if not self._lab_host.alive:
            return None
        try:
            if self._child is None or not self._child.alive:
                self._child = Child()
            found = self._child.call(network_map.look, self._lab_host.pid)
        except LabkitError:
            return None if not self._lab_host.alive else self.state or {"namespaces": []}
        names, published = self._known()
        for space in found["namespaces"]:
            space["name"] = names.get(space["id"]) or _by_process(space["processes"])
            space["processes"] = len(space["processes"])
        found["namespaces"][0]["name"] = "lab host"
        present = {space["id"] for space in found["namespaces"]}
        return {
            **found,
            "published": [one for one in published if one["id"] in present],
            "troubles": _troubles(found["namespaces"]),
        }

    def close(self) -> None:
        """Stop following, and end the child that looks."""
        super().close()
        if self._child is not None:
            self._child.kill()
            self._child = None

    def as_text(self) -> str:
        """One look as lines of text."""
        lines = []
        for space in self.state.get("namespaces", ()):
            lines.append(f"{space['name']}  net:[{space['id']}]")
            lines += [f"    {as_line(link, self.state['namespaces'])}" for link in space["links"]]
            lines += [f"    route: {route}" for route in space["routes"]]
        lines += [f"published: {one['outside']} -> {one['port']} of {one['name']}" for one in self.state["published"]]
        return "\n".join([*lines, *self.state["troubles"]])

    def _known(self) -> tuple[dict[int, str], list[dict[str, Any]]]:
        """The names of namespaces by their inodes, and what is published."""
        names: dict[int, str] = {}
        published = []
        for network in self._networks:
            for endpoint in list(network.endpoints.values()):
                with suppress(OSError, LabkitError):
                    inode = endpoint.inode
                    names[inode] = endpoint.name
                    published += [
                        {
                            "outside": f"{one.address}:{one.host_port}",
                            "port": one.port,
                            "id": inode,
                            "name": endpoint.name,
                        }
                        for one in endpoint.published
                    ]
        for name, thing in self._names.items():
            with suppress(OSError, LabkitError):
                if isinstance(thing, Endpoint):
                    names[thing.inode] = name
                else:
                    names[namespaces.inode(thing if isinstance(thing, int) else thing.pid, "net")] = name
        return names, published


def as_line(link: dict[str, Any], spaces: list[dict[str, Any]]) -> str:
    """A link as a line of text: name, state, addresses, and where it leads."""
    words = [link["name"], link["kind"], "up" if link["up"] else "DOWN", *link["addresses"]]
    if link["master"]:
        words.append(f"in {link['master']}")
    if link["peer"]:
        names = {space["id"]: space["name"] for space in spaces}
        words.append(f"to {link['peer']['name']} of {names[link['peer']['id']]}")
    return " ".join(words)


def _by_process(pids: list[int]) -> str:
    """What to call a namespace that nobody has named: after its first process."""
    for pid in pids:
        with suppress(OSError):
            command = procfs.cmdline(pid)
            named = command[0].rsplit("/", 1)[-1] if command and not command[0].endswith("python") else ""
            return f"process {pid}" + (f" ({named[:16]})" if named and "python" not in named else "")
    return "nobody in it"


def _troubles(spaces: list[dict[str, Any]]) -> list[str]:
    """What a glance should not miss, as sentences; the interfaces concerned get a mark."""
    names = {space["id"]: space["name"] for space in spaces}
    found = []
    twice = network_map.duplicates(spaces)
    for address, where in twice.items():
        holders = " and ".join(sorted(f"{link} of {names[space]}" for space, link in where))
        found.append(f"{address} is there more than once: {holders}.")
    for space in spaces:
        for link in space["links"]:
            link["duplicates"] = [one for one in link["addresses"] if one.split("/")[0] in twice]
            if link["addresses"] and not link["up"] and link["kind"] != "loopback":
                found.append(f"{link['name']} of {space['name']} has an address and is down.")
    return found
