"""A window over a long list: the rows that are loaded, growing at either end, never more than a bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from esx.tui.sources import Key, Row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from esx.tui.scales import Scale
    from esx.tui.sources import Page, RowSource

    # Rows, whether the list ends above and below, and the keys to go on from there.
    Loaded: TypeAlias = tuple[list[Row], bool, bool, Key | None, Key | None]

PAGE = 100
MOST = 4000


class Window(Generic[Row, Key]):
    """The loaded part of a `RowSource`: `rows`, of which the first is row number `first` of the whole list.

    One reader may load at a time; a load that was overtaken by a jump changes nothing. `top` and `bottom` say
    whether the list ends there. Above and below, the source's scale says how much there is; where that is an estimate
    and turns out wrong, the numbers of the rows shift, and the methods say by how much.
    """

    def __init__(self, source: RowSource[Row, Key], *, page: int = PAGE, most: int = MOST) -> None:
        self.source = source
        self.rows: list[Row] = []
        self.first = 0
        self.top = False
        self.bottom = False
        self.loaded = False
        self.joint = 0
        """Where the rows begin that `around` read from the key on."""
        self.scale: Scale[Key] | None = None
        self.looked = 0
        """How many rows were looked at to find these, where that is more, since the last jump."""
        # The numbers of the rows that have been here since the last jump, and whether the list's ends were.
        self._low = self._high = 0
        self._whole_above = self._whole_below = False
        self._page = page
        self._most = most
        self._up: Key | None = None
        self._down: Key | None = None
        self._generation = 0

    @property
    def found(self) -> int:
        """How many rows have been read since the last jump, those included that are no longer kept."""
        return self._high - self._low

    @property
    def whole(self) -> bool:
        """Whether those are all that there are."""
        return self._whole_above and self._whole_below

    @property
    def length(self) -> int:
        """How many rows the whole list has, as far as known."""
        loaded = self.first + len(self.rows)
        if self.bottom:
            return loaded
        # Where more follows than was estimated, leave room for it.
        return max(loaded + 1, self.scale.length) if self.scale is not None else loaded

    async def measure(self) -> None:
        """Find out how long the whole list is, where that can be told."""
        generation = self._generation
        scale = await self.source.measure()
        if generation == self._generation:
            self.scale = scale

    async def home(self) -> bool:
        """Load the first page in place of what is there; return False if another jump overtook it."""
        if not await self._jump(self._home):
            return False
        self._begin()
        return True

    async def end(self) -> bool:
        """Load the last page in place of what is there; return False if another jump overtook it."""
        if not self.source.ends_anywhere:
            return (await self.grow(up=False)) is not None
        if not await self._jump(self._end):
            return False
        if not self.top:
            self.first = max((0 if self.scale is None else self.scale.length) - len(self.rows), 1)
        self._begin()
        return True

    async def around(self, key: Key, place: int) -> bool:
        """Load the rows at `key` and on both sides of it in place of what is there: a refresh that stays put.

        `place` is where the row with that key was.
        """
        rows_before = 0

        async def load() -> Loaded[Row, Key]:
            nonlocal rows_before
            loaded, rows_before = await self._around(key)
            return loaded

        if not await self._jump(load):
            return False
        if not self.top:
            if self.scale is not None and self.scale.steady:
                place = self.scale.place(key)
            self.first = max(place - rows_before, 1)
        self.joint = self.first + rows_before
        self._begin()
        return True

    async def seek(self, place: int) -> bool:
        """Load the rows from row number `place` on in place of what is there; without a scale, the first ones."""
        scale = self.scale
        if scale is None or place <= 0:
            return await self.home()
        place = min(place, max(scale.length - 1, 0))
        rows_before = 0

        async def load() -> Loaded[Row, Key]:
            nonlocal rows_before
            joint = scale.before(place)
            after = await self.source.page(joint, backwards=False, limit=self._page)
            if after.onward is not None and len(after.rows) >= self._page // 2:
                return list(after.rows), False, False, joint, after.onward
            # So near to the end that a screen might not be full.
            before = await self.source.page(joint, backwards=True, limit=self._page)
            rows_before = len(before.rows)
            rows = [*before.rows, *after.rows]
            return rows, before.onward is None, after.onward is None, before.onward, after.onward

        if not await self._jump(load):
            return False
        if not self.top:
            self.first = max(place - rows_before, 1)
        self._begin()
        return True

    def _begin(self) -> None:
        self._low, self._high = self.first, self.first + len(self.rows)
        self._whole_above, self._whole_below = self.top, self.bottom

    async def grow(self, *, up: bool) -> int | None:
        """Load one more page at an end.

        Return by how much the numbers of the rows that were there before have shifted, or None if a jump overtook it.
        """
        if self.top if up else self.bottom:
            return 0
        generation = self._generation
        page = await self.source.page(self._up if up else self._down, backwards=up, limit=self._page)
        if generation != self._generation:
            return None
        # What was dropped, and is read again, counts once.
        if self.first <= self._low if up else self.first + len(self.rows) >= self._high:
            self.looked += page.looked
        return self._grow_up(page) if up else self._grow_down(page)

    def _grow_up(self, page: Page[Row, Key]) -> int:
        self._up = page.onward
        self.top = page.onward is None
        self.rows[:0] = page.rows
        surplus = len(self.rows) - self._most
        if surplus > 0:
            del self.rows[-surplus:]
            self.bottom = False
            self._down = self.source.key(self.rows[-1])
        first = self.first - len(page.rows)
        if self.top:
            self.first = 0
        else:
            # More above than was estimated: make room for it.
            self.first = first if first > 0 else self._page
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
        surplus = len(self.rows) - self._most
        if surplus > 0:
            del self.rows[:surplus]
            self.first += surplus
            self.top = False
            self._up = self.source.key(self.rows[0])
        return 0

    def place_of(self, key: Key) -> int | None:
        """Return the number of the row with `key`, if it is loaded."""
        return next((at for at, row in enumerate(self.rows, self.first) if self.source.key(row) == key), None)

    async def _jump(self, load: Callable[[], Awaitable[Loaded[Row, Key]]]) -> bool:
        self._generation += 1
        generation = self._generation
        self.looked = 0
        rows, top, bottom, up, down = await load()
        if generation != self._generation:
            return False
        self.rows, self.top, self.bottom, self._up, self._down = rows, top, bottom, up, down
        self.first = 0
        self.loaded = True
        return True

    async def _home(self) -> Loaded[Row, Key]:
        page = await self.source.page(None, backwards=False, limit=self._page)
        self.looked = page.looked
        return list(page.rows), True, page.onward is None, None, page.onward

    async def _end(self) -> Loaded[Row, Key]:
        page = await self.source.page(None, backwards=True, limit=self._page)
        self.looked = page.looked
        return list(page.rows), page.onward is None, True, page.onward, None

    async def _around(self, key: Key) -> tuple[Loaded[Row, Key], int]:
        before = await self.source.page(key, backwards=True, limit=self._page)
        # The page after starts behind the last row before `key`, so that it begins with the row of `key` itself.
        joint = self.source.key(before.rows[-1]) if before.rows else before.onward
        after = await self.source.page(joint, backwards=False, limit=self._page)
        self.looked = before.looked + after.looked
        rows = [*before.rows, *after.rows]
        return (rows, before.onward is None, after.onward is None, before.onward, after.onward), len(before.rows)
