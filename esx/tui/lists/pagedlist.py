"""A list that loads its rows as it is scrolled."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Generic

from textual.message import Message

from esx.errors import EsxError
from esx.tui.lists.column import ListColumn, Row
from esx.tui.lists.row_numbers import Key
from esx.tui.lists.rowtable import RowTable
from esx.tui.lists.sources import RowSource
from esx.tui.lists.window import PAGE, Window
from esx.tui.tasks import cancel, start

_AHEAD = PAGE // 2
"""The next page is read this many rows before the end of the loaded ones."""
_FAR = 2 * PAGE
"""At more than this many rows from the loaded ones, a jump is faster than reading on."""
_FOLLOW = 1.0
"""Seconds between readings of a list that follows, at least."""
_LONGEST_REST = 15.0
"""Seconds between readings of a list that follows, at most."""
_STALE = 3.0
_PATIENCE = 0.25
"""Seconds after which a jump is given up, if the list has been scrolled on since."""


class PagedList(RowTable[Row], Generic[Row, Key]):
    """Shows a `RowSource` through a `Window`. A worker loads; meanwhile keys act on the rows that are there.

    The scrollbar spans the whole list, as far as the source can measure it; scrolling to rows that are not loaded loads
    them. A jump cancels an earlier load.
    """

    @dataclass
    class Failed(Message):
        """The source could not be read."""

        error: EsxError

    class Moved(Message):
        """The loaded rows, or the position in them, have changed."""

    def __init__(self, columns: Sequence[ListColumn[Row]], *, id: str, empty: str) -> None:
        super().__init__(columns, id=id, empty=empty)
        self.position: Callable[[], int] = lambda: 0
        """Returns up to which global_seq events have come; `as_of` is what it was when the rows were read."""
        self.as_of = 0
        self._read_at = 0.0
        self.nothing = empty
        """What `empty` says when nothing is being loaded."""
        self._forget()

    def _forget(self) -> None:
        self.window: Window[Row, Key] | None = None
        self.busy = False
        """Whether a page is being loaded."""
        self.stopped = False
        """Whether the user has stopped loading."""
        self._measured = False
        self._aim: int | None = None
        """The row that is being jumped to."""
        self._aimed_at = 0.0
        self._follow_at = 0.0

    @property
    def at_top(self) -> bool:
        """Whether the first row of all is on screen."""
        return self.window is not None and self.window.top and self.scroll_offset.y == 0

    @property
    def at_bottom(self) -> bool:
        """Whether the last row of all is on screen."""
        window = self.window
        return window is not None and window.bottom and self.scroll_offset.y + self.body_height > self.last

    def show(self, source: RowSource[Row, Key] | None, *, at: Key | None = None) -> None:
        """Show another source, from its start or with the cursor on the row `at`; None shows nothing."""
        self.problem = ""
        self._forget()
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
        """Put the cursor on the row with `key`, or on the first one after it."""
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
        if window is not None and not window.top:
            self._load(lambda: self._jump(window.home, at_end=False))
        else:
            super().action_first()

    def action_last(self) -> None:
        """Go to the last row of all, or, where that is not known, to the last that has been read."""
        window = self.window
        if window is not None and not window.bottom and window.source.ends_anywhere:
            self._load(lambda: self._jump(window.end, at_end=True))
            return
        super().action_last()
        if window is not None and not window.bottom:
            self.notify("The end of this list is known only by reading up to it: this is the last row read so far.")

    def action_move(self, by: int) -> None:
        """Move the cursor by rows, from where a running jump leads."""
        if self._aim is None:
            super().action_move(by)
        else:
            self._seek(self._aim + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by screens, from where a running jump leads."""
        if self._aim is None:
            super().action_page(by)
        else:
            self._seek(self._aim + by * max(self.body_height - 1, 1))

    def reload(self) -> None:
        """Read the rows on screen again and stay there; after `stop`, go on loading."""
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
            # Near the start, new rows should come into view.
            self._load(lambda: self._refresh_top(window))
        else:
            self._load(lambda: self._refresh(window, row))

    def follow(self) -> None:
        """Read the rows on screen again, and light those that have changed for a second.

        It costs one percent of the time at most: after a slow reading the next one waits, though for 15 s at most.
        """
        window = self.window
        idle = not (self.busy or self.problem or self.stopped)
        if window is not None and window.loaded and idle and monotonic() >= self._follow_at:
            self._load(lambda: self._follow(window))

    @property
    def stale(self) -> bool:
        """Whether it was read some seconds ago, and rests before it follows again, as reading it took long."""
        now = monotonic()
        return now < self._follow_at and now - self._read_at > _STALE

    def _note_read(self, as_of: int) -> None:
        self.as_of, self._read_at = as_of, monotonic()

    async def _follow(self, window: Window[Row, Key]) -> None:
        began = monotonic()
        row = self.row
        before = {window.source.key(each): each for each in window.rows}
        # On the first row of all, the cursor stays there; elsewhere it stays on its row.
        first = self.at_top and self.cursor == 0
        if self.at_top or row is None:
            await self._refresh_top(window, first=first)
        else:
            await self._refresh(window, row)
        self._follow_at = monotonic() + max(_FOLLOW, min(100 * (monotonic() - began), _LONGEST_REST))
        shown = self.rows_on_screen
        self.light([each for each in shown if before.get(window.source.key(each)) != each])

    def stop(self) -> bool:
        """Stop loading, in PostgreSQL too; return whether anything was being loaded."""
        if not self.busy:
            return False
        cancel(self, "load")
        self.busy, self._aim, self.stopped = False, None, True
        self.empty = self.nothing
        self.post_message(self.Moved())
        return True

    def _load(self, load: Callable[[], Awaitable[None]], *, aim: int | None = None) -> None:
        self.busy = True
        self.stopped = False
        self._aim = aim
        self._aimed_at = monotonic()
        # This cancels an earlier load, in PostgreSQL too.
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
            self.post_message(self.Failed(error))
        self.busy = False
        self._aim = None
        if not self.problem:
            self.post_message(self.Moved())
            self._want_more()

    async def _measure(self) -> None:
        """Measure the list, once its first rows are on screen."""
        window = self.window
        if window is None or self._measured or not window.loaded:
            return
        self._measured = True
        await window.measure()
        self._take(window, cursor=self.cursor, offset=self.scroll_offset.y)

    def _take(self, window: Window[Row, Key], *, cursor: int, offset: int) -> None:
        if window is self.window:
            self.empty = self.nothing
            self.set_rows(window.rows, cursor=cursor, offset=max(offset, 0), first=window.first, length=window.length)

    async def _jump(self, jump: Callable[[], Awaitable[bool]], *, at_end: bool) -> None:
        self.empty = "loading …"
        window = self.window
        as_of = self.position()
        if await jump() and window is not None:
            self._note_read(as_of)
            end = window.first + len(window.rows)
            self._take(window, cursor=end - 1 if at_end else 0, offset=end if at_end else 0)

    async def _go_to(self, window: Window[Row, Key], key: Key) -> None:
        self.empty = "loading …"
        as_of = self.position()
        if await window.around(key, self.cursor):
            self._note_read(as_of)
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

    async def _refresh_top(self, window: Window[Row, Key], *, first: bool = False) -> None:
        as_of = self.position()
        row = self.row
        if await window.home():
            self._note_read(as_of)
            # Equal rows are drawn too, because their ages have changed.
            self.refresh()
            # The cursor may have moved on while the rows were read.
            at = 0 if first and self.row is row else self._place(window, self.row)
            stay = self.cursor if at is None else at
            self._take(window, cursor=stay, offset=stay - self.body_height + 1)

    async def _refresh(self, window: Window[Row, Key], row: Row) -> None:
        was_at = self.cursor
        as_of = self.position()
        if await window.around(window.source.key(row), was_at):
            self._note_read(as_of)
            self.refresh()
            line = self.cursor - self.scroll_offset.y
            # The cursor may have moved on while the rows were read.
            at = self._place(window, self.row)
            if at is None:
                at = (self._place(window, row) or window.first) + self.cursor - was_at
            self._take(window, cursor=at, offset=at - line)

    @staticmethod
    def _place(window: Window[Row, Key], row: Row | None) -> int | None:
        if row is None:
            return None
        name_of = window.source.name_of
        name = name_of(row)
        return next((at for at, each in enumerate(window.rows, window.first) if name_of(each) == name), None)

    async def _grow(self, window: Window[Row, Key], *, up: bool) -> None:
        shift = await window.grow(up=up)
        if shift is not None:
            self._take(window, cursor=self.cursor + shift, offset=self.scroll_offset.y + shift)

    def _want_more(self) -> None:
        """Load rows that the screen shows, or comes near to, and that are not there."""
        window = self.window
        if window is None or not window.loaded or self.problem or self.stopped:
            return
        top = self.scroll_offset.y
        end = top + self.body_height
        if window.row_numbers is not None and (top > self.last + _FAR or end < self.first - _FAR):
            # One jump at a time: those of a drag would cancel each other, and nothing would be shown.
            if self._aim is None or (self._aim != top and monotonic() - self._aimed_at > _PATIENCE):
                self._load(lambda: self._seek_to(window, top), aim=top)
        elif not self.busy:
            if not window.bottom and end + _AHEAD > self.last:
                self._load(lambda: self._grow(window, up=False))
            elif not window.top and top - _AHEAD < self.first:
                self._load(lambda: self._grow(window, up=True))
            self.empty = f"searching … looked at {window.looked:,}" if self.busy and not self.rows else self.nothing

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Load rows for the wheel and the scrollbar."""
        super().watch_scroll_y(old_value, new_value)
        self._want_more()

    def move_to(self, index: int) -> None:
        """Put the cursor on a row, and load more near the end of the loaded rows."""
        super().move_to(index)
        self._want_more()
        self.post_message(self.Moved())
