"""The middle of the screen while there is nothing to browse: why, and what to do."""

from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.widgets import Static

from esx.text import visible
from esx.tui.cells import MUTED


class Notice(Container, can_focus=True):
    """A title, a text that explains it, and the remedy."""

    DEFAULT_CSS = """
    Notice {
        align: center middle;
        height: 1fr;
        #notice-box {
            width: 90%; max-width: 90; height: auto; padding: 1 3;
            border: round $foreground 25%; background: $surface;
        }
        &.-error #notice-box { border: round $error; }
    }
    """

    def compose(self) -> ComposeResult:
        """Lay out the box."""
        yield Static(id="notice-box")

    def say(self, title: str, text: str, remedy: str, error: bool) -> None:
        """Show a notice."""
        self.set_class(error, "-error")
        parts: list[str | tuple[str, str]] = [(title, "bold $text-error" if error else "bold $text-primary")]
        if text:
            parts += ["\n\n", visible(text, limit=2000)]
        if remedy:
            parts += ["\n\n", (remedy, MUTED)]
        self.query_one("#notice-box", Static).update(Content.assemble(*parts))
