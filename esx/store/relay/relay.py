"""Relays: events of the feed handed to a target outside of the database, in order for each stream.

A relay sends batches of events to its target, and commits now and then: at once when there is no more to read, and at
the latest after so many events or seconds. With each commit the checkpoint moves.

- If the target keeps the position, it stores it together with the events, and each event arrives exactly once. The
  row in PostgreSQL is a copy for display, which may lag behind by the one commit that a crash came after.
- Otherwise the row is the checkpoint. It moves after the target has everything, so after a crash the events since the
  last commit, at most `WINDOW`, are sent again.

While the target commits, the row is locked: to pause or reset a relay waits for that, and nothing is committed after.
A row without a history is a new one, or one that was reset: then its position is written to the target first, so that a
history in the row always means that the target has a position too.

Parked events are written to PostgreSQL before the checkpoint passes them, so a crash in between parks them again.
Events that are sent again are named in the target's position, so that they are not sent a second time after a crash.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from esx.errors import EsxError, EventRefused, RelayFailed, TargetFailed, TargetUnavailable
from esx.model import Event
from esx.postgres.driver_errors import DRIVER_ERRORS
from esx.postgres.session import Session
from esx.store.consume.checkpoints import Checkpoint, CheckpointRow
from esx.store.consume.consumer import LOOK, Consumer, Part
from esx.store.consume.handler_transaction import CheckpointMoved
from esx.store.consume.put_aside import MOST_WAITING, Aside
from esx.store.feed.batch import Batch, Gap
from esx.store.feed.feed import Feed
from esx.store.feed.history import History, history_at
from esx.store.feed.server import look
from esx.store.relay.target import RelayIdentity, RelayTarget, TargetPosition
from esx.text import visible

WINDOW = 10_000
"""The most events that are sent between two commits."""
EXACT_WINDOW = 50_000
"""The same for a target that keeps the position, where a crash repeats none of them."""
SECONDS = 2.0
"""For how long events are sent between two commits: a target may end what stays open for longer, as Kafka does."""
RelayOnError = Literal["stop", "park"]
"""What a relay does with an event that its target refuses: end, or park it with the later ones of its stream."""
_RESENT = 100
"""How many parked events of a stream are sent in one commit."""


class _Finished(Exception):
    """Everything up to the safe position was sent; `gap` is the gap before which it ends."""

    def __init__(self, gap: Gap | None) -> None:
        super().__init__()
        self.gap = gap


class RelayProgress(NamedTuple):
    """What a relay has done: its position, and how many events it has sent since it was started."""

    position: int
    sent: int


class Relay(Consumer):
    """One instance of a relay; see `EventStore.relay`. With `once` it ends at the safe position."""

    kind = "relay"
    final = RelayFailed

    def __init__(
        self,
        row: CheckpointRow,
        target: RelayTarget,
        *,
        start_given: bool = False,
        once: bool = False,
        on_error: RelayOnError = "stop",
        window: int = WINDOW,
        seconds: float = SECONDS,
        page: int,
        on_progress: Callable[[RelayProgress], object] | None = None,
        **surroundings: Any,
    ) -> None:
        super().__init__(row, **surroundings)
        self._target = target
        self._start_given = start_given
        self._once = once
        self._most = max(window - page, 0)
        """After how many events to commit, so that one more page is still within the window."""
        self._seconds = seconds
        self._due = 0.0
        self._on_progress = on_progress
        self._ahead: tuple[History, int] | None = None
        """The history at the end of what was sent, and the feed's `looked` count there; None if all is committed."""
        self._pending = 0
        self._sent = 0
        self._reads = 0  # since events were sent
        self._refused: EventRefused | None = None
        """The event before which it has to stop."""
        self._on_error = on_error
        self._aside = Aside(self._layout, row.name)
        self._behind: list[Event] = []
        """Events that have to wait behind a parked one, since the last commit."""
        self._next_retry = 0.0
        self._careful: set[str] = set()
        """Streams whose parked events are sent one by one."""
        self._away_since: datetime | None = None

    async def run_to_end(self) -> Gap | None:
        """Run until it is cancelled or fails, with `once` until the safe position; return the gap there."""
        try:
            await self.run()
        except _Finished as finished:
            return finished.gap
        return None

    def _failure(self, reason: str) -> EsxError:
        return RelayFailed(self._name, None, reason)

    # -- sessions ------------------------------------------------------------------------------------------------

    async def _session(self) -> None:
        try:
            await super()._session()
        finally:
            await self._target.close()

    async def _go_on_after(self, error: Exception) -> None:
        if isinstance(error, TargetUnavailable) and error.at_once:
            self._check_open()
            self._log.warning("relay %r: %s", self._name, error)
        elif isinstance(error, TargetUnavailable):
            self._away_since = self._away_since or datetime.now(UTC)
            since = f"{self._away_since:%Y-%m-%d %H:%M:%S} UTC"
            await self._note_text(f"since {since}: {visible(str(error), limit=800)}")
            await self._wait_to_retry(error)
        elif isinstance(error, TargetFailed):
            failed = RelayFailed(self._name, None, str(error))
            await self._note_text(failed.reason)
            raise failed from error
        else:
            if isinstance(error, RelayFailed):
                await self._note_text(error.reason, error.global_seq)
            await super()._go_on_after(error)

    async def _begin(self, connection: Session, checkpoint: Checkpoint) -> Checkpoint:
        if self._connector.pooler is not None:
            raise self._failure(
                "behind a connection pooler there is no lease, so two instances could send the same events: use an "
                "address that leads to PostgreSQL itself"
            )
        server = (await look(connection, self._layout)).server
        database = await connection.fetchval("SELECT pg_catalog.current_database()::text")
        table = f"{self._layout.schema}.{self._layout.name}"
        there = await self._target.open(RelayIdentity(self._name, self._id, server.system, database, table))
        self._forget()
        if self._target.keeps_position:
            checkpoint = await self._agree(connection, checkpoint, there)
        await self._aside.load(connection, needed=self._on_error != "stop")
        if self._away_since is not None:
            self._log.warning("relay %r goes on", self._name)
            self._away_since = None
            await self._row.note_error(connection, checkpoint.position, None)
        return checkpoint

    async def _agree(self, connection: Session, here: Checkpoint, there: TargetPosition | None) -> Checkpoint:
        """Return the checkpoint that counts: the target's, unless the relay is new or was reset."""
        if there is not None and there.consumer != self._id and not (here.history is None and self._start_given):
            if here.history is None:
                await self._row.delete(connection)  # so that the next attempt can say where to begin
            raise self._failure(
                f"its target has {there.position} as its position, for a relay of this name that this database does "
                "not know any more: use another name, or say where to begin (--from)"
            )
        if here.history is None:
            history = await history_at(connection, self._layout, here.position)
            await self._target.commit(TargetPosition(here.position, history.to_json(), self._id))
            await self._row.keep_history(connection, here.position, history)
            return here._replace(history=history.to_json())
        if there is None or there.position < here.position:
            has = "no position of it" if there is None else f"only {there.position}"
            raise self._failure(
                f"this database has {here.position} as its position, and its target has {has}: is it another target, "
                "or was it set back? Reset the relay to the position from which events are to be sent again"
            )
        if there.resent:
            async with connection.transaction():
                await self._remove(connection, there.resent)
        if there.position == here.position:
            return here  # accept_history changes only the history that is here
        try:
            history = History.from_json(there.history)
        except ValueError as error:
            raise self._failure(f"what its target keeps of its history cannot be read: {error}") from error
        if not await self._row.advance(connection, here.position, history):
            raise CheckpointMoved
        return Checkpoint(here.id, there.position, here.paused, there.history)

    async def _work(self, connection: Session) -> None:
        try:
            await super()._work(connection)
        except CheckpointMoved:
            # It may have been paused: an open transaction would hold back the target's readers.
            await self._drop()
            raise
        except TargetFailed as error:
            if error.fenced and await self._has_lease(connection):
                raise TargetUnavailable("the target has ended what was sent, as after too long a pause") from error
            raise
        except (*DRIVER_ERRORS, OSError) as error:
            # The session may have been lost too, which shows when its transaction is rolled back.
            earlier = error.__context__
            while earlier is not None:
                if isinstance(earlier, TargetFailed) and earlier.fenced:
                    raise earlier from error
                earlier = earlier.__context__
            raise

    async def _has_lease(self, connection: Session) -> bool:
        """Return whether the session that has the lease is still there: then no other instance can be active."""
        with contextlib.suppress(*DRIVER_ERRORS, OSError):
            return bool(await connection.fetchval("SELECT true"))
        return False

    async def _drop(self) -> None:
        """Forget what was sent since the last commit."""
        self._forget()
        await self._target.abort()

    def _forget(self) -> None:
        self._ahead, self._pending = None, 0
        self._behind.clear()

    # -- sending -------------------------------------------------------------------------------------------------

    async def _batches(self, connection: Session, feed: Feed) -> AsyncGenerator[Batch, None]:
        following = feed.to_safe_position() if self._once else feed.follow()
        async with contextlib.aclosing(following) as batches:
            async for batch in batches:
                yield batch
        await self._pass(connection, Part((), feed.position, feed.looked))
        raise _Finished(feed.gap)

    async def _look(self, connection: Session, feed: Feed) -> None:
        self._reads += 1
        now = asyncio.get_running_loop().time()
        # There may be nothing more that is wanted. A target may take longer than a statement, so this comes before.
        if (self._pending and self._reads > 1) or (feed.position > self._position and now >= self._next_look):
            self._check_open()
            await self._pass(connection, Part((), feed.position, feed.looked))
        if self._aside.streams and self._ahead is None:
            await self._send_due(connection)
        await super()._look(connection, feed)

    async def _handle(self, connection: Session, part: Part) -> None:
        self._reads = 0
        if self._refused is not None and any(event.global_seq == self._refused.global_seq for event in part.events):
            part = await self._set_aside(connection, part, self._refused)
        await self._send(part, part.events)
        if not part.full or self._pending > self._most or asyncio.get_running_loop().time() >= self._due:
            await self._commit(connection)

    async def _pass(self, connection: Session, part: Part) -> None:
        self._extend(part)
        await self._commit(connection)

    async def _send(self, part: Part, events: Sequence[Event]) -> None:
        """Send the events of a part that are to be sent."""
        ready, behind = self._aside.split(events) if self._aside.streams else (events, [])
        if not self._pending:
            self._due = asyncio.get_running_loop().time() + self._seconds
        try:
            await self._target.send(ready)
        except EventRefused as refused:
            await self._refuse(refused)
        self._behind += behind
        self._pending += len(events)
        self._extend(part)

    def _extend(self, part: Part) -> None:
        """Note that everything up to the end of a part was sent."""
        history, looked = self._ahead or (self._history, self._looked)
        self._ahead = history.moved(part.events, part.position, part.looked - looked), part.looked

    async def _commit(self, connection: Session) -> None:
        """Commit what was sent, and move the checkpoint. Raises CheckpointMoved."""
        if self._ahead is None:
            return
        history, looked = self._ahead
        if self._behind:
            await self._check_room(connection, self._behind)
            await self._aside.add_behind(connection, self._behind)
        try:
            async with connection.transaction():
                if not await self._row.lock(connection, self._position):
                    raise CheckpointMoved
                await self._target.commit(TargetPosition(history.position, history.to_json(), self._id))
                if not await self._row.advance(
                    connection, self._position, history, handled=self._pending - len(self._behind)
                ):
                    raise CheckpointMoved
        except EventRefused as refused:
            await self._refuse(refused)
        self._moved(Part((), history.position, looked), history)
        self._sent += self._pending - len(self._behind)
        self._forget()
        if self._on_progress is not None:
            self._on_progress(RelayProgress(self._position, self._sent))

    # -- refused events ------------------------------------------------------------------------------------------

    async def _refuse(self, refused: EventRefused) -> None:
        """Begin again at the checkpoint, to send what comes before the refused event."""
        if self._refused is None or refused.global_seq < self._refused.global_seq:
            self._refused = refused
        raise CheckpointMoved from refused

    async def _set_aside(self, connection: Session, part: Part, refused: EventRefused) -> Part:
        """Send what comes before a refused event, then stop, or park the event and return the rest."""
        before = [event for event in part.events if event.global_seq < refused.global_seq]
        if before:
            # The events that the filter left out do not count: it is not known on which side they are.
            looked = (self._looked if self._ahead is None else self._ahead[1]) + len(before)
            await self._send(Part(before, refused.global_seq - 1, looked), before)
        await self._commit(connection)
        if self._on_error == "stop":
            raise RelayFailed(self._name, refused.global_seq, refused.reason) from refused
        rest = [event for event in part.events if event.global_seq >= refused.global_seq]
        await self._check_room(connection, rest[:1])
        await self._aside.add(connection, rest[0], refused.reason, "parked")
        await self._aside.load(connection, needed=True)
        self._log.warning("relay %r has parked event %s: %s", self._name, refused.global_seq, refused.reason)
        self._refused = None
        return part._replace(events=rest)

    async def _check_room(self, connection: Session, events: Sequence[Event]) -> None:
        """Raise RelayFailed if so many events wait that something else must be wrong."""
        if self._aside.full(len(events)):
            await self._aside.load(connection, needed=True)
        if self._aside.full(len(events)):
            reason = f"{MOST_WAITING:,} events are parked: retry or skip some before it goes on"
            raise RelayFailed(self._name, events[0].global_seq, reason)

    # -- parked events -------------------------------------------------------------------------------------------

    async def _send_due(self, connection: Session) -> None:
        """Send the parked events that a user wants to be tried again."""
        now = asyncio.get_running_loop().time()
        if now < self._next_retry:
            return
        self._next_retry = now + LOOK
        for stream in await self._aside.due(connection):
            while await self._send_waiting(connection, stream):
                pass
        await self._aside.load(connection, needed=False)

    async def _send_waiting(self, connection: Session, stream: str) -> bool:
        """Send the first events of a stream that wait; return whether more may follow."""
        waiting = await self._aside.waiting(connection, stream, 1 if stream in self._careful else _RESENT)
        # What the checkpoint has not passed yet comes by itself.
        numbers = [number for number in waiting if number <= self._position]
        if not numbers:
            return False
        async with self._lend() as reading:
            events = await self._aside.read(reading, numbers)
        if gone := set(numbers) - {event.global_seq for event in events}:
            events = [event for event in events if event.global_seq < min(gone)]
            if not events:
                await self._aside.failed_again(connection, stream, min(gone), "it is no longer in the store: skip it")
                return False
        try:
            await self._resend(connection, stream, events)
        except EventRefused as refused:
            if len(events) > 1:
                self._careful.add(stream)
            else:
                await self._aside.failed_again(connection, stream, refused.global_seq, refused.reason)
            raise CheckpointMoved from refused  # the target has to be opened again
        return True

    async def _resend(self, connection: Session, stream: str, events: Sequence[Event]) -> None:
        numbers = tuple(event.global_seq for event in events)
        async with connection.transaction():
            if not await self._row.lock(connection, self._position):
                raise CheckpointMoved
            if tuple(await self._aside.waiting(connection, stream, len(numbers))) != numbers:
                raise CheckpointMoved  # one was skipped meanwhile
            await self._target.send(events)
            history = self._history.to_json()
            await self._target.commit(TargetPosition(self._position, history, self._id, numbers))
            await self._remove(connection, numbers)
        self._sent += len(events)

    async def _remove(self, connection: Session, numbers: Sequence[int]) -> None:
        transaction = await connection.fetchval("SELECT pg_catalog.pg_current_xact_id()::text")
        await self._aside.remove(connection, numbers, transaction)
