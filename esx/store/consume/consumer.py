"""What every consumer of the ordered feed does: it takes its lease, reads its checkpoint, and follows the feed.

Only one instance is active: it holds the consumer's lease, an advisory lock in the session in which it works. An
instance that loses the session loses the lease. The other instances ask for the lease now and then.

The feed reads on the store's own connections, so what is done in the consumer's session cannot disturb it.

Beside its checkpoint each consumer stores the history that it has read (see esx/store/feed/history.py). The history is
compared at the beginning of each session, and when the head is below the position. If it differs, the consumer ends
with HistoryChanged.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import NamedTuple

import asyncpg

from esx.errors import EsxError, HistoryChanged, QueryCancelled, StoreUnavailable
from esx.filters import Filter
from esx.layouts.layout import Layout
from esx.model import Event
from esx.postgres.connection import Connector
from esx.postgres.driver_errors import DRIVER_ERRORS, as_store_error
from esx.postgres.session import Session
from esx.postgres.watchdog import Watchdog
from esx.store.consume.checkpoints import Checkpoint, CheckpointRow, keep_alive, take_lease
from esx.store.consume.handler_transaction import PATIENCE, CheckpointMoved, LostWhileHandling, in_one_line
from esx.store.feed.batch import Batch
from esx.store.feed.comparison import compare_kept
from esx.store.feed.feed import Feed
from esx.store.feed.history import History, history_at
from esx.store.feed.server import Server, look
from esx.store.feed.source import Lend
from esx.text import iso_utc

LOOK = 0.5  # how often a paused, waiting or idle instance looks at its checkpoint
_CLOSE_PATIENCE = 2.0
_SEEN = 10.0  # how often an instance without a lease says that it is there
_RETRY_FIRST = 0.1
_RETRY_LAST = 5.0


class _StoreClosed(Exception):
    """The store that the consumer runs on was closed."""


class Part(NamedTuple):
    """Events to be handled in one transaction, and the feed's position and `looked` count after them.

    `full` says that there are more to read now.
    """

    events: Sequence[Event]
    position: int
    looked: int
    full: bool = False


def as_json(chosen: Filter) -> str:
    """Return a filter as it is stored beside a checkpoint: a JSON object of the parts that are given."""
    return json.dumps({part: value for part, value in asdict(chosen).items() if value}, default=iso_utc)


class Consumer:
    """One instance of a consumer, active or waiting. Run it once, from one task.

    `wants` is its filter as JSON, which is stored beside its checkpoint. A subclass says what is done with events
    (`_handle`), and what ends it (`_failure`).
    """

    kind = "consumer"
    """What it is called in messages, and its sessions in PostgreSQL."""
    final: type[EsxError] = EsxError
    """The error of this kind of consumer; what stopped it is noted already when it is raised."""

    def __init__(
        self,
        row: CheckpointRow,
        *,
        connector: Connector,
        layout: Layout,
        watchdog: Watchdog,
        make_feed: Callable[[Callable[[], Awaitable[None]], int], Feed],
        lend: Lend,
        closed: Callable[[], bool],
        wants: str | None = None,
    ) -> None:
        self._name = row.name
        self._row = row
        self._connector = connector
        self._layout = layout
        self._watchdog = watchdog
        self._make_feed = make_feed
        self._lend = lend
        self._closed = closed
        self._wants = wants
        self._next_seen = 0.0
        self._id = 0
        self._position = 0
        self._looked = 0
        """How many events the feed had passed at the position."""
        self._history = History(Server(None, None), 0, 0, 0)
        self._retry = _RETRY_FIRST
        self._next_look = 0.0
        self._trouble: str | None = None
        """The error to store beside the checkpoint when there is a connection again."""
        self._log = logging.getLogger(f"esx.{self.kind}")

    def _failure(self, reason: str) -> EsxError:
        """Return the error that ends it, where that is about no event."""
        raise NotImplementedError

    async def _begin(self, connection: Session, checkpoint: Checkpoint) -> Checkpoint:  # noqa: ARG002
        """Prepare to handle events after a checkpoint, and return the checkpoint to go on from."""
        return checkpoint

    async def _handle(self, connection: Session, part: Part) -> None:
        """Handle events, and move the checkpoint behind them."""
        raise NotImplementedError

    async def _pass(self, connection: Session, part: Part) -> None:
        """Move the checkpoint over events that the filter left out. Raises CheckpointMoved."""
        history = self._history_after(part)
        if not await self._row.advance(connection, self._position, history):
            raise CheckpointMoved
        self._moved(part, history)

    def _batches(self, connection: Session, feed: Feed) -> AsyncGenerator[Batch, None]:  # noqa: ARG002
        """Return the batches to handle."""
        return feed.follow()

    async def run(self) -> None:
        """Wait for the lease, catch up, and follow, until it is cancelled or fails."""
        try:
            while True:
                try:
                    await self._session()
                except (EsxError, *DRIVER_ERRORS, OSError) as error:
                    await self._go_on_after(error)
        except _StoreClosed:
            raise StoreUnavailable(f"the store was closed while {self.kind} {self._name!r} ran") from None

    async def _go_on_after(self, error: Exception) -> None:
        """Wait after an error that can pass; store and raise any other."""
        meaning = error if isinstance(error, EsxError) else as_store_error(error, self._connector.where)
        if isinstance(meaning, HistoryChanged):
            # The feed does not know whose it is.
            meaning = self._named(meaning)
        if isinstance(error, LostWhileHandling):
            self._trouble = str(error)
        # The address may lead to a standby for a while: that is not the consumer's error.
        passing = any(isinstance(each, asyncpg.ReadOnlySQLTransactionError) for each in (error, error.__cause__))
        if passing or isinstance(meaning, StoreUnavailable | QueryCancelled):
            await self._wait_to_retry(meaning)
            return
        if not isinstance(error, self.final):
            # For example a filter that fails at an event; an error of the handler is stored already.
            await self._note(meaning or error)
        if meaning is None or meaning is error:
            raise error
        raise meaning from error

    def _named(self, error: HistoryChanged) -> HistoryChanged:
        return HistoryChanged(error.position, error.head, error.reason, error.erased, self._name, self.kind)

    async def _note(self, error: Exception) -> None:
        """Store what ended it beside its checkpoint, if possible."""
        await self._note_text(in_one_line(error))

    async def _note_text(self, text: str, global_seq: int | None = None) -> None:
        with contextlib.suppress(EsxError, *DRIVER_ERRORS, OSError):
            async with self._lend() as connection:
                await self._row.note_error(connection, self._position, text, global_seq)

    async def _wait_to_retry(self, reason: object) -> None:
        """Wait, twice as long each time until the checkpoint moves."""
        self._check_open()
        self._log.warning("%s %r tries again in %.1f s: %s", self.kind, self._name, self._retry, reason)
        await asyncio.sleep(self._retry)
        self._retry = min(self._retry * 2, _RETRY_LAST)

    def _check_open(self) -> None:
        if self._closed():
            raise _StoreClosed

    async def _session(self) -> None:
        """Work until the connection is lost."""
        connection = await self._connector.open(self.kind)
        try:
            # A silent connection would keep the lease, and keep this instance waiting.
            with self._watchdog.including(connection):
                self._id = (await self._row.register(connection)).id
                if not self._row.keeps_history:
                    self._log.warning("%s %r keeps no history of what it reads: run `esx init`", self.kind, self._name)
                await self._wait_for_lease(connection)
                leased = self._connector.pooler is None
                await self._row.note_runner(connection, leased=leased, wants=self._wants)
                while True:
                    with contextlib.suppress(CheckpointMoved):
                        await self._work(connection)
        finally:
            with contextlib.suppress(*DRIVER_ERRORS, OSError):
                await connection.close(timeout=_CLOSE_PATIENCE)

    async def _wait_for_lease(self, connection: Session) -> None:
        """Return as the active instance."""
        if self._connector.pooler is not None:
            return
        await keep_alive(connection)
        while not await take_lease(connection, self._layout, self._id):
            self._check_open()
            await asyncio.sleep(LOOK)

    async def _work(self, connection: Session) -> None:
        """Follow the feed from the checkpoint, until CheckpointMoved or another error is raised."""
        checkpoint = await self._row.load(connection)
        if checkpoint is None or checkpoint.id != self._id:
            raise self._failure("it was deleted")
        self._position = checkpoint.position
        if self._trouble is not None:
            await self._row.note_error(connection, self._position, self._trouble)
            self._trouble = None
        if checkpoint.paused:
            self._check_open()
            await asyncio.sleep(LOOK)
            raise CheckpointMoved
        checkpoint = await self._begin(connection, checkpoint)
        self._position = checkpoint.position
        await self._recognise(connection, checkpoint.history)

        async def before() -> None:
            # The feed reads at least once a second, and all events up to its position are handled then.
            await self._look(connection, feed)

        feed = self._make_feed(before, self._position)
        self._looked = feed.looked
        async with contextlib.aclosing(self._batches(connection, feed)) as batches:
            async for batch in batches:
                if batch.events:
                    await self._handle(connection, Part(batch.events, batch.position, feed.looked, batch.full))

    async def _recognise(self, connection: Session, kept: str | None) -> None:
        """Raise HistoryChanged unless the store holds the history `kept`, up to the position."""
        server = await self._compare(connection, kept)
        known = None if kept is None else History.from_json(kept)
        if known is not None and known.position == self._position:
            self._history = known.on(server)
            return
        # Nothing is kept, or an older esx has moved the checkpoint: trust what is there now.
        self._history = await history_at(connection, self._layout, self._position)
        await self._row.keep_history(connection, self._position, self._history)

    async def _compare(self, connection: Session, kept: str | None) -> Server:
        """Return the server; raises HistoryChanged."""
        here = await look(connection, self._layout)
        difference = await compare_kept(connection, self._layout, here, kept, self._position)
        if difference is not None:
            raise self._named(difference.error(self._position))
        return here.server

    async def _look(self, connection: Session, feed: Feed) -> None:
        """Move the checkpoint over events that the filter left out, and notice a pause, a reset, or a lost session."""
        self._check_open()
        now = asyncio.get_running_loop().time()
        if now < self._next_look:
            return
        self._next_look = now + LOOK
        async with asyncio.timeout(PATIENCE):
            if feed.position > self._position:
                await self._pass(connection, Part((), feed.position, feed.looked))
                return
            if self._connector.pooler is not None and now >= self._next_seen:
                self._next_seen = now + _SEEN
                await self._row.note_seen(connection)
            within = await self._row.within_head(connection, self._id, self._position)
            if within is None:
                raise CheckpointMoved
            if not within:
                await self._compare(connection, self._row.as_kept(self._history))

    def _history_after(self, part: Part) -> History:
        return self._history.moved(part.events, part.position, part.looked - self._looked)

    def _moved(self, part: Part, history: History) -> None:
        self._position, self._looked, self._history = part.position, part.looked, history
        self._retry = _RETRY_FIRST
