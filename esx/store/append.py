"""Appending with an expected version.

The check and the insert are one statement. Under READ COMMITTED two writers can both pass the check; the second
then waits on the unique index and gets a unique violation. So a wrong version has two faces, a statement that
inserted nothing and a violation of that one constraint, and both become `WrongVersion`.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import asyncpg

from esx.store.errors import InvalidEvent, WrongVersion
from esx.store.model import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    AppendResult,
    check_expected,
    encode_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from esx.store.layout import Layout
    from esx.store.model import ExpectedVersion, NewEvent

# $1 stream, $2 the lowest and $3 the highest version that is acceptable; the new events follow the actual one.
_HEAD = """
WITH stream AS (
    SELECT coalesce(max(stream_seq), -1) AS version FROM {table} WHERE stream_id = $1
), appended AS (
    INSERT INTO {table} (stream_id, stream_seq, event_type, data, metadata{event_id_column})
"""
_ONE = (
    _HEAD
    + """
    SELECT $1, stream.version + 1, $4, $5::jsonb, $6::jsonb{event_id_one}
    FROM stream WHERE stream.version BETWEEN $2 AND $3
    RETURNING global_seq
)
SELECT (SELECT version FROM stream), (SELECT global_seq FROM appended)
"""
)
# ORDER BY keeps global_seq in step with stream_seq: the sequence is drawn from after the sort.
_MANY = (
    _HEAD
    + """
    SELECT $1, stream.version + new.ord, new.event_type, new.data, new.metadata{event_id_many}
    FROM stream, unnest($4::text[], $5::jsonb[], $6::jsonb[], $7::uuid[])
         WITH ORDINALITY AS new (event_type, data, metadata, event_id, ord)
    WHERE stream.version BETWEEN $2 AND $3
    ORDER BY new.ord
    RETURNING global_seq
)
SELECT (SELECT version FROM stream), (SELECT max(global_seq) FROM appended)
"""
)
_ANY_VERSION = (-1, 2**62)
_ANY_RETRIES = 1000
_PAUSE = 0.002


class Appender:
    """Appends to one events table. Stateless but for its statements: share it between connections."""

    def __init__(self, layout: Layout) -> None:
        self._constraint = layout.unique_constraint
        self._table = layout.table
        has_id = layout.event_id is not None
        names = {
            "table": layout.table,
            "event_id_column": f", {layout.event_id}" if has_id else "",
            "event_id_one": ", $7::uuid" if has_id else "",
            "event_id_many": ", new.event_id" if has_id else "",
        }
        self._has_id = has_id
        self._one = _ONE.format(**names)
        self._many = _MANY.format(**names)

    async def append(
        self,
        connection: asyncpg.Connection,
        stream_id: str,
        events: Sequence[NewEvent],
        expected: ExpectedVersion,
    ) -> AppendResult:
        """Append `events` to the stream, all or none, in one statement.

        With ANY and STREAM_EXISTS a writer that lost the race tries again, since any version suits it; that
        needs a connection that is not inside a transaction. Raises WrongVersion and InvalidEvent.
        """
        lowest, highest = _range(expected)
        arguments = self._arguments(stream_id, events)
        statement = self._one if len(events) == 1 else self._many
        retries = _ANY_RETRIES if expected in (ANY, STREAM_EXISTS) else 0
        while True:
            try:
                row = await connection.fetchrow(statement, stream_id, lowest, highest, *arguments)
            except asyncpg.UniqueViolationError as error:
                if error.constraint_name != self._constraint:
                    raise
                if retries:
                    retries -= 1
                    await asyncio.sleep(random.uniform(0, _PAUSE))  # noqa: S311 - jitter, not a secret
                    continue
                raise WrongVersion(stream_id, expected, await self._version(connection, stream_id)) from None
            except (asyncpg.DataError, asyncpg.ProgramLimitExceededError, ValueError) as error:
                raise await self._explain(connection, stream_id, events, error) from error
            assert row is not None
            version, global_seq = row
            if global_seq is None:
                raise WrongVersion(stream_id, expected, version)
            return AppendResult(stream_id, version + len(events), global_seq)

    def _arguments(self, stream_id: str, events: Sequence[NewEvent]) -> list[object]:
        if not events:
            raise ValueError("append needs at least one event")
        if not stream_id:
            raise InvalidEvent(0, "the stream id is empty")
        if stream_id.startswith("$"):
            raise InvalidEvent(0, f"stream id {stream_id!r} starts with $, which is kept for $all and its like")
        types: list[str] = []
        datas: list[str] = []
        metadatas: list[str | None] = []
        ids: list[UUID] = []
        for index, event in enumerate(events):
            if not event.event_type:
                raise InvalidEvent(index, "the event type is empty")
            types.append(event.event_type)
            datas.append(encode_json(event.data, index=index, name="data"))
            metadatas.append(
                None if event.metadata is None else encode_json(event.metadata, index=index, name="metadata")
            )
            ids.append(event.event_id)
        if len(events) == 1:
            return [types[0], datas[0], metadatas[0], *(ids if self._has_id else ())]
        return [types, datas, metadatas, ids]

    async def _version(self, connection: asyncpg.Connection, stream_id: str) -> int:
        version = await connection.fetchval(
            f"SELECT coalesce(max(stream_seq), -1) FROM {self._table} WHERE stream_id = $1", stream_id
        )
        return int(version)

    async def _explain(
        self, connection: asyncpg.Connection, stream_id: str, events: Sequence[NewEvent], error: Exception
    ) -> Exception:
        """Return InvalidEvent for what PostgreSQL refuses by itself, the first of the batch, else `error`."""
        if connection.is_in_transaction():
            return InvalidEvent(0, _reason(error)) if len(events) == 1 else error
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
        return error


async def _refusal(connection: asyncpg.Connection, kind: str, text: str) -> str | None:
    """Return why PostgreSQL cannot hold `text` as `kind`, None if it can."""
    try:
        await connection.fetchval(f"SELECT $1::{kind} IS NULL", text)
    except (asyncpg.DataError, asyncpg.ProgramLimitExceededError, ValueError) as refusal:
        return _reason(refusal)
    return None


def _range(expected: ExpectedVersion) -> tuple[int, int]:
    check_expected(expected)
    if expected is ANY:
        return _ANY_VERSION
    if expected is NO_STREAM:
        return (-1, -1)
    if expected is STREAM_EXISTS:
        return (0, _ANY_VERSION[1])
    assert isinstance(expected, int)
    return (expected, expected)


def _reason(error: Exception) -> str:
    """Return PostgreSQL's words for a refusal on one line, with the detail that names the culprit."""
    if isinstance(error, UnicodeError) or isinstance(error.__cause__, UnicodeError):
        return "it is not valid Unicode (a lone surrogate)"
    message = (str(error).splitlines() or ["refused"])[0]
    detail = getattr(error, "detail", None)
    return f"{message} ({detail.splitlines()[0].rstrip('.')})" if detail else message
