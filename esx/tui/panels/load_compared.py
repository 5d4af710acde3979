"""Saved runs side by side."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.widgets import Static

from esx.load.archive import SavedRun
from esx.load.report.compare import compare, comparison_lines
from esx.text import visible
from esx.tui.keymap import Keyed
from esx.tui.panels.scrolled import SCROLL_KEYS, ScrolledText


class LoadCompared(Keyed, ScrolledText):
    """Shows the figures of runs, each with its ratio to that of the first run."""

    BINDINGS: ClassVar[list[BindingType]] = [*SCROLL_KEYS]

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
