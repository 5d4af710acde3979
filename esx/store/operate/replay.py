"""Handling a projection's events again, in tables beside those that serve: what a rebuild, an audit and steps share."""

import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg

from esx.errors import InvalidQuery, ProjectionFailed, StoreFailed
from esx.filters import Filter
from esx.layouts.layout import Layout
from esx.model import Event
from esx.postgres.session import Session
from esx.store.consume.handler_transaction import BatchHandler, EventHandler, in_one_line
from esx.store.feed.feed import Feed
from esx.store.operate.shadow import Shadow, check_written, enter_shadow
from esx.text import visible

_ALL = ("parked", "retry", "skipped")


class Recorded(NamedTuple):
    """What the row of a projection says of how its read model was made."""

    id: int
    position: int
    start: int
    filter: Filter
    history: str | None


class Stretch(NamedTuple):
    """Events, and the position up to which they are all."""

    events: Sequence[Event]
    position: int


@dataclass(frozen=True, slots=True)
class ReplayOf:
    """A projection whose events are handled again: its name and handler, which takes `batches` or single events.

    `session` is its own; `make_feed` returns a feed after a position.
    """

    name: str
    handler: BatchHandler | EventHandler
    batches: bool
    layout: Layout
    session: Session
    make_feed: Callable[[int, Filter], Feed]


class Replay:
    """Handles events in a shadow of the tables. A subclass says which events, and what comes of it."""

    doing = "replay"
    """What it is called in messages."""

    def __init__(self, given: ReplayOf) -> None:
        self._name = given.name
        self._handler: Callable[[asyncpg.Connection, Any], Awaitable[object]] = given.handler
        self._batches = given.batches
        self._layout = given.layout
        self._session = given.session
        self._make_feed = given.make_feed
        self._left_out: frozenset[int] = frozenset()
        """The events that were put aside, and are not handled here."""

    async def _recorded(self) -> Recorded:
        """Return how the read model was made. Raises InvalidQuery where it cannot be made again from that."""
        row = await self._session.fetchrow(
            "SELECT id, position, start, filter::text, history::text, kind "
            f"FROM {self._layout.ours('consumers')} WHERE name = $1",
            self._name,
        )
        if row is None:
            raise StoreFailed(f"projection {self._called} was deleted meanwhile")
        if row["kind"] != "projection":
            raise InvalidQuery(f"{self._called} is a {row['kind']}: only projections have a read model")
        recorded: dict[str, Any] = json.loads(row["filter"]) if row["filter"] else {}
        if "changed_at" in recorded:
            raise InvalidQuery(
                f"the filter of {self._called} was changed at {recorded['changed_at']}, and esx knows only the new "
                "one: reset the projection, so that one filter holds for all of its read model"
            )
        return Recorded(row["id"], row["position"], row["start"], Filter(**recorded), row["history"])

    @property
    def _called(self) -> str:
        return visible(self._name, limit=200)

    async def _leave_out(self, *states: str) -> None:
        """Leave out the events that the projection has put aside, those in `states` or all."""
        rows = await self._session.fetch(
            f"SELECT global_seq FROM {self._layout.ours('parked_events')} WHERE consumer = $1 "
            "AND state = ANY($2::text[])",
            *(self._name, list(states or _ALL)),
        )
        self._left_out = frozenset(row[0] for row in rows)

    async def _read(self, after: int, where: Filter, upto: int | None = None) -> AsyncGenerator[Stretch, None]:
        """Yield the events after a position up to the safe one, or up to `upto`, with how far each part leads.

        Raises StoreFailed if the feed ends before `upto`.
        """
        feed = self._make_feed(after, where)
        async with contextlib.aclosing(feed.to_safe_position()) as batches:
            async for batch in batches:
                if upto is None or batch.position < upto:
                    yield Stretch(batch.events, batch.position)
                else:
                    yield Stretch([event for event in batch.events if event.global_seq <= upto], upto)
                    return
        if upto is not None and feed.position < upto:
            raise StoreFailed(f"not all events up to {upto} can be read now: an open writer holds the feed; again")
        # A filter may have left out the last events, of which there is no batch.
        yield Stretch([], max(feed.position if upto is None else upto, after))

    async def _handle(self, shadow: Shadow, events: Sequence[Event], *, singly: bool = False) -> int:
        """Handle those of the events that are not left out, in the open transaction, and check where they wrote.

        Returns how many those were. With `singly` each is given alone, and noted in the setting esx.replayed_event.
        Afterwards only PostgreSQL's own names are found. Raises ProjectionFailed and StoreFailed.
        """
        wanted = [event for event in events if event.global_seq not in self._left_out]
        if not wanted:
            return 0
        session = self._session
        await enter_shadow(session, shadow.schema)
        at: int | None = None
        try:
            if self._batches and not singly:
                if len(wanted) == 1:
                    at = wanted[0].global_seq
                await self._handler(session, wanted)
            else:
                for event in wanted:
                    at = event.global_seq
                    if singly:
                        await session.execute("SELECT pg_catalog.set_config('esx.replayed_event', $1, true)", str(at))
                    await self._handler(session, [event] if self._batches else event)
        except Exception as error:
            where = f" in events {wanted[0].global_seq} to {wanted[-1].global_seq}" if at is None else ""
            raise ProjectionFailed(self._name, at, f"the {self.doing} failed{where}: {in_one_line(error)}") from error
        if not session.is_in_transaction():
            raise StoreFailed("the handler ended the transaction it was given, which is not its to end")
        await check_written(session, shadow)
        return len(wanted)
