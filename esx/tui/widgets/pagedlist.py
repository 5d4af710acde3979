"""A list that loads its rows as it is moved through."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from textual.message import Message

from esx.store.errors import EsxError
from esx.tui.widgets.rowtable import Column, RowTable
from esx.tui.window import PAGE, Window
from esx.tui.work import cancel, start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from esx.tui.sources import RowSource

Row = TypeVar("Row")
Key = TypeVar("Key")

_AHEAD = PAGE // 2
"""How near to the end of what is loaded the next page is fetched, in rows."""
_FAR = 2 * PAGE
"""Beyond so many rows from what is loaded, reading on would be slower than jumping."""
_PATIENCE = 0.25
"""Seconds after which the rows of where one was are no longer waited for, when one has scrolled on meanwhile."""


class PagedList(RowTable[Row], Generic[Row, Key]):
    """Shows a `RowSource` through a `Window`. Loading happens in a worker and never waits for anyone.

    The scrollbar spans the whole list, as far as the source can measure it; scrolling to where nothing is loaded loads
    it. A jump overtakes whatever is being loaded. While a load runs, keys act on the rows that are there.
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
        self.nothing = empty
        """What is said where there are no rows."""
        self.window: Window[Row, Key] | None = None
        self.busy = False
        """Whether a page is being loaded."""
        self._measured = False
        self._aim: int | None = None
        """The row that is being jumped to."""
        self.stopped = False
        """Whether loading has been stopped by hand."""
        self._aimed_at = 0.0

    def show(self, source: RowSource[Row, Key] | None, *, at: Key | None = None) -> None:
        """Show another source, from its start or with the cursor on the row `at`; None shows nothing."""
        self.problem = ""
        self.window = None
        self.busy = False
        self._measured = False
        self._aim = None
        self.stopped = False
        cancel(self, "load")
        if source is None:
            self.set_rows([], cursor=0, offset=0)
            return
        window = self.window = Window(source)
        if at is None:
            self._load(lambda: self._jump(window.home, at_end=False))
        else:
            self._load(lambda: self._go_to(window, at))

    def go_to(self, key: Key) -> None:
        """Put the cursor on the row with `key`, or on the one after where it would be, wherever that is."""
        window = self.window
        if window is None:
            return
        place = window.place_of(key)
        if place is not None:
            self.move_to(place)
        else:
            self._load(lambda: self._go_to(window, key))

    def action_first(self) -> None:
        """Go to the first row of all."""
        window = self.window
        if window is None:
            return
        if window.top:
            super().action_first()
        else:
            self._load(lambda: self._jump(window.home, at_end=False))

    def action_last(self) -> None:
        """Go to the last row of all, or, where that cannot be found at once, to the last that has been read."""
        window = self.window
        if window is None:
            return
        if window.bottom:
            super().action_last()
        elif not window.source.ends_anywhere:
            super().action_last()
            self.notify("The end of this list is known only by reading up to it: this is the last row read so far.")
        else:
            self._load(lambda: self._jump(window.end, at_end=True))

    def action_move(self, by: int) -> None:
        """Move the cursor by rows, from where it will be if a jump is under way."""
        if self._aim is None:
            super().action_move(by)
        else:
            self._seek(self._aim + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by screens, from where it will be if a jump is under way."""
        if self._aim is None:
            super().action_page(by)
        else:
            self._seek(self._aim + by * max(self.body_height - 1, 1))

    def reload(self) -> None:
        """Read the rows on screen again and stay where we are; after `stop`, go on from where it was."""
        window = self.window
        if window is None:
            return
        if self.stopped and window.loaded:
            self.stopped = False
            self._want_more()
            return
        self._measured = False
        row = self.row
        if row is None or self.cursor < self.body_height // 2:
            # Near the start, what is new there should come into view.
            self._load(lambda: self._refresh_top(window))
        else:
            self._load(lambda: self._refresh(window, row))

    def stop(self) -> bool:
        """Stop the loading that is going on, in PostgreSQL too; return whether any was."""
        if not self.busy:
            return False
        cancel(self, "load")
        self.busy, self._aim, self.stopped = False, None, True
        self.empty = self.nothing
        self.refresh()
        self.post_message(self.Moved(self))
        return True

    # -- loading ------------------------------------------------------------------------------------------------

    def _load(self, load: Callable[[], Awaitable[None]], *, aim: int | None = None) -> None:
        self.busy = True
        self.stopped = False
        self._aim = aim
        self._aimed_at = monotonic()
        # What is being loaded is cancelled, in PostgreSQL too.
        start(self, partial(self._guarded, load), "load")

    async def _guarded(self, load: Callable[[], Awaitable[None]]) -> None:
        try:
            await load()
            self.problem = ""
            await self._measure()
        except EsxError as error:
            self.problem = str(error)
            if self.window is None or not self.window.loaded:
                self.set_rows([], cursor=0, offset=0)
            self.refresh()
            self.post_message(self.Failed(error))
            self.busy = False
            self._aim = None
            return
        self.busy = False
        self._aim = None
        self.post_message(self.Moved(self))
        self._want_more()

    async def _measure(self) -> None:
        """Find out how long the list is, once its first rows are on screen."""
        window = self.window
        if window is None or self._measured or not window.loaded:
            return
        self._measured = True
        await window.measure()
        self._take(window, cursor=self.cursor, offset=self.scroll_offset.y)

    def _take(self, window: Window[Row, Key], *, cursor: int, offset: int) -> None:
        """Show what the window holds now."""
        if window is self.window:
            self.empty = self.nothing
            self.set_rows(window.rows, cursor=cursor, offset=max(offset, 0), first=window.first, length=window.length)

    async def _jump(self, jump: Callable[[], Awaitable[bool]], *, at_end: bool) -> None:
        self.empty = "loading …"
        window = self.window
        if await jump() and window is not None:
            end = window.first + len(window.rows)
            self._take(window, cursor=end - 1 if at_end else 0, offset=end if at_end else 0)

    async def _go_to(self, window: Window[Row, Key], key: Key) -> None:
        self.empty = "loading …"
        if await window.around(key, self.cursor):
            # The row with the key, or the first of the page that was read from there on.
            place = window.joint if (found := window.place_of(key)) is None else found
            self._take(window, cursor=place, offset=place - self.body_height // 3)

    def _seek(self, place: int) -> None:
        """Jump to a row by its number."""
        window = self.window
        if window is not None:
            place = max(0, min(place, window.length - 1))
            self.scroll_to(y=place)
            self._load(lambda: self._seek_to(window, place), aim=place)

    async def _seek_to(self, window: Window[Row, Key], place: int) -> None:
        if await window.seek(place):
            # The view may have been moved on while the rows were read.
            offset = self.scroll_offset.y
            self._take(window, cursor=max(place, offset), offset=offset)

    async def _refresh_top(self, window: Window[Row, Key]) -> None:
        if await window.home():
            # Also where the rows are the same: they have become older.
            self.refresh()
            at = self._place(window, self.row)
            stay = self.cursor if at is None else at
            self._take(window, cursor=stay, offset=stay - self.body_height + 1)

    async def _refresh(self, window: Window[Row, Key], row: Row) -> None:
        was_at = self.cursor
        if await window.around(window.source.key(row), was_at):
            self.refresh()
            line = self.cursor - self.scroll_offset.y
            # The cursor may have moved on while the rows were read.
            at = self._place(window, self.row)
            if at is None:
                at = (self._place(window, row) or window.first) + self.cursor - was_at
            self._take(window, cursor=at, offset=at - line)

    @staticmethod
    def _place(window: Window[Row, Key], row: Row | None) -> int | None:
        return None if row is None else window.place_of(window.source.key(row))

    async def _grow(self, window: Window[Row, Key], *, up: bool) -> None:
        shift = await window.grow(up=up)
        if shift is not None:
            self._take(window, cursor=self.cursor + shift, offset=self.scroll_offset.y + shift)

    def _want_more(self) -> None:
        """Load what the screen shows, or comes near to, and is not there."""
        window = self.window
        if window is None or not window.loaded or self.problem or self.stopped:
            return
        top = self.scroll_offset.y
        end = top + self.body_height
        if window.scale is not None and (top > self.last + _FAR or end < self.first - _FAR):
            # One jump at a time, or those of a drag would cancel each other and nothing ever be seen.
            if self._aim is None or (self._aim != top and monotonic() - self._aimed_at > _PATIENCE):
                self._load(lambda: self._seek_to(window, top), aim=top)
        elif not self.busy:
            if not window.bottom and end + _AHEAD > self.last:
                self._load(lambda: self._grow(window, up=False))
            elif not window.top and top - _AHEAD < self.first:
                self._load(lambda: self._grow(window, up=True))
            self.empty = f"searching … looked at {window.looked:,}" if self.busy and not self.rows else self.nothing

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Follow the wheel and the scrollbar."""
        super().watch_scroll_y(old_value, new_value)
        self._want_more()

    def move_to(self, index: int) -> None:
        """Put the cursor on a row, and load on if it comes near the end of what is loaded."""
        super().move_to(index)
        self._want_more()
        self.post_message(self.Moved(self))
