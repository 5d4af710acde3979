"""What cannot be appended, and why: what an append sends, and what PostgreSQL's refusals mean.

All of it is asked after the refusal, so that an append which is taken pays nothing for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

from esx.store.errors import EventIdsReused, InvalidEvent, StoreFailed
from esx.store.model import encode_json
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esx.store.connection import Session
    from esx.store.layout import Layout
    from esx.store.model import NewEvent

REFUSALS = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)
"""How PostgreSQL, or the driver for it, refuses what it cannot hold."""
HIGHEST = 2**63 - 1


class Refusals:
    """Finds out why one events table did not take an append."""

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
        """Return what an append sends of its events. Raises InvalidEvent for one that is none."""
        if not events:
            raise ValueError("append needs at least one event")
        if not stream_id:
            raise InvalidEvent(0, "the stream id is empty")
        if stream_id.startswith("$"):
            raise InvalidEvent(0, f"stream id {stream_id!r} starts with $, which is kept for $all and its like")
        if len(events) == 1:
            [event] = events
            if not event.event_type:
                raise InvalidEvent(0, "the event type is empty")
            if not isinstance(event.event_id, UUID):
                raise _no_uuid(0, event)
            data = encode_json(event.data, index=0, name="data")
            metadata = None if event.metadata is None else encode_json(event.metadata, index=0, name="metadata")
            if self._has_id:
                return [event.event_type, data, metadata, event.event_id]
            return [event.event_type, data, metadata]
        types: list[str] = []
        datas: list[str] = []
        metadatas: list[str | None] = []
        ids: list[UUID] = []
        for index, event in enumerate(events):
            if not event.event_type:
                raise InvalidEvent(index, "the event type is empty")
            if not isinstance(event.event_id, UUID):
                raise _no_uuid(index, event)
            types.append(event.event_type)
            datas.append(encode_json(event.data, index=index, name="data"))
            metadatas.append(
                None if event.metadata is None else encode_json(event.metadata, index=index, name="metadata")
            )
            ids.append(event.event_id)
        return [types, datas, metadatas, ids]

    async def ids_refused(
        self, connection: Session, stream_id: str, events: Sequence[NewEvent], before: Sequence[NewEvent] = ()
    ) -> InvalidEvent | EventIdsReused | None:
        """Return what is wrong with the event ids of `events`, which were to be stored together with those `before`.

        None if it is nothing, or if the table does not keep event ids unique. It takes a connection that is not inside
        a transaction that has failed.
        """
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

    async def why_refused(
        self, connection: Session, stream_id: str, events: Sequence[NewEvent]
    ) -> InvalidEvent | StoreFailed | None:
        """Return why PostgreSQL did not take the events: one of them, or the stream, which has no room for them.

        None if it is nothing of this. It takes a connection that is not inside a transaction.
        """
        return (
            await self.refusal(connection, stream_id, events)
            or await self._no_room(connection, stream_id, events)
            or await self.refused_by_table(connection, stream_id, events)
        )

    async def _no_room(self, connection: Session, stream_id: str, events: Sequence[NewEvent]) -> StoreFailed | None:
        """Return what to say if the numbers of the events would be higher than the column holds."""
        row = await connection.fetchrow(self._room, stream_id)
        assert row is not None
        version, highest = row
        return full(stream_id, version, highest) if version + len(events) > highest else None

    async def refusal(self, connection: Session, stream_id: str, events: Sequence[NewEvent]) -> InvalidEvent | None:
        """Return what cannot be stored, the first of the batch, and why; None if each event can be by itself.

        It takes a connection that is not inside a transaction.
        """
        try:
            self.arguments(stream_id, events)
        except InvalidEvent as invalid:
            return invalid
        reason = await _refusal(connection, "text", stream_id)
        if reason:
            return InvalidEvent(0, f"stream id: {reason}")
        for index, event in enumerate(events):
            parts = [("text", "type", event.event_type)]
            parts += [
                ("jsonb", name, encode_json(value, index=index, name=name))
                for name, value in (("data", event.data), ("metadata", event.metadata))
                if value is not None
            ]
            for kind, name, text in parts:
                reason = await _refusal(connection, kind, text)
                if reason:
                    return InvalidEvent(index, f"{name}: {reason}")
        return None

    async def refused_by_table(
        self, connection: Session, stream_id: str, events: Sequence[NewEvent]
    ) -> InvalidEvent | None:
        """Return the first event that PostgreSQL can hold but the table does not take, as it is too long for an index.

        Each is inserted by itself and undone, which takes a connection that is not inside a transaction.
        """
        transaction = connection.transaction()
        await transaction.start()
        try:
            # Nobody is to be woken for what will not be there.
            silence = "pg_catalog.set_config('esx.notification', 'off', true)"
            await connection.execute(f"SELECT {', '.join((silence, *self._as_user))}")
            version = await connection.fetchval(self._version, stream_id)
            for index, event in enumerate(events):
                data = encode_json(event.data, index=index, name="data")
                metadata = None if event.metadata is None else encode_json(event.metadata, index=index, name="metadata")
                own_id = [event.event_id] if self._has_id else []
                place = version + 1 + index
                try:
                    async with connection.transaction():
                        await connection.execute(
                            self._insert, stream_id, place, event.event_type, data, metadata, *own_id
                        )
                except REFUSALS as refusal:
                    return InvalidEvent(index, reason_of(refusal))
        except asyncpg.PostgresError:
            # Another reason than what the events are, such as that they are stored by now.
            return None
        finally:
            await transaction.rollback()
        return None


def no_judge(layout: Layout) -> str:
    """Return what to say of a table in which two writers could store an event at one place."""
    return (
        f"table {layout.called} has no unique index on (stream_id, stream_seq) that is valid, so two writers could "
        "both win: `esx doctor` names the remedy"
    )


def no_number_left(error: Exception, layout: Layout) -> StoreFailed | None:
    """Return what to say if the sequence of global_seq has come to its end, None if `error` is another."""
    if not isinstance(error, asyncpg.SequenceGeneratorLimitExceededError):
        return None
    return StoreFailed(
        f"table {layout.called} takes no more events, as its sequence has handed out its last number "
        f"({reason_of(error)}): `esx export` it, and `esx import` that into another database, where numbers begin anew"
    )


def full(stream_id: str, version: int, highest: int) -> StoreFailed:
    """Return what to say of a stream that has no numbers left for an append."""
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


def _no_uuid(index: int, event: NewEvent) -> InvalidEvent:
    return InvalidEvent(index, f"event_id {visible(repr(event.event_id), limit=80)} is not a uuid.UUID")


def reason_of(error: Exception) -> str:
    """Return PostgreSQL's words for a refusal on one line, with the detail that names the culprit."""
    if isinstance(error, UnicodeError) or isinstance(error.__cause__, UnicodeError):
        return "it is not valid Unicode (a lone surrogate)"
    message = (str(error).splitlines() or ["refused"])[0]
    detail = getattr(error, "detail", None)
    return f"{message} ({detail.splitlines()[0].rstrip('.')})" if detail else message
