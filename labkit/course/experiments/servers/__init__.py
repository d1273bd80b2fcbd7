"""The four servers of the lecture: file, database, web and application server."""

from labkit.course.experiments.servers.servers import Servers, download, fetch, listing, query, start, start_all, upload

__all__ = ["Servers", "download", "fetch", "listing", "query", "start", "start_all", "upload"]
