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
        self._trail: StorePane | None = None
        """The trail that lies over the wanted screen."""
        self._mounting = asyncio.Lock()

    @property
    def shown_pane(self) -> StorePane | None:
        """The shown screen."""
        return cast("StorePane | None", self.pane)

    async def go(self, screen_id: str) -> None:
        """Go to a screen, away from the trail."""
        trail, self._trail = self._trail, None
        self._wanted = screen_id
        self.query_one(StatusBar).mark(screen_id)
        await self.show_wanted()
        if trail is not None:
            await trail.remove()

    async def show_wanted(self) -> None:
        """Show the trail or the wanted screen, or the notice while there is no store."""
        if not self._ready():
            self.show(None)
        elif self._trail is not None:
            if self.pane is not self._trail:
                self.show(self._trail)
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

    async def open_trail(self, trail: StorePane) -> None:
        """Show a trail over the current screen; `close_trail` comes back to it."""
        await self.close_trail()
        await self._mount_behind(trail)
        self._trail = trail
        await self.show_wanted()

    async def close_trail(self) -> None:
        """Go back from the trail to the screen below it."""
        trail, self._trail = self._trail, None
        if trail is not None:
            await self.show_wanted()
            await trail.remove()

    async def clear(self) -> None:
        """Remove all screens, before another database is shown."""
        self.show(None)
        self._trail = None
        await self.query(StorePane).remove()
