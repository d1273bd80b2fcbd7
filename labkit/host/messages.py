"""What the zygote is asked, and what it says: records on a socket of packets.

caller ── Hello ──▶ the process that becomes the lab host
caller ◀── MapIds ── only in a user namespace; answered by any byte
caller ◀── Ready ── or NoLabHost

caller ── Request, with the reply socket and further descriptors ──▶ zygote
caller ◀── Began, with a pidfd and the start's own descriptors ──── or Refused, and no more
caller ◀── Ended ────
"""

from labkit.kernel.record import Record

REQUEST_BYTES = 128 * 1024
REQUEST_DESCRIPTORS = 24
REPLY_BYTES = 64 * 1024
REPLY_DESCRIPTORS = 2


class Hello(Record):
    """To a process that is to become a lab host: where Python finds modules, and the caller's limit on descriptors."""

    path: "list[str]"
    nofile: "tuple[int, int]"


class MapIds(Record):
    """It has made its user namespace, and asks for its id maps to be written; what is sent then does not matter."""


class NoLabHost(Record):
    """It could not make its namespaces, and ends."""

    errno: "int | None"
    text: "str | None"
    notes: "list[str]"


class Ready(Record):
    """It serves requests from now on."""

    pid: int
    keeper_pid: int
    group: str  #: the folder of its control group as the caller sees it; empty where it has none
    lack: "tuple[str, str]"  #: why it has none, and what to do


class Request(Record):
    """Have `handler`, a function "module:name", start a child by `spec`; `names` say what the descriptors are."""

    handler: str
    spec: Record
    names: "tuple[str, ...]"


class Began(Record):
    """The child has begun."""

    pid: int


class Refused(Record):
    """Nothing was started, or nothing is left of it: at which step, and why."""

    step: str
    errno: "int | None"
    text: str
    notes: "list[str]"


class Ended(Record):
    """The child has ended; its status is wait(2)'s."""

    status: int
    cpu_usec: int
    peak_memory_kib: int
