"""A screen that shows a list, and beside it one of its events in full."""

from typing import Any, ClassVar

from textual.binding import Binding

from esx.tui.lists.rowtable import RowTable
from esx.tui.panels.event import EventPanel
from esx.tui.screens.divided import share_of_event
from esx.tui.screens.pair import PairPane
from esx.tui.session.session import ExplorerSession


class ListAndEventPane(PairPane):
    """The ids of its panels come from the id of the list. `empty` is the warning where there is no event to copy."""

    FOCUS_KEYS: ClassVar[list[Binding]] = [
        Binding("right,l", "focus_detail", "To the event in full", show=False),
        Binding("left,h", "focus_list", "To the list", show=False),
    ]

    def __init__(self, session: ExplorerSession, rows: RowTable[Any], *, id: str, empty: str) -> None:
        self.event_panel = EventPanel(session, id=f"{rows.id}-detail-panel", empty=empty)
        self.detail = self.event_panel.detail
        super().__init__(session, rows, self.event_panel, focus=self.detail, id=id)

    @property
    def across(self) -> tuple[int, int]:
        """The percent of the list, which gets what the event does not need, and of the event."""
        event = share_of_event(self.size.width, 40)
        return 100 - event, event

    def on_mount(self) -> None:
        """Start the clock: the age of the event grows."""
        self.every(1, self.detail.grow_older)
