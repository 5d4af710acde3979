"""Deleting what load tests left, after asking."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from textual.widget import Widget

from esx.errors import EsxError
from esx.eventstore import EventStore
from esx.load.model import run_prefix
from esx.store.bulk.erase import Mark, Marked
from esx.text import counted, visible
from esx.tui.dialogs.agree import Agree
from esx.tui.panes import title_if_hidden
from esx.tui.session.operating import writable_store
from esx.tui.session.session import ExplorerSession
from esx.tui.tasks import start


class CleanRuns:
    """Looks for the events of runs, asks, and deletes them. `note` shows in a line how that goes."""

    def __init__(self, widget: Widget, session: ExplorerSession, database: str, note: Callable[[str], object]) -> None:
        self._widget = widget
        self._session = session
        self._database = database
        self._note = note
        self._cleaning = False

    def ask(self, name: str, runs: Callable[[], Sequence[str]]) -> None:
        """Delete the events of `runs`, which is called in a thread; `name` is what they are together."""
        store = self._session.store
        if self._cleaning:
            self._widget.notify("the events of a run are being deleted", severity="warning")
        elif store is not None:
            start(self._widget, partial(self._look, store, visible(name, limit=40), runs), "clean")

    async def _look(self, store: EventStore, name: str, runs: Callable[[], Sequence[str]]) -> None:
        self._note(f"looking for the events of {name} …")
        found: dict[str, Marked] = {}
        try:
            for run in await asyncio.to_thread(runs):
                found[run] = await store.marked(run_prefix(run), Mark("run_id", run))
        except EsxError as error:
            self._failed(error)
            return
        whole = Marked(
            sum(each.events for each in found.values()),
            sum(each.streams for each in found.values()),
            sum(each.conflicts for each in found.values()),
        )
        if not whole.events and not whole.conflicts:
            self._note(f"{name} has no events in this database")
            return
        what = f"{whole.text} of {name}"
        self._note(what)

        def agreed(yes: bool | None) -> None:
            if yes:
                start(self._widget, partial(self._clean, list(found), whole, name), "clean")

        effects = [
            f"deletes {what} from {self._database}",
            "nothing else: only events that carry the run's id in their metadata",
            "their numbers stay as gaps, which readers pass; what a projection made of them stays too",
            f"{'the saved run stays' if len(found) == 1 else 'the saved runs stay'}, and can be opened again",
        ]
        self._widget.app.push_screen(Agree(f"{name}: what will happen", effects), agreed)

    async def _clean(self, runs: Sequence[str], whole: Marked, name: str) -> None:
        database = self._session.database
        if database is None:
            return
        self._cleaning = True
        done = 0
        try:
            async with writable_store(database) as store:
                for run in runs:
                    say = partial(self._so_far, done, whole.events)
                    done += await store.delete_marked(run_prefix(run), Mark("run_id", run), say)
        except EsxError as error:
            self._failed(error)
        else:
            beside = f" and {counted(whole.conflicts, 'row')} of recorded conflicts" if whole.conflicts else ""
            self._note(f"deleted {counted(done, 'event')}{beside} of {name}")
        finally:
            self._cleaning = False

    def _so_far(self, before: int, whole: int, deleted: int) -> None:
        self._note(f"deleted {before + deleted:,} of {whole:,}")

    def _failed(self, error: EsxError) -> None:
        self._note("")
        text = visible(str(error), limit=500)
        self._widget.notify(text, title=title_if_hidden(self._widget), severity="error")
