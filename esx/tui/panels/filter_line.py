"""The line for a filter of events, the same on all screens."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from textual import on
from textual.message import Message

from esx.errors import EsxError
from esx.eventstore import EventStore
from esx.filter_language import EXAMPLE, Dialect, filter_text, parse_filter
from esx.filters import Filter
from esx.fold.vocabulary import types_like
from esx.positions import parse_moment
from esx.text import present
from esx.tui.session.session import ExplorerSession
from esx.tui.tasks import start
from esx.tui.widgets.askline import AskLine

_SUBJECT = "filter"


class FilterLine(AskLine):
    """Takes a filter in the language of docs/filters.md, completes it, and keeps those that were entered."""

    @dataclass
    class Entered(Message):
        """A filter was entered. `again` says that it confirms this very text; ``-2h`` in it is before `now`."""

        where: Filter
        now: datetime
        again: bool

    def __init__(self, session: ExplorerSession, *, id: str) -> None:
        super().__init__(id=id)
        self._session = session
        self._dialect = Dialect()

    def ask_filter(self, where: Filter, *, hint: str, types: Iterable[str] = (), of_one: bool = False) -> None:
        """Ask for a filter, starting from `where`.

        `types` are known beside those of the store, such as those on screen. `of_one` says that it is of one stream.
        """
        words = self._session.words
        self._dialect = replace(words.dialect, bare="type" if of_one else "stream")
        known = sorted(set(types))
        self.ask(
            _SUBJECT,
            text=filter_text(where),
            placeholder="type:Order* $.total > 100" if of_one else EXAMPLE,
            hint=hint,
            complete=lambda text: words.complete(text, self._dialect, types=known),
            history=words.history(self._dialect),
        )
        store = self._session.store
        if store is not None:
            start(self, partial(words.learn, store), "words")

    @on(AskLine.Answered)
    def _filter_answered(self, message: AskLine.Answered) -> None:
        if message.subject != _SUBJECT:
            return
        message.stop()
        now = present()
        dialect = replace(self._dialect, parse_time=partial(parse_moment, now=now))
        try:
            where = parse_filter(message.text, dialect)
        except ValueError as error:
            self.say(str(error), error=True)
            return
        self._session.words.entered(message.text, dialect)
        self.post_message(self.Entered(where, now, again=message.again))


async def types_meant(store: EventStore, chosen: Filter) -> str:
    """Return what to say of a filter that nothing passes: the types that may have been meant, else nothing."""
    if chosen.event_type is None and chosen.stream is None:
        return ""
    with contextlib.suppress(EsxError):
        return types_like(chosen, await store.known_types()).removeprefix("; ")
    return ""
