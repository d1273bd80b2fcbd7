"""Live views: what a notebook shows of the machine, following by itself what happens.

A view is a subclass with a `look()`, which reads the machine and returns plain data, and a `script`, which draws that
data in the browser. A thread looks about once a second and sends something only where something has changed. It ends
with the process that is looked at, if there is one, or with `close()`, and rests while no notebook shows the view.

    thread  --look()-->  state (a dict)  --Jupyter-->  draw(state, before) in the browser  -->  the page

The scripts share live.js, which stands before each of them: see there what a script must have.
"""

import inspect
import os
import select
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self

from labkit import syscalls
from labkit.course.framework import rendering as show

INTERVAL_SECONDS = 1.0
_FILES = Path(__file__).parent


class LiveView:
    """What every view has. `state["status"]` is "alive" or "ended"; `state["title"]` its title."""

    script: ClassVar[str]  #: the file beside the class's own that draws `state`
    library: ClassVar[str] = ""  #: a file of functions that it shares with other scripts
    style: ClassVar[str] = ""  #: a file of style sheets on top of live.css
    plain: ClassVar[str]  #: the sentence that remains in a saved notebook
    interval_seconds: ClassVar[float] = INTERVAL_SECONDS

    def __init__(self, title: str, pid: int | None = None) -> None:
        """`pid`: the process with whose end the view ends. A subclass sets what `look()` needs before it calls this."""
        self.pid = pid
        self._title = title
        self._watchers: int | None = None  # how many front ends show it; None until one has said so
        self._wake, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._closing = False
        self._lock = threading.Lock()
        self._widget: Any = None
        self._thread: threading.Thread | None = None
        self.state: dict[str, Any] = {}
        self.refresh()

    def look(self) -> dict[str, Any] | None:
        """Look once; None, or an OSError: what is looked at is gone, and what was seen last stays on show.

        The answer must be such that JSON can carry it, and equal to the last one where nothing has changed.
        """
        raise NotImplementedError

    def as_text(self) -> str:
        """What a terminal gets to see."""
        return self.plain

    def refresh(self) -> bool:
        """Look once, and pass on what has changed; False once what is looked at is gone."""
        try:
            found = self.look()
        except OSError:
            found = None
        if found is None:
            self._set({**self.state, "title": self._title, "status": "ended"})
            return False
        self._set({**found, "title": self._title, "status": "alive"})
        return True

    def _set(self, state: dict[str, Any]) -> None:
        if state == self.state:
            return
        self.state = state
        if self._widget is not None:
            with suppress(Exception):  # the kernel may be shutting down under us; a view must never break a lab
                self._widget.state = state

    def show(self) -> None:
        """Show the view here and begin to follow; in a terminal, print one look."""
        if not show.in_notebook():
            show.display(self.as_text())
            return
        if self._widget is None:
            self._widget = self._make_widget()
            self._widget.on_msg(self._on_message)
        show.display(self.plain, widget=self._widget)
        self.follow()

    def follow(self) -> None:
        """Begin to follow, in a thread."""
        if self._thread is None and not self._closing and self.state.get("status") == "alive":
            self._thread = threading.Thread(target=self._follow, name=f"labkit-{type(self).__name__}", daemon=True)
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
        pidfd = -1
        if self.pid is not None:
            try:
                pidfd = syscalls.pidfd_open(self.pid)
            except OSError:
                self.refresh()
                return
            poll.register(pidfd, select.POLLIN)
        try:
            while not self._closing:
                ready = [fd for fd, _ in poll.poll(self.interval_seconds * 1000 if self._watchers != 0 else None)]
                if self._wake in ready:
                    with suppress(BlockingIOError):
                        os.read(self._wake, 4096)
                if pidfd in ready:
                    self._set({**self.state, "status": "ended"})
                    return
                if not self._closing and not self.refresh():
                    return
        finally:
            if pidfd >= 0:
                os.close(pidfd)

    def _on_message(self, _: Any, content: Any, __: Any) -> None:
        """A front end shows the view or no longer does, or somebody asks there for another look.

        While none shows it, nobody needs to look.
        """
        kind = content.get("kind") if isinstance(content, dict) else None
        if kind in ("shown", "hidden"):
            self._watchers = max(0, (self._watchers or 0) + (1 if kind == "shown" else -1))
        if kind not in ("shown", "hidden", "look"):
            self.received(content if isinstance(content, dict) else {})
        self._poke()

    def received(self, message: dict[str, Any]) -> None:
        """The view's own script has sent something: what somebody typed or clicked there. By default, nothing."""

    def _poke(self) -> None:
        with self._lock, suppress(OSError):
            if self._wake_writer >= 0:
                os.write(self._wake_writer, b"x")

    def _make_widget(self) -> Any:
        import anywidget
        import traitlets

        shared = "".join((_FILES / name).read_text("utf-8") for name in ("live.js", self.library) if name)
        script = shared + Path(inspect.getfile(type(self))).with_name(self.script).read_text("utf-8")
        styles = "".join((_FILES / name).read_text("utf-8") for name in ("live.css", self.style) if name)

        class View(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
            """Shows `state`; all of it is drawn in the browser."""

            _esm = script
            _css = styles
            state = traitlets.Dict().tag(sync=True)

        # A page has one style sheet for each class of widgets, by its name: that of views of another kind stays.
        View.__name__ = type(self).__name__
        return View(state=self.state)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        for fd in (getattr(self, "_wake", -1), getattr(self, "_wake_writer", -1)):
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)

    def __repr__(self) -> str:
        of = f" of process {self.pid}" if self.pid is not None else ""
        return f"<live view{of}: {self.state.get('status')}>"

    def _ipython_display_(self) -> None:
        return None  # it was shown when it was made
