"""The live view of a computer's serial console: what it writes as it comes, and a line to type into."""

from typing import Any

from labkit.course.views.live import LiveView
from labkit.errors import LabkitError
from labkit.vm.persistent import Computer

SHOWN_CHARACTERS = 40_000
_TYPED_MOST = 4000  # characters of one line; a terminal takes 4096 bytes (termios(3))
_INTERRUPT = "\x03"  # what Ctrl-C sends


class ConsoleView(LiveView):
    """One computer's console. It ends with the computer, once its last words have been shown."""

    script = "console_view.js"
    style = "console_view.css"
    plain = "Live view: a computer's serial console, with a line to type into. Run the cell in JupyterLab to see it."
    interval_seconds = 0.25

    def __init__(self, computer: Computer, *, title: str = "") -> None:
        self._computer = computer
        self._last_words_shown = False
        player = "this machine's own, by KVM" if computer.kvm else "played by QEMU, in software"
        super().__init__(title or f"The guest's serial console; its processor is {player}")

    def look(self) -> dict[str, Any] | None:
        """The console's text; once more after the computer's end, and then no more."""
        if self._last_words_shown:
            return None
        self._last_words_shown = not self._computer.alive
        text = self._computer.console()
        found: dict[str, Any] = {"text": text[-SHOWN_CHARACTERS:], "left_out": len(text) > SHOWN_CHARACTERS}
        if self._last_words_shown:
            found["ended_note"] = "The computer has ended. This is the last that it wrote."
        return found

    def as_text(self) -> str:
        """What a terminal gets: the console so far."""
        return self._computer.console()

    def received(self, message: dict[str, Any]) -> None:
        """A line was typed, or Ctrl-C."""
        line = message.get("line")
        try:
            if message.get("kind") == "interrupt":
                self._computer.type(_INTERRUPT)
            elif message.get("kind") == "type" and isinstance(line, str):
                self._computer.type(line.splitlines()[0][:_TYPED_MOST] + "\n" if line.strip() else "\n")
        except LabkitError:
            return  # it has ended, which the view shows in a moment
