"""How the course speaks in a notebook: boxes that read well in light and dark, and plain text everywhere else.

Every box has a word and a mark, so that nothing is said by colour alone; colours come from JupyterLab's own theme
variables. The plain form is what a terminal, a stored notebook and a screen reader get.
"""

import html
import re
from typing import Any

from labkit.course.framework.outcomes import NotAttempted, NotChecked, NotYet, Outcome, Passed

_WIDGET = "application/vnd.jupyter.widget-view+json"  # what JupyterLab draws a widget from

# mark, title, colour variable of the theme (with a value for where there is no theme)
_LOOKS = {
    "passed": ("✓", "Passed", "var(--jp-success-color1, #2e7d32)"),
    "not yet": ("→", "Not yet", "var(--jp-warn-color1, #b45309)"),
    "not attempted": ("○", "Not attempted", "var(--jp-info-color1, #0288a7)"),
    "not checked": ("!", "Not checked", "var(--jp-error-color1, #c62828)"),
    "failed": ("!", "That did not work", "var(--jp-error-color1, #c62828)"),
    "lacking": ("!", "Not on this machine", "var(--jp-warn-color1, #b45309)"),
    "predict": ("?", "Predict", "var(--jp-brand-color1, #1976d2)"),
    "observe": ("=", "You predicted", "var(--jp-brand-color1, #1976d2)"),
    "hint": ("·", "Hint", "var(--jp-info-color1, #0288a7)"),
    "solution": ("§", "Solution", "var(--jp-info-color1, #0288a7)"),
}


def shell() -> Any:
    """The IPython shell that runs the cells, or None in plain Python."""
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return None
    return get_ipython()


def in_notebook() -> bool:
    """Whether cells are run by a Jupyter kernel, so that widgets can be shown."""
    return getattr(shell(), "kernel", None) is not None


def cell() -> str:
    """The text of the cell that is being run; empty outside of IPython."""
    running = shell()
    return str(running.user_ns.get("In", [""])[-1]) if running else ""


def display(plain: str, html_text: str = "", widget: Any = None, display_id: str = "", update: bool = False) -> None:
    """Show one output: its plain form, its HTML, and a widget where a notebook can show one.

    The plain form stands beside a widget too: it is what remains in a saved notebook, and it names the calls that do
    the same as the widget's buttons.
    """
    running = shell()
    if running is None:
        print(plain)
        return
    from IPython.display import publish_display_data

    bundle: dict[str, Any] = {"text/plain": plain}
    if html_text:
        bundle["text/html"] = html_text
    if widget is not None:
        bundle[_WIDGET] = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    transient = {"display_id": display_id} if display_id else {}
    publish_display_data(bundle, transient=transient, update=update)  # type: ignore[no-untyped-call]


def spans(text: str) -> str:
    """Text as HTML without paragraphs: escaped, `names` between backquotes as code, line ends kept."""
    safe = re.sub(r"`([^`\n]+)`", r"<code>\1</code>", html.escape(text.strip(), quote=False))
    return safe.replace("\n", "<br>")


def inline(text: str) -> str:
    """Text as HTML; a blank line begins a paragraph."""
    return "".join(f'<div style="margin:3px 0">{spans(part)}</div>' for part in re.split(r"\n\s*\n", text.strip()))


def code(source: str) -> str:
    """A block of code as HTML."""
    return (
        '<pre style="margin:6px 0;padding:6px 10px;overflow-x:auto;background:var(--jp-layout-color2,#f2f2f2);'
        f'color:inherit;font-family:var(--jp-code-font-family,monospace)">{html.escape(source, quote=False)}</pre>'
    )


def box(look: str, heading: str, *parts: str) -> str:
    """One box: a coloured edge, the mark and the word, a heading, and parts that are HTML already."""
    mark, title, colour = _LOOKS[look]
    body = "".join(parts)
    return (
        f'<div role="status" style="border:1px solid var(--jp-border-color2,#bbb);border-left:4px solid {colour};'
        "padding:6px 12px;margin:4px 0;max-width:60em;background:var(--jp-layout-color1,transparent);"
        'color:var(--jp-ui-font-color1,inherit);line-height:1.5">'
        f'<div><span aria-hidden="true" style="color:{colour};font-weight:bold">{mark}</span> '
        f"<b>{title}</b>{' · ' + spans(heading) if heading else ''}</div>{body}</div>"
    )


def labelled(label: str, text: str) -> str:
    """A paragraph that begins with a word of its own, such as Seen or Why."""
    return f'<div style="margin:3px 0"><b>{label}:</b> {spans(text)}</div>' if text else ""


def outcome_html(title: str, outcome: Outcome) -> str:
    """An outcome as a box."""
    match outcome:
        case Passed(seen, why):
            parts = (labelled("Seen", seen), labelled("Why it matters", why))
        case NotYet(seen, why):
            parts = (labelled("Seen", seen), labelled("Why that is not it yet", why))
        case NotAttempted(text) | NotChecked(text):
            parts = (inline(text), "")
    return box(outcome.word, title, *parts)


def outcome_plain(title: str, outcome: Outcome) -> str:
    """An outcome as lines of text."""
    lines = [f"{title}: {outcome.word}"]
    match outcome:
        case Passed(seen, why):
            lines += [f"Seen: {seen}", f"Why it matters: {why}"]
        case NotYet(seen, why):
            lines += [f"Seen: {seen}", f"Why that is not it yet: {why}"]
        case NotAttempted(text) | NotChecked(text):
            lines += [text]
    return "\n".join(lines)
