"""A window over a long list: the rows that are loaded, growing at either end, never more than a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from esx.tui.sources import Key, Row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from esx.tui.sources import Page, RowSource

    # Rows, whether the list ends above and below, and the keys to go on from there.
    Loaded: TypeAlias = tuple[list[Row], bool, bool, Key | None, Key | None]

PAGE = 200
MOST = 4000


@dataclass(frozen=True, slots=True)
class Shift:
    """What a change did to the rows before the ones that stayed: `above` rows more (less, if negative) on top."""

    above: int = 0


class Window(Generic[Row, Key]):
    """The loaded part of a `RowSource`.

    One reader may load at a time; a load that was overtaken by a jump changes nothing. `top` and `bottom` say
    whether the list ends there.
    """

    def __init__(self, source: RowSource[Row, Key], *, page: int = PAGE, most: int = MOST) -> None:
        self.source = source
        self.rows: list[Row] = []
        self.top = False
        self.bottom = False
        self.loaded = False
        self.looked = 0
        """Pages read since the last jump."""
        self._page = page
        self._most = most
        self._up: Key | None = None
        self._down: Key | None = None
        self._generation = 0

    async def home(self) -> bool:
        """Load the first page in place of what is there; return False if another jump overtook it."""
        return await self._jump(self._home)

    async def end(self) -> bool:
        """Load the last page in place of what is there; return False if another jump overtook it."""
        if not self.source.ends_anywhere:
            return (await self.grow(up=False)) is not None
        return await self._jump(self._end)

    async def around(self, key: Key) -> bool:
        """Load the rows at `key` and on both sides of it in place of what is there: a refresh that stays put."""
        return await self._jump(lambda: self._around(key))

    async def grow(self, *, up: bool) -> Shift | None:
        """Load one more page at an end; return how the rows moved, or None if a jump overtook it."""
        if self.top if up else self.bottom:
            return Shift()
        generation = self._generation
        page = await self.source.page(self._up if up else self._down, backwards=up, limit=self._page)
        if generation != self._generation:
            return None
        self.looked += 1
        if up:
            self._take_up(page)
            self.rows[:0] = page.rows
            surplus = len(self.rows) - self._most
            if surplus > 0:
                del self.rows[-surplus:]
                self.bottom = False
                self._down = self.source.key(self.rows[-1])
            return Shift(len(page.rows))
        self._take_down(page)
        self.rows += page.rows
        surplus = len(self.rows) - self._most
        if surplus > 0:
            del self.rows[:surplus]
            self.top = False
            self._up = self.source.key(self.rows[0])
            return Shift(-surplus)
        return Shift()

    def index_of(self, key: Key) -> int | None:
        """Return where the row with `key` is, if it is loaded."""
        return next((index for index, row in enumerate(self.rows) if self.source.key(row) == key), None)

    async def _jump(self, load: Callable[[], Awaitable[Loaded[Row, Key]]]) -> bool:
        self._generation += 1
        generation = self._generation
        rows, top, bottom, up, down = await load()
        if generation != self._generation:
            return False
        self.rows, self.top, self.bottom, self._up, self._down = rows, top, bottom, up, down
        self.loaded = True
        self.looked = 1
        return True

    async def _home(self) -> Loaded[Row, Key]:
        page = await self.source.page(None, backwards=False, limit=self._page)
        return list(page.rows), True, page.onward is None, None, page.onward

    async def _end(self) -> Loaded[Row, Key]:
        page = await self.source.page(None, backwards=True, limit=self._page)
        return list(page.rows), page.onward is None, True, page.onward, None

    async def _around(self, key: Key) -> Loaded[Row, Key]:
        before = await self.source.page(key, backwards=True, limit=self._page)
        # The page after starts behind the last row before `key`, so that it begins with the row of `key` itself.
        joint = self.source.key(before.rows[-1]) if before.rows else before.onward
        after = await self.source.page(joint, backwards=False, limit=self._page)
        rows = [*before.rows, *after.rows]
        return rows, before.onward is None, after.onward is None, before.onward, after.onward

    def _take_up(self, page: Page[Row, Key]) -> None:
        self._up = page.onward
        self.top = page.onward is None

    def _take_down(self, page: Page[Row, Key]) -> None:
        self._down = page.onward
        self.bottom = page.onward is None
