"""What an append sends, and what PostgreSQL's refusals of it mean.

The reason is looked for after the refusal, so that a successful append pays nothing for it.
"""

from collections.abc import Sequence
from typing import NoReturn, TypeAlias
from uuid import UUID

import asyncpg

from esx.errors import EventIdsReused, InvalidEvent, StoreFailed
from esx.layouts.layout import Layout
from esx.model import NewEvent, encode_json
from esx.postgres.session import Session
from esx.text import visible

REFUSALS = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)
"""The errors of PostgreSQL, or of the driver, for values that it cannot hold."""
HIGHEST = 2**63 - 1
EventRow: TypeAlias = tuple[str, str, str | None, UUID]
"""What an append sends of one event: type, data, metadata and id."""


class Refusals:
    """Finds out why an events table refused an append."""

    def __init__(self, layout: Layout, as_user: Sequence[str] = ()) -> None:
        self._layout = layout
        self._as_user = as_user
        self._has_id = layout.event_id is not None
        self._version = layout.version()
        self._room = (
            "SELECT s.version, CASE a.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 "
            f"ELSE {HIGHEST} END FROM ({layout.version()}) s, pg_attribute a "
            f"WHERE a.attrelid = {layout.oid} AND a.attname = 'stream_seq'"
        )
        self._insert = (
            f"INSERT INTO {layout.table} (stream_id, stream_seq, event_type, data, metadata"
            f"{f', {layout.event_id}' if self._has_id else ''}) "
            f"VALUES ($1, $2, $3, $4::jsonb, $5::jsonb{', $6::uuid' if self._has_id else ''})"
        )

    def arguments(self, stream_id: str, events: Sequence[NewEvent]) -> list[object]:
        """Return the arguments of an append. Raises what `event_rows` raises."""
        rows = event_rows(stream_id, events)
        if len(rows) == 1:
            return list(rows[0] if self._has_id else rows[0][:3])
        return [list(column) for column in zip(*rows, strict=True)]

    async def meaning(
        self,
        connection: Session,
        error: Exception,
        stream_id: str,
        events: Sequence[NewEvent],
        before: Sequence[NewEvent] = (),
    ) -> InvalidEvent | EventIdsReused | StoreFailed | None:
        """Return what `error`, with which PostgreSQL refused to store `events`, means for them; None for nothing.

        `before` are earlier events of the same transaction. Inside a transaction, which has failed, PostgreSQL cannot
        be asked; then only a certain meaning is returned.
        """
        if isinstance(error, asyncpg.SequenceGeneratorLimitExceededError):
            return no_number_left(error, self._layout)
        failed = connection.is_in_transaction()
        if isinstance(error, asyncpg.UniqueViolationError):
            return None if failed else await self._reused_ids(connection, stream_id, events, before)
        if not failed:
            return (
                await self._invalid(connection, stream_id, events)
                or await self._no_room(connection, stream_id, events)
                or await self._refused_by_table(connection, stream_id, events)
            )
        # It may be the event or the stream.
        sure = len(events) == 1 and not isinstance(error, asyncpg.NumericValueOutOfRangeError)
        return InvalidEvent(0, reason_of(error)) if sure else None

    async def raise_meaning(
        self,
        connection: Session,
        error: Exception,
        stream_id: str,
        events: Sequence[NewEvent],
        before: Sequence[NewEvent] = (),
    ) -> NoReturn:
        """Raise the `meaning` of an error; the error itself if it has none."""
        meaning = await self.meaning(connection, error, stream_id, events, before)
        if meaning is None:
            raise error
        raise meaning from error

    async def _reused_ids(
        self, connection: Session, stream_id: str, events: Sequence[NewEvent], before: Sequence[NewEvent]
    ) -> InvalidEvent | EventIdsReused | None:
        """Return what is wrong with the event ids; None for nothing, or if the table does not keep them unique."""
        if not self._layout.unique_event_id:
            return None
        seen = {event.event_id for event in before}
        for index, event in enumerate(events):
            if event.event_id in seen:
                return InvalidEvent(index, "it has the id of another event of the batch")
            seen.add(event.event_id)
        stored = await connection.fetchval(
            f"SELECT EXISTS (SELECT FROM {self._layout.table} WHERE {self._layout.event_id} = ANY($1::uuid[]))",
            [event.event_id for event in events],
        )
        return EventIdsReused(stream_id) if stored else None

    async def _no_room(self, connection: Session, stream_id: str, events: Sequence[NewEvent]) -> StoreFailed | None:
        """Return the error if the numbers of the events are too high for the column."""
        row = await connection.fetchrow(self._room, stream_id)
        assert row is not None
        version, highest = row
        return full(stream_id, version, highest) if version + len(events) > highest else None

    async def _invalid(self, connection: Session, stream_id: str, events: Sequence[NewEvent]) -> InvalidEvent | None:
        """Return the error for the first event that PostgreSQL cannot hold; None if it can hold each of them."""
        try:
            self.arguments(stream_id, events)
        except InvalidEvent as invalid:
            return invalid
        reason = await _refusal(connection, "text", stream_id)
        if reason:
            return InvalidEvent(0, f"stream id: {reason}")
        for index, event in enumerate(events):
            event_type, data, metadata, _ = _row(index, event)
            parts = (("text", "type", event_type), ("jsonb", "data", data), ("jsonb", "metadata", metadata))
            for kind, name, text in parts:
                reason = None if text is None else await _refusal(connection, kind, text)
                if reason:
                    return InvalidEvent(index, f"{name}: {reason}")
        return None

    async def _refused_by_table(
        self, connection: Session, stream_id: str, events: Sequence[NewEvent]
    ) -> InvalidEvent | None:
        """Insert each event and roll it back; return the error for the first one that the table refuses.

        PostgreSQL can hold such an event, but, for example, not in an index.
        """
        transaction = connection.transaction()
        await transaction.start()
        try:
            # No subscriber is to be woken for it.
            silence = "pg_catalog.set_config('esx.notification', 'off', true)"
            await connection.execute(f"SELECT {', '.join((silence, *self._as_user))}")
            version = await connection.fetchval(self._version, stream_id)
            for index, event in enumerate(events):
                row = _row(index, event)[: 4 if self._has_id else 3]
                try:
                    async with connection.transaction():
                        await connection.execute(self._insert, stream_id, version + 1 + index, *row)
                except REFUSALS as refusal:
                    return InvalidEvent(index, reason_of(refusal))
        except asyncpg.PostgresError:
            # It is not about the events; they may be stored by now, for example.
            return None
        finally:
            await transaction.rollback()
        return None


