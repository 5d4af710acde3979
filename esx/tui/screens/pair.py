"""A screen of two parts: a list, and beside it, or below, what belongs to its row under the cursor."""

from collections.abc import Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.widget import Widget

from esx.tui.lists.rowtable import RowTable
from esx.tui.panels.panel import Panel
from esx.tui.screens.divided import DividedPane, Division, share_of_list
from esx.tui.session.session import ExplorerSession


class PairPane(DividedPane):
    """The id of the list's panel comes from the id of the list; `other` is the other part."""

    FOCUS_KEYS: ClassVar[list[Binding]] = [
        Binding("right,l", "focus_detail", "To the part on the right", show=False),
        Binding("left,h", "focus_list", "To the list", show=False),
    ]
    """Keys for `BINDINGS`."""
    DOWN: ClassVar[tuple[int, int]] = (50, 50)
    """The percent of each part where one is above the other."""
    DEFAULT_CSS = """
    PairPane {
        layout: vertical;
        .body { height: 1fr; layout: horizontal; }
        .body > Panel { width: 3fr; }
        .body > .other { width: 2fr; }
        &.-narrow .body { layout: vertical; }
        &.-narrow .body > Panel { width: 1fr; }
    }
    """

    def __init__(self, session: ExplorerSession, rows: RowTable[Any], other: Panel, *, focus: Widget, id: str) -> None:
        """`focus` is what gets the focus in the other part."""
        super().__init__(session, id=id)
        self.panel = Panel(session, id=f"{rows.id}-panel")
        self.other = other
        self.other.add_class("other")
        self._into = focus
        self._rows = rows

    def compose_body(self, *above: Widget) -> ComposeResult:
        """Lay out the list, with what is above it in its panel, beside the other part."""
        with Container(classes="body"):
            with self.panel:
                yield from (*above, self._rows)
            yield self.other

    def division(self, *, across: bool) -> Division | None:
        """Return the two parts: side by side, or, where it is narrow, one above the other."""
        if across == self.is_narrow:
            return None
        usual = self.DOWN if self.is_narrow else self.across
        return Division(f"{self._rows.id}-{'down' if self.is_narrow else 'across'}", usual, self._parts)

    @property
    def across(self) -> tuple[int, int]:
        """The percent of each part where they are side by side: the list gets what it needs."""
        rows = share_of_list(self._rows, self.size.width, 50, 60) if self._rows.rows_on_screen else 60
        return rows, 100 - rows

    @property
    def _parts(self) -> list[list[Widget]]:
        return [[self.panel], [self.other]]

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
        """Go to the other part."""
        self._into.focus()

    def action_focus_list(self) -> None:
        """Go to the list."""
        self._rows.focus()
