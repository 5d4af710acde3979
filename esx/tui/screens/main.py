"""The screen below every dialog: it shows one of the explorer's screens."""

import asyncio
from collections.abc import Callable
from typing import cast

from textual.widgets import ContentSwitcher

from esx.tui.panes import MainScreen
from esx.tui.screens.base import StorePane
from esx.tui.widgets.statusbar import StatusBar

STREAMS = "streams-screen"
NOTICE = "notice"


class ExplorerScreen(MainScreen):
    """Shows the wanted screen, or the notice while there is no store.

    `make` makes a screen by its id when it is first shown; `ready` says whether there is a store.
    """

    def __init__(self, make: Callable[[str], StorePane], ready: Callable[[], bool]) -> None:
        super().__init__(NOTICE)
        self._make = make
        self._ready = ready
        self._wanted = STREAMS
        self._over: StorePane | None = None
        """What lies over the wanted screen: a trail, or what happened lately."""
        self._mounting = asyncio.Lock()

    @property
    def shown_pane(self) -> StorePane | None:
        """The shown screen."""
        return cast("StorePane | None", self.pane)

    async def go(self, screen_id: str) -> None:
        """Go to a screen, away from what lies over one."""
        over, self._over = self._over, None
        self._wanted = screen_id
        self.query_one(StatusBar).mark(screen_id)
        await self.show_wanted()
        if over is not None:
            await over.remove()

    async def show_wanted(self) -> None:
        """Show the wanted screen or what lies over it, or the notice while there is no store."""
        if not self._ready():
            self.show(None)
        elif self._over is not None:
            if self.pane is not self._over:
                self.show(self._over)
        elif self.pane is None or self.pane.id != self._wanted:
            wanted = self._wanted
            await self.lay_out(wanted)
            self.show(self.query_one(f"#{wanted}", StorePane))

    async def lay_out(self, screen_id: str = STREAMS) -> None:
        """Lay a screen out behind the shown one, unless that has been done."""
        async with self._mounting:
            if not self.query(f"#{screen_id}"):
                await self._mount_behind(self._make(screen_id))

    async def _mount_behind(self, pane: StorePane) -> None:
        pane.display = False
        await self.query_one(ContentSwitcher).mount(pane)

    async def open_over(self, pane: StorePane) -> None:
        """Show a pane over the current screen; `close_over` comes back to it."""
        await self.close_over()
        await self._mount_behind(pane)
        self._over = pane
        await self.show_wanted()

    async def close_over(self) -> None:
        """Go back to the screen below."""
        over, self._over = self._over, None
        if over is not None:
            await self.show_wanted()
            await over.remove()

    async def clear(self) -> None:
        """Remove all screens, before another database is shown."""
        self.show(None)
        self._over = None
        await self.query(StorePane).remove()