def no_arbiter(layout: Layout) -> str:
    """Return the message for a table in which two writers could store an event at one place."""
    return (
        f"table {layout.called} has no unique index on (stream_id, stream_seq) that is valid, so two writers could "
        "both win: `esx doctor` names the remedy"
    )


def no_number_left(error: Exception, layout: Layout) -> StoreFailed | None:
    """Return the error if the sequence of global_seq has no number left; None if `error` is another one."""
    if not isinstance(error, asyncpg.SequenceGeneratorLimitExceededError):
        return None
    return StoreFailed(
        f"table {layout.called} takes no more events, as its sequence has handed out its last number "
        f"({reason_of(error)}): `esx export` it, and `esx import` that into another database, where they begin at 1"
    )


def full(stream_id: str, version: int, highest: int) -> StoreFailed:
    """Return the error for a stream that has no numbers left."""
    return StoreFailed(
        f"stream {visible(stream_id, limit=200)} is full: its version is {version}, and no stream_seq can be above "
        f"{highest}: append to another stream"
    )


async def _refusal(connection: Session, kind: str, text: str) -> str | None:
    """Return why PostgreSQL cannot hold `text` as `kind`, None if it can."""
    try:
        await connection.fetchval(f"SELECT $1::{kind} IS NULL", text)
    except (*REFUSALS, ValueError) as refusal:
        return reason_of(refusal)
    return None


def event_rows(stream_id: str, events: Sequence[NewEvent]) -> list[EventRow]:
    """Return what an append sends of each event. Raises InvalidEvent, and ValueError without events."""
    if not events:
        raise ValueError("append needs at least one event")
    if not stream_id:
        raise InvalidEvent(0, "the stream id is empty")
    if stream_id.startswith("$"):
        raise InvalidEvent(0, f"stream id {stream_id!r} starts with $, which is kept for $all and its like")
    return [_row(index, event) for index, event in enumerate(events)]


def _row(index: int, event: NewEvent) -> EventRow:
    if not event.event_type:
        raise InvalidEvent(index, "the event type is empty")
    if not isinstance(event.event_id, UUID):
        raise InvalidEvent(index, f"event_id {visible(repr(event.event_id), limit=80)} is not a uuid.UUID")
    data = encode_json(event.data, index=index, name="data")
    metadata = None if event.metadata is None else encode_json(event.metadata, index=index, name="metadata")
    return event.event_type, data, metadata, event.event_id


def reason_of(error: Exception) -> str:
    """Return PostgreSQL's message for a refusal on one line, with its detail."""
    if isinstance(error, UnicodeError) or isinstance(error.__cause__, UnicodeError):
        return "it is not valid Unicode (a lone surrogate)"
    message = (str(error).strip().splitlines() or [type(error).__name__])[0].strip()
    detail = getattr(error, "detail", None)
    return f"{message} ({detail.splitlines()[0].rstrip('.')})" if detail else message
