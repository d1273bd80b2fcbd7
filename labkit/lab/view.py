"""The live view "what is isolated": the lab host and a process side by side, following what happens.

A thread looks about once a second, and sends something only when something has changed. It ends with the process, or
with `close()`, and rests while no notebook shows the view.
"""

import os
import select
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labkit import host
from labkit.errors import LabkitError
from labkit.lab import isolation, show

INTERVAL_SECONDS = 1.0
_FILES = Path(__file__).parent
_PLAIN = "Live view: what is isolated, the lab host and the process side by side. Run the cell in JupyterLab to see it."


class LiveView:
    """A view of one process. `close()` stops it; the process's end does so by itself."""

    def __init__(self, of: Any, *, title: str = "", host_pid: int | None = None) -> None:
        """Look at `of`: a child, a container (anything with a `pid`), or a PID. `TypeError`: it is none of these."""
        pid = of if isinstance(of, int) else getattr(of, "pid", None)
        if not isinstance(pid, int):
            raise TypeError(f"a view needs a process: a child, a container or a PID, not {of!r}")
        self.pid = pid
        self._title = title or f"What is isolated: process {pid}"
        self._host_pid = host_pid or _host_pid()
        self._watchers: int | None = None  # how many front ends show it; None until one has said so
        self._wake, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._closing = False
        self._lock = threading.Lock()
        self._widget: Any = None
        self._thread: threading.Thread | None = None
        self.state: dict[str, Any] = {}
        self.look()

    def look(self) -> bool:
        """Look once, and pass on what has changed; False once the process has ended."""
        try:
            found = isolation.look(self.pid, self._host_pid)
        except OSError:
            self._set({**self.state, "title": self._title, "status": "ended"})
            return False
        namespaces = [{**asdict(one), "same": one.same} for one in found.namespaces]
        self._set({**asdict(found), "namespaces": namespaces, "title": self._title, "status": "alive"})
        return True

    def _set(self, state: dict[str, Any]) -> None:
        if state == self.state:
            return
        self.state = state
        if self._widget is not None:
            with suppress(Exception):  # the kernel may be shutting down under us; a view must never break a lab
                self._widget.state = state

    def show(self) -> None:
        """Show the view here and begin to follow."""
        if not show.in_notebook():
            with suppress(OSError):
                show.display(isolation.as_text(isolation.look(self.pid, self._host_pid)))
            return
        if self._widget is None:
            self._widget = _widget(self.state)
            self._widget.on_msg(self._on_message)
        show.display(_PLAIN, widget=self._widget)
        self.follow()

    def follow(self) -> None:
        """Begin to follow, in a thread."""
        if self._thread is None and not self._closing and self.state.get("status") == "alive":
            self._thread = threading.Thread(target=self._follow, name=f"labkit-view-{self.pid}", daemon=True)
            self._thread.start()

    @property
    def following(self) -> bool:
        """Whether the thread still runs."""
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """Stop following; what was last seen stays on show, marked as ended. Twice is as good as once."""
        self._closing = True
        self._poke()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            for fd in (self._wake, self._wake_writer):
                if fd >= 0:
                    os.close(fd)
            self._wake = self._wake_writer = -1
        self._set({**self.state, "status": "ended"})

    def _follow(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            self.look()
            return
        try:
            poll.register(pidfd, select.POLLIN)
            while not self._closing:
                ready = [fd for fd, _ in poll.poll(INTERVAL_SECONDS * 1000 if self._watchers != 0 else None)]
                if self._wake in ready:
                    with suppress(BlockingIOError):
                        os.read(self._wake, 4096)
                if pidfd in ready:
                    self._set({**self.state, "status": "ended"})
                    return
                if not self._closing and not self.look():
                    return
        finally:
            os.close(pidfd)

    def _on_message(self, _: Any, content: Any, __: Any) -> None:
        """A front end says how many of it show the view: while none does, nobody needs to look."""
        if isinstance(content, dict) and content.get("kind") in ("shown", "hidden"):
            counted = self._watchers or 0
            self._watchers = max(0, counted + (1 if content["kind"] == "shown" else -1))
            self._poke()

    def _poke(self) -> None:
        with self._lock, suppress(OSError):
            if self._wake_writer >= 0:
                os.write(self._wake_writer, b"x")

    def __del__(self) -> None:
        for fd in (getattr(self, "_wake", -1), getattr(self, "_wake_writer", -1)):
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)

    def __repr__(self) -> str:
        return f"<live view of process {self.pid}: {self.state.get('status')}>"

    def _ipython_display_(self) -> None:
        return None  # it was shown when it was made


def _host_pid() -> int:
    try:
        return host.pid()
    except LabkitError:
        return os.getpid()  # no lab host on this machine: compare with the notebook itself


def _widget(state: dict[str, Any]) -> Any:
    import anywidget
    import traitlets

    class IsolationView(anywidget.AnyWidget):
        """Shows `state`; all of it is drawn in the browser, by view.js."""

        _esm = _FILES / "view.js"
        _css = _FILES / "view.css"
        state = traitlets.Dict().tag(sync=True)

    return IsolationView(state=state)
