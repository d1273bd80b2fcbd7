"""The four servers of the lecture: file, database, web and application server."""

from labkit.course.experiments.servers.kinds import KINDS, SITE, Setting
from labkit.course.experiments.servers.server import Server
from labkit.course.experiments.servers.servers import (
    Servers,
    download,
    fetch,
    listing,
    query,
    start,
    start_all,
    upload,
)
from labkit.course.experiments.servers.trees import NAMES, build, missing
from labkit.course.experiments.servers.trees import find as tree

__all__ = [
    "KINDS",
    "NAMES",
    "SITE",
    "Server",
    "Servers",
    "Setting",
    "build",
    "download",
    "fetch",
    "listing",
    "missing",
    "query",
    "start",
    "start_all",
    "tree",
    "upload",
]
