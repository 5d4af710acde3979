"""A window over a long list: the loaded rows, which grow at either end up to a bound."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeAlias

from esx.tui.lists.column import Row
from esx.tui.lists.row_numbers import Key, RowNumbers
from esx.tui.lists.sources import Page, RowSource

_Pages: TypeAlias = tuple[Page[Row, Key], Page[Row, Key]]
"""The page above a place, and the page from there on."""

PAGE = 100
MOST = 4000


class Window(Generic[Row, Key]):
    """The loaded part of a `RowSource`: `rows`, of which the first is row number `first` of the whole list.

    One reader may load at a time; a load that a later jump overtakes changes nothing. `top` and `bottom` say whether
    the list ends there. The source's row numbers say how many rows are above and below; where that estimate is wrong,
    the numbers of the rows shift.
    """

    def __init__(self, source: RowSource[Row, Key], *, page: int = PAGE, most: int = MOST) -> None:
        self.source = source
        self.rows: list[Row] = []
        self.first = 0
        self.top = False
        self.bottom = False
        self.loaded = False
        self.joint = 0
        """The row number that the last jump led to: of the first row of the page below, one past the last row if that
        page is empty, as after `end`."""
        self.row_numbers: RowNumbers[Key] | None = None
        self.looked = 0
        """How many rows were looked at since the last jump, for a filter."""
        # Which row numbers have been read since the last jump, and whether the ends of the list have.
        self._low = self._high = 0
        self._whole_above = self._whole_below = False
        self._page = page
        self.most = most
        self._up: Key | None = None
        self._down: Key | None = None
        self._generation = 0

    @property
    def found(self) -> int:
        """How many rows have been read since the last jump, kept or not."""
        return self._high - self._low

    @property
    def whole(self) -> bool:
        """Whether all rows have been read since then."""
        return self._whole_above and self._whole_below

    @property
    def _least(self) -> int:
        """The least number of the first loaded row while the list's start has not been read."""
        # An estimate leaves room above; with steady numbers, the page may have begun exactly at the start.
        return 0 if self.row_numbers is not None and self.row_numbers.steady else 1

    @property
    def length(self) -> int:
        """How many rows the whole list has, as far as known."""
        loaded = self.first + len(self.rows)
        if self.bottom:
            return loaded
        # Where more follows than was estimated, leave room for it.
        return max(loaded + 1, self.row_numbers.length) if self.row_numbers is not None else loaded

    async def measure(self) -> None:
        """Read the row numbers of the whole list, where they are known."""
        generation = self._generation
        row_numbers = await self.source.measure()
        if generation == self._generation:
            self.row_numbers = row_numbers

    async def home(self) -> bool:
        """Load the first page in place of what is there; return False if another jump overtook it."""

        async def load() -> _Pages[Row, Key]:
            return Page([], None), await self._read(None)

        return await self._jump(load, 0)

    async def end(self) -> bool:
        """Load the last page in place of what is there; return False if another jump overtook it."""
        if not self.source.ends_anywhere:
            return (await self.grow(up=False)) is not None

        async def load() -> _Pages[Row, Key]:
            return await self._read(None, backwards=True), Page([], None)

        return await self._jump(load, 0 if self.row_numbers is None else self.row_numbers.length)

    async def around(self, key: Key, place: int) -> bool:
        """Load the rows at `key` and on both sides of it in place of what is there.

        `place` is the row number that the key had.
        """

        async def load() -> _Pages[Row, Key]:
            before = await self._read(key, backwards=True)
            # The page after starts behind the last row before `key`, so that it begins with the row of `key` itself.
            return before, await self._read(self.source.key(before.rows[-1]) if before.rows else before.onward)

        if self.row_numbers is not None and self.row_numbers.steady:
            place = self.row_numbers.place(key)
        return await self._jump(load, place)

    async def seek(self, place: int) -> bool:
        """Load the rows from row number `place` on in place of what is there; without row numbers, the first ones."""
        row_numbers = self.row_numbers
        if row_numbers is None or place <= 0:
            return await self.home()
        place = min(place, max(row_numbers.length - 1, 0))
        joint = row_numbers.before(place)

        async def load() -> _Pages[Row, Key]:
            after = await self._read(joint)
            # What is above is read from the first row below: read from `joint`, it would lack the row of `joint`.
            first = self.source.key(after.rows[0]) if after.rows else after.onward
            if after.rows and after.onward is not None and len(after.rows) >= self._page // 2:
                return Page([], first), after
            # So near to the end that it might not fill a screen.
            return await self._read(first, backwards=True), after

        return await self._jump(load, place)

    async def _read(self, after: Key | None, *, backwards: bool = False) -> Page[Row, Key]:
        return await self.source.page(after, backwards=backwards, limit=self._page)

    async def _jump(self, load: Callable[[], Awaitable[_Pages[Row, Key]]], place: int) -> bool:
        """Show the pages above and below row number `place` in place of what is there."""
        self._generation += 1
        generation = self._generation
        self.looked = 0
        before, after = await load()
        if generation != self._generation:
            return False
        self.rows = [*before.rows, *after.rows]
        self.looked = before.looked + after.looked
        self._up, self._down = before.onward, after.onward
        self.top = self._whole_above = before.onward is None
        self.bottom = self._whole_below = after.onward is None
        self.first = 0 if self.top else max(place - len(before.rows), self._least)
        self.joint = self.first + len(before.rows)
        self._low, self._high = self.first, self.first + len(self.rows)
        self.loaded = True
        return True

    async def grow(self, *, up: bool) -> int | None:
        """Load one more page at an end.

        Return by how much the numbers of the earlier rows have shifted, or None if a jump overtook it.
        """
        if self.top if up else self.bottom:
            return 0
        generation = self._generation
        page = await self._read(self._up if up else self._down, backwards=up)
        if generation != self._generation:
            return None
        # Rows that were dropped and are read again count once.
        if self.first <= self._low if up else self.first + len(self.rows) >= self._high:
            self.looked += page.looked
        return self._grow_up(page) if up else self._grow_down(page)

    def _grow_up(self, page: Page[Row, Key]) -> int:
        self._up = page.onward
        self.top = page.onward is None
        self.rows[:0] = page.rows
        surplus = len(self.rows) - self.most
        if surplus > 0:
            del self.rows[-surplus:]
            self.bottom = False
            self._down = self.source.key(self.rows[-1])
        first = self.first - len(page.rows)
        if self.top:
            self.first = 0
        else:
            # More above than was estimated: make room for it.
            self.first = first if first >= self._least else self._page
        shift = self.first - first
        self._low, self._high = min(self._low + shift, self.first), self._high + shift
        self._whole_above |= self.top
        return shift

    def _grow_down(self, page: Page[Row, Key]) -> int:
        self._down = page.onward
        self.bottom = page.onward is None
        self.rows += page.rows
        self._high = max(self._high, self.first + len(self.rows))
        self._whole_below |= self.bottom
        surplus = len(self.rows) - self.most
        if surplus > 0:
            del self.rows[:surplus]
            self.first += surplus
            self.top = False
            self._up = self.source.key(self.rows[0])
        return 0

    def place_of(self, key: Key) -> int | None:
        """Return the number of the row with `key`, if it is loaded."""
        return next((at for at, row in enumerate(self.rows, self.first) if self.source.key(row) == key), None)
