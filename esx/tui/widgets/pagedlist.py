"""A list that loads its rows as it is moved through."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from textual.message import Message

from esx.store.errors import EsxError
from esx.tui.widgets.rowtable import Column, RowTable
from esx.tui.window import PAGE, Window
from esx.tui.work import start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from esx.tui.sources import RowSource

Row = TypeVar("Row")
Key = TypeVar("Key")

_AHEAD = PAGE // 2
"""How near to the end of what is loaded the next page is fetched, in rows."""


class PagedList(RowTable[Row], Generic[Row, Key]):
    """Shows a `RowSource` through a `Window`. Loading happens in a worker and never waits for anyone.

    A jump overtakes whatever is being loaded. While a load runs, keys act on the rows that are there.
    """

    class Failed(Message):
        """The source could not be read."""

        def __init__(self, error: EsxError) -> None:
            super().__init__()
            self.error = error

    class Moved(Message):
        """The rows loaded, or the position in them, changed."""

        def __init__(self, table: PagedList[Any, Any]) -> None:
            super().__init__()
            self.table = table

        @property
        def control(self) -> PagedList[Any, Any]:
            """The list."""
            return self.table

    def __init__(self, columns: Sequence[Column[Row]], *, id: str | None = None, empty: str = "nothing here") -> None:
        super().__init__(columns, id=id, empty=empty)
        self._empty = empty
        self.window: Window[Row, Key] | None = None
        self.busy = False
        """Whether a page is being loaded."""

    def show(self, source: RowSource[Row, Key] | None, *, at: Key | None = None) -> None:
        """Show another source, from its start or with the cursor on the row `at`; None shows nothing."""
        self.problem = ""
        self.window = None
        self.busy = False
        self.workers.cancel_group(self, "load")
        if source is None:
            self.set_rows([], cursor=0, offset=0)
            return
        window = self.window = Window(source)
        if at is None:
            self._load(lambda: self._jump(window.home, cursor=0))
        else:
            self._load(lambda: self._go_to(window, at))

    async def _go_to(self, window: Window[Row, Key], key: Key) -> None:
        self.empty = "loading …"
        if await window.around(key) and window is self.window:
            self.empty = self._empty
            index = window.index_of(key) or 0
            self.set_rows(window.rows, cursor=index, offset=max(index - self.body_height // 2, 0))

    def action_first(self) -> None:
        """Go to the first row of all."""
        window = self.window
        if window is None:
            return
        if window.top:
            super().action_first()
        else:
            self._load(lambda: self._jump(window.home, cursor=0))

    def action_last(self) -> None:
        """Go to the last row of all, or, where that cannot be found at once, to the last that has been read."""
        window = self.window
        if window is None:
            return
        if window.bottom or not window.source.ends_anywhere:
            super().action_last()
        else:
            self._load(lambda: self._jump(window.end, cursor=-1))

    def reload(self) -> None:
        """Read the rows on screen again and stay where we are."""
        window = self.window
        if window is None:
            return
        row = self.row
        if row is None or self.cursor < self.body_height // 2:
            # Near the start, what is new there should come into view.
            self._load(lambda: self._refresh_top(window))
        else:
            self._load(lambda: self._refresh(window, row))

    # -- loading ------------------------------------------------------------------------------------------------

    def _load(self, load: Callable[[], Awaitable[None]]) -> None:
        self.busy = True
        start(self, partial(self._guarded, load), "load")

    async def _guarded(self, load: Callable[[], Awaitable[None]]) -> None:
        try:
            await load()
            self.problem = ""
        except EsxError as error:
            self.problem = str(error)
            if self.window is None or not self.window.loaded:
                self.set_rows([], cursor=0, offset=0)
            self.refresh()
            self.post_message(self.Failed(error))
            self.busy = False
            return
        self.busy = False
        self.post_message(self.Moved(self))
        self._want_more()

    async def _jump(self, jump: Callable[[], Awaitable[bool]], *, cursor: int) -> None:
        self.empty = "loading …"
        window = self.window
        if await jump() and window is not None and window is self.window:
            self.empty = self._empty
            index = cursor if cursor >= 0 else len(window.rows) + cursor
            self.set_rows(window.rows, cursor=index, offset=0 if cursor >= 0 else len(window.rows) + 1)

    async def _refresh_top(self, window: Window[Row, Key]) -> None:
        if await window.home() and window is self.window:
            at = self._place(window, self.row)
            self.empty = self._empty
            stay = self.cursor if at is None else at
            self.set_rows(window.rows, cursor=stay, offset=max(stay - self.body_height + 1, 0))

    async def _refresh(self, window: Window[Row, Key], row: Row) -> None:
        was_at = self.cursor
        if await window.around(window.source.key(row)) and window is self.window:
            line = self.cursor - self.scroll_offset.y
            # The cursor may have moved on while the rows were read.
            at = self._place(window, self.row)
            if at is None:
                at = (self._place(window, row) or 0) + self.cursor - was_at
            self.set_rows(window.rows, cursor=at, offset=max(at - line, 0))

    @staticmethod
    def _place(window: Window[Row, Key], row: Row | None) -> int | None:
        return None if row is None else window.index_of(window.source.key(row))

    async def _grow(self, window: Window[Row, Key], *, up: bool) -> None:
        shift = await window.grow(up=up)
        if shift is not None and window is self.window:
            self.set_rows(
                window.rows, cursor=self.cursor + shift.above, offset=max(self.scroll_offset.y + shift.above, 0)
            )

    def _want_more(self) -> None:
        """Load the next page where the screen or the cursor comes near the end of what is loaded."""
        window = self.window
        if window is None or self.busy or not window.loaded or self.problem:
            return
        top = self.scroll_offset.y
        low = max(top + self.body_height, self.cursor) + _AHEAD
        if not window.bottom and low >= len(window.rows):
            self._load(lambda: self._grow(window, up=False))
        elif not window.top and min(top, self.cursor) < _AHEAD:
            self._load(lambda: self._grow(window, up=True))
        self.empty = f"searching … {window.looked * PAGE:,} looked at" if self.busy and not self.rows else self._empty

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Follow the wheel and the scrollbar."""
        super().watch_scroll_y(old_value, new_value)
        self._want_more()

    def move_to(self, index: int) -> None:
        """Put the cursor on a row, and load on if it comes near the end of what is loaded."""
        super().move_to(index)
        self._want_more()
        self.post_message(self.Moved(self))
