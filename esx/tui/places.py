"""Going to places in the store: events, streams, trails, what a filter finds, and bookmarks of these."""

import os
from collections.abc import Callable
from functools import partial

from textual import on

from esx.bookmarks import Bookmark, Bookmarks, BookmarksUnusable, connection_of, kept_for
from esx.errors import EsxError
from esx.filters import Filter
from esx.layouts.category import without_category
from esx.locators import Locator
from esx.text import visible
from esx.tui.connected import ConnectedApp
from esx.tui.screens.base import StorePane
from esx.tui.screens.main import STREAMS
from esx.tui.screens.streams import StreamsPane
from esx.tui.tasks import start


class PlacesApp(ConnectedApp):
    """Shows what a screen asks for, on the screen that has it."""

    KEYMAP_PREFIX = "app"

    @on(StorePane.TrailWanted)
    async def _open_trail(self, message: StorePane.TrailWanted) -> None:
        """Show the trail of an event over the current screen."""
        from esx.tui.screens.trail import TrailPane

        if message.pane.shown:
            fields, source = self.config.fields, message.pane.TITLE
            trail = TrailPane(self.session, message.global_seq, fields=fields, source=source, id="trail-screen")
            await self.main.open_over(trail)

    @on(StorePane.SummaryWanted)
    async def _open_summary(self, message: StorePane.SummaryWanted) -> None:
        """Show what happened lately over the current screen."""
        from esx.tui.screens.summary import SummaryPane

        if message.pane.shown:
            await self.main.open_over(SummaryPane(self.session, source=message.pane.TITLE, id="summary-screen"))

    @on(StorePane.EventsWanted)
    async def _find_events(self, message: StorePane.EventsWanted) -> None:
        """Show the events that pass a filter, on the screen Streams."""
        if message.pane.shown:
            await self.main.go(STREAMS)
            for pane in self.main.query(StreamsPane):
                pane.find(message.where)

    @on(StorePane.MentionsWanted)
    def _find_mentions(self, message: StorePane.MentionsWanted) -> None:
        """Show all events that mention a value, or what the stream at hand is named by."""
        pane = message.pane
        place = pane.place_at_hand() if message.value is None else None
        if not pane.shown:
            return
        if message.value is not None:
            pane.post_message(StorePane.EventsWanted(pane, _mention(message.value)))
        elif isinstance(place, int):
            start(self, partial(self._look_up, place, partial(self._find_named, pane)), "mentions")
        elif place is not None and place.stream is not None:
            self._find_named(pane, place)
        else:
            self.notify("choose a stream, an event, or a value in it first", severity="warning")

    def _find_named(self, pane: StorePane, place: Locator) -> None:
        store = self.session.store
        if store is not None and place.stream is not None and pane.shown:
            named = without_category(store.separator, place.stream)
            pane.post_message(StorePane.EventsWanted(pane, _mention(named)))

    @on(StorePane.EventWanted)
    async def _go_to_event(self, message: StorePane.EventWanted) -> None:
        """Show an event in its stream, on the screen Streams."""
        if message.pane.shown:
            await self._go_to(Locator(None, message.stream_id, message.stream_seq))

    async def _go_to(self, place: Locator) -> None:
        await self.main.go(STREAMS)
        for pane in self.main.query(StreamsPane):
            pane.go_to(place.stream, place.number)

    # -- bookmarks -------------------------------------------------------------------------------------------------

    def action_bookmark(self) -> None:
        """Keep the place at hand, with a note."""
        pane = self.main.shown_pane
        place = None if pane is None else pane.place_at_hand()
        if place is None:
            self.notify("there is no event or stream here to keep", severity="warning")
        elif isinstance(place, Locator):
            self._ask_note(place)
        else:
            start(self, partial(self._look_up, place, self._ask_note), "bookmark")

    async def _look_up(self, global_seq: int, then: Callable[[Locator], None]) -> None:
        """Find the stream of an event, which its row shows cut, and go on."""
        store = self.session.store
        try:
            event = None if store is None else await store.event(global_seq)
        except EsxError as error:
            self.session.report(error)
            return
        if event is not None:
            then(Locator(None, event.stream_id, event.stream_seq))

    def _ask_note(self, place: Locator) -> None:
        from esx.tui.dialogs.bookmark import BookmarkNote

        database = self.session.database
        if database is None:
            return
        locator = Locator(connection_of(database), place.stream, place.number)

        def keep(note: str | None) -> None:
            if note is None:
                return
            try:
                Bookmarks.of(os.environ).add(kept_for(database), locator, note)
            except BookmarksUnusable as error:
                self._refuse(error)
            else:
                self.notify(f"kept · ' lists the bookmarks · {visible(locator.text, limit=200)}")

        self.push_screen(BookmarkNote(locator), keep)

    def action_bookmarks(self) -> None:
        """List the places that are kept of this database."""
        from esx.tui.dialogs.bookmark import BookmarkList

        database = self.session.database
        if database is None:
            return
        try:
            marks = Bookmarks.of(os.environ).of_database(kept_for(database))
        except BookmarksUnusable as error:
            self._refuse(error)
            return
        if marks:
            self.push_screen(BookmarkList(marks), self._marked)
        else:
            self.notify("no bookmarks yet: M keeps the event or stream under the cursor")

    def _marked(self, chosen: tuple[str, Bookmark] | None) -> None:
        if chosen is None:
            return
        what, mark = chosen
        if what == "open":
            self.call_later(self._go_to, mark.locator)
        elif what == "copy":
            self.copy_to_clipboard(mark.locator.text)
            self.notify(f"{visible(mark.locator.text, limit=200)} copied")
        else:
            try:
                Bookmarks.of(os.environ).remove(mark)
            except BookmarksUnusable as error:
                self._refuse(error)
            else:
                self.action_bookmarks()

    def _refuse(self, error: EsxError) -> None:
        self.notify(visible(str(error), limit=300), severity="error", timeout=8)


def _mention(text: str) -> Filter:
    return Filter(mentions=(text,), any_case=True)
