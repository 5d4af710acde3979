"""Saved runs side by side."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from esx.load.archive import SavedRun
from esx.load.report.compare import compare, comparison_lines
from esx.text import visible
from esx.tui.keymap import Keyed


class LoadCompared(Keyed, VerticalScroll):
    """Shows the figures of runs, each with its ratio to that of the first run."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "scroll_by(1)", "Down", show=False),
        Binding("up,k", "scroll_by(-1)", "Up", show=False),
    ]
    DEFAULT_CSS = """
    LoadCompared {
        height: 1fr; border: round $foreground 25%; border-title-color: $text-muted;
        border-subtitle-color: $text-muted;
        background: $surface; padding: 0 1;
        &:focus { border: round $primary; border-title-color: $text-primary; border-title-style: bold; }
    }
    """

    def compose(self) -> ComposeResult:
        """Lay out the text."""
        self.border_title = "runs compared"
        self.border_subtitle = "R goes back to the runs"
        yield Static()

    def show(self, runs: Sequence[SavedRun]) -> None:
        """Show runs, the first of them as what the others are compared with. Raises InvalidOptions."""
        lines = [visible(line, limit=500) for line in comparison_lines(compare(runs))]
        self.query_one(Static).update(Content("\n".join(lines)))
        self.scroll_home(animate=False)

    def action_scroll_by(self, by: int) -> None:
        """Scroll by lines."""
        self.scroll_relative(y=by, animate=False)
