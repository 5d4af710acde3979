"""A screen that shows a list, and beside it one of its events in full."""

from collections.abc import Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.widget import Widget

from esx.tui.lists.rowtable import RowTable
from esx.tui.panels.event import EventPanel
from esx.tui.panels.panel import Panel
from esx.tui.screens.divided import DividedPane, Division
from esx.tui.session.session import ExplorerSession


class ListAndEventPane(DividedPane):
    """The ids of its panels come from the id of the list. `empty` is the warning where there is no event to copy."""

    FOCUS_KEYS: ClassVar[list[Binding]] = [
        Binding("right,l", "focus_detail", "To the event in full", show=False),
        Binding("left,h", "focus_list", "To the list", show=False),
    ]
    """Keys for `BINDINGS`."""
    DOWN: ClassVar[tuple[int, int]] = (50, 50)
    """The percent of list and event where one is above the other."""
    DEFAULT_CSS = """
    ListAndEventPane {
        layout: vertical;
        .body { height: 1fr; layout: horizontal; }
        .body > Panel { width: 3fr; }
        .body > EventPanel { width: 2fr; }
        &.-narrow .body { layout: vertical; }
        &.-narrow .body > Panel { width: 1fr; }
    }
    """

    def __init__(self, session: ExplorerSession, rows: RowTable[Any], *, id: str, empty: str) -> None:
        super().__init__(session, id=id)
        self.panel = Panel(session, id=f"{rows.id}-panel")
        self.event_panel = EventPanel(session, id=f"{rows.id}-detail-panel", empty=empty)
        self.detail = self.event_panel.detail
        self._rows = rows

    def compose_body(self, *above: Widget) -> ComposeResult:
        """Lay out the list, with what is above it in its panel, beside the event."""
        with Container(classes="body"):
            with self.panel:
                yield from (*above, self._rows)
            yield self.event_panel

    def division(self, *, across: bool) -> Division | None:
        """Return the list and the event: side by side, or, where it is narrow, one above the other."""
        if across == self.is_narrow:
            return None
        usual = self.DOWN if self.is_narrow else (60, 40)
        return Division(f"{self._rows.id}-{'down' if self.is_narrow else 'across'}", usual, self._parts)

    @property
    def _parts(self) -> list[list[Widget]]:
        return [[self.panel], [self.event_panel]]

    def place(self, across: Sequence[int] | None, down: Sequence[int] | None) -> None:
        """Set the widths or heights of the two parts."""
        for name, shares in (("width", across), ("height", down)):
            for at, (part,) in enumerate(self._parts):
                if shares is not None:
                    setattr(part.styles, name, f"{shares[at]}fr")
                elif part.styles.has_rule(name):
                    part.styles.clear_rule(name)
                    part.refresh(layout=True)

    def action_focus_detail(self) -> None:
        """Go to the event in full."""
        self.detail.focus()

    def action_focus_list(self) -> None:
        """Go to the list."""
        self._rows.focus()
