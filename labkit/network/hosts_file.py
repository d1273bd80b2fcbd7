"""How endpoints find each other by name: one /etc/hosts for a network, shared by all of its containers.

The file is bind-mounted into containers, and a bind mount holds on to the very file: writing a new one aside and
renaming it, as one would do for safety, would leave containers with the old one for ever. So it is rewritten in place.
Sources: hosts(5), resolv.conf(5).
"""

import os
from collections.abc import Iterable
from ipaddress import IPv4Address

from labkit import temporary
from labkit.kernel.netns import HOSTS

_RESOLV_CONF = "# No name server: the names of this network are in /etc/hosts.\n"


class Names:
    """The files of one network, in a folder of their own that goes with it."""

    def __init__(self) -> None:
        """Write them. `OSError` (ENOSPC, say): they cannot be, and nothing is left."""
        self._folder = temporary.Folder()
        self.hosts = os.path.join(self._folder.name, "hosts")
        self.resolv_conf = os.path.join(self._folder.name, "resolv.conf")
        try:
            for path, text in ((self.hosts, HOSTS), (self.resolv_conf, _RESOLV_CONF)):
                with open(path, "w") as file:
                    file.write(text)
                os.chmod(path, 0o644)  # whoever the container's program runs as reads them, whatever the umask
        except OSError:
            self._folder.cleanup()
            raise

    @property
    def files(self) -> dict[str, str]:
        """Where each belongs in a container, and where it is."""
        return {"etc/hosts": self.hosts, "etc/resolv.conf": self.resolv_conf}

    def write(self, known: Iterable[tuple[str, IPv4Address]]) -> None:
        """Make `known` the names that are found, beside localhost.

        At no moment does a reader find half a line: what is longer than the new text is blank lines before it is cut.
        """
        text = (HOSTS + "".join(f"{address}\t{name}\n" for name, address in known)).encode()
        fd = os.open(self.hosts, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(fd, text.ljust(os.fstat(fd).st_size, b"\n"), 0)
            os.ftruncate(fd, len(text))
        finally:
            os.close(fd)

    def close(self) -> None:
        """Remove them. Containers that still run keep what they have."""
        self._folder.cleanup()
