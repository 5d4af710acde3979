"""The tables of a recording, and its clock.

The table events has all events of the recording, each with the time at which it appeared. A policy shows to the reader
only those that had appeared by the time of the clock, so that each query of each screen sees what it would have seen
then, and a move of the clock changes one row. The reader owns nothing, and the owner is a superuser, whom every user
trusts.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime

import asyncpg

from esx.errors import StoreFailed
from esx.postgres.driver_errors import first_line
from esx.postgres.session import Session
from esx.store.recorded.database import READER

_COLUMNS = (
    *("global_seq", "stream_id", "stream_seq", "event_type", "data", "metadata", "created_at", "event_id"),
    "appeared",
)
# Nothing of it is to survive the server.
_MAKE = """
    CREATE UNLOGGED TABLE public.events (
        global_seq BIGINT NOT NULL, stream_id TEXT COLLATE "C" NOT NULL, stream_seq BIGINT NOT NULL,
        event_type TEXT NOT NULL, data JSONB NOT NULL, metadata JSONB, created_at TIMESTAMPTZ, event_id UUID,
        appeared TIMESTAMPTZ NOT NULL);
    CREATE SCHEMA recorded;
    CREATE UNLOGGED TABLE recorded.clock (
        one BOOLEAN PRIMARY KEY DEFAULT true CHECK (one), at TIMESTAMPTZ NOT NULL, head BIGINT NOT NULL);
    INSERT INTO recorded.clock (at, head) VALUES ('-infinity', 0);
"""
_FINISH = f"""
    SET maintenance_work_mem = '256MB';
    ALTER TABLE public.events ADD PRIMARY KEY (global_seq);
    {{place}};
    CREATE INDEX events_correlation_id_idx ON public.events ((metadata ->> 'correlation_id'), global_seq)
        WHERE (metadata ->> 'correlation_id') IS NOT NULL;
    -- A policy lets an index serve only conditions that tell nothing of hidden rows; here nothing is a secret.
    ALTER FUNCTION pg_catalog.jsonb_object_field_text(jsonb, text) LEAKPROOF;
    ALTER TABLE public.events ENABLE ROW LEVEL SECURITY;
    CREATE POLICY appeared ON public.events FOR SELECT TO {READER} USING (
        global_seq <= (SELECT head FROM recorded.clock) AND appeared <= (SELECT at FROM recorded.clock));
    GRANT USAGE ON SCHEMA recorded TO {READER};
    GRANT SELECT ON recorded.clock, public.events TO {READER};
    ANALYZE public.events;
"""


_PLACES = (
    "ALTER TABLE public.events ADD CONSTRAINT events_stream_id_stream_seq_key UNIQUE (stream_id, stream_seq)",
    # An incident may be just that: two events in one place.
    "CREATE INDEX events_stream_id_stream_seq_idx ON public.events (stream_id, stream_seq)",
)


async def make_tables(session: Session) -> None:
    """Make the tables, without indexes: events are put in first."""
    await session.execute(_MAKE)
    await session.execute("SELECT pg_catalog.set_config('synchronous_commit', 'off', false)")


async def put_in(session: Session, rows: Sequence[bytes]) -> None:
    """Store rows of COPY's text format: the columns of an event, then the time at which it appeared.

    Raises RowRefused.
    """
    source = io.BytesIO(b"\n".join(rows) + b"\n")
    try:
        await session.copy_to_table("events", schema_name="public", source=source, columns=_COLUMNS)
    except (asyncpg.DataError, asyncpg.ProgramLimitExceededError, asyncpg.IntegrityConstraintViolationError) as error:
        raise RowRefused(first_line(error)) from error


class RowRefused(StoreFailed):
    """PostgreSQL takes one of the rows for no event. None of them was stored."""


async def finish_tables(session: Session) -> None:
    """Make the indexes and the policy. Raises RowRefused for two events of one number, or too long an id."""
    unique, plain = (_FINISH.format(place=place) for place in _PLACES)
    try:
        try:
            await session.execute(unique)
        except asyncpg.UniqueViolationError:
            await session.execute(plain)
    except (asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError) as error:
        raise RowRefused(first_line(error)) from error


async def move_clock(session: Session, at: datetime, head: int) -> None:
    """Show from now on what had appeared by a time; `head` is the highest global_seq of that."""
    await session.execute("UPDATE recorded.clock SET at = $1, head = $2", at, head)
