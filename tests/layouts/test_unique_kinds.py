"""The kinds of unique index there are: which of them decide between two writers, and what others that refuse mean."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx import ANY, NO_STREAM, STREAM_EXISTS, EventStore, NewEvent, StoreFailed, Strategy, StreamAppend, WrongVersion
from esx.layouts.layout import Layout
from esx.layouts.unique_index import find_arbiter
from tests.layouts.test_unique_index import DROP, KEY, opened, race, stored
from tests.support.partitions import COLUMNS, make

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_TABLE = "CREATE UNIQUE INDEX {name} ON events (stream_id, stream_seq){rest}"
_ADDED = f"{DROP}; ALTER TABLE events ADD CONSTRAINT places UNIQUE {{}}"

DECIDES = {
    "nulls alike": _ADDED.format("NULLS NOT DISTINCT (stream_id, stream_seq)"),
    "nulls alike, an index": f"{DROP}; " + _TABLE.format(name="places", rest=" NULLS NOT DISTINCT"),
    "including": _ADDED.format("(stream_id, stream_seq) INCLUDE (event_type, global_seq)"),
    "including, an index": f"{DROP}; " + _TABLE.format(name="places", rest=" INCLUDE (event_type)"),
    "nulls alike and including": _ADDED.format("NULLS NOT DISTINCT (stream_id, stream_seq) INCLUDE (data)"),
    "deferrable": _ADDED.format("(stream_id, stream_seq) DEFERRABLE"),
    "deferred": _ADDED.format("(stream_id, stream_seq) DEFERRABLE INITIALLY DEFERRED"),
    "deferred, nulls alike, including, the other way round": _ADDED.format(
        "NULLS NOT DISTINCT (stream_seq, stream_id) INCLUDE (event_type) DEFERRABLE INITIALLY DEFERRED"
    ),
    "primary": f"{DROP}; ALTER TABLE events DROP CONSTRAINT events_pkey; "
    "ALTER TABLE events ADD CONSTRAINT places PRIMARY KEY (stream_id, stream_seq) INCLUDE (event_id)",
    "another that is partial beside it": f"{DROP}; "
    + _TABLE.format(name="part", rest=" WHERE event_type = 'T'")
    + f"; ALTER TABLE events ADD CONSTRAINT {KEY} UNIQUE (stream_id, stream_seq)",
    "another with more columns beside it": f"{DROP}; CREATE UNIQUE INDEX more ON events "
    "(stream_seq, event_type, stream_id) NULLS NOT DISTINCT; "
    f"ALTER TABLE events ADD CONSTRAINT {KEY} UNIQUE (stream_id, stream_seq)",
}
"""Several of these first find the conflict by an index that is not the one that decides."""


@pytest.mark.parametrize("change", DECIDES.values(), ids=DECIDES.keys())
async def test_one_of_two_writers_wins_by_any_of_them(change: str, dsn: str, sql: asyncpg.Connection) -> None:
    async with opened(dsn, sql, change) as (_, store):
        appends: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: store.append("warm", [NewEvent("T")], expected=2),
            lambda: store.append("warm", [NewEvent("T"), NewEvent("T")], expected=2),
            lambda: store.append("warm", [NewEvent("T")], expected=2, strategy=Strategy.ROW_LOCK),
            lambda: store.append_to_streams(
                [StreamAppend("cold", [NewEvent("T")]), StreamAppend("warm", [NewEvent("T")], expected=2)]
            ),
        )
        for append in appends:
            lost = await race(store, sql, append)
            assert isinstance(lost, WrongVersion), lost
            assert (lost.actual, lost.expected) == (3, 2)
            await sql.execute("DELETE FROM events WHERE stream_id = 'warm' AND stream_seq = 3")
        assert await stored(sql, "cold") == 0
        # One that any version suits comes after who has won.
        for expected in (ANY, STREAM_EXISTS):
            won = await race(store, sql, partial(store.append, "warm", [NewEvent("T")], expected=expected))
            assert getattr(won, "version", won) == 4
            await sql.execute("DELETE FROM events WHERE stream_id = 'warm' AND stream_seq > 2")
        done = await asyncio.gather(
            *(store.append("new", [NewEvent("T")], expected=NO_STREAM) for _ in range(10)), return_exceptions=True
        )
        assert sorted(type(each).__name__ for each in done) == ["AppendResult"] + 9 * ["WrongVersion"]


async def test_a_partition_may_defer_as_well(empty_dsn: str) -> None:
    await make(
        empty_dsn,
        f"CREATE TABLE events ({COLUMNS}, UNIQUE NULLS NOT DISTINCT (stream_id, stream_seq) INCLUDE (event_type) "
        "DEFERRABLE INITIALLY DEFERRED) PARTITION BY HASH (stream_id);"
        "CREATE TABLE one PARTITION OF events FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    )
    connection = await asyncpg.connect(empty_dsn)
    async with opened(empty_dsn, connection) as (_, store):
        lost = await race(store, connection, lambda: store.append("warm", [NewEvent("T")], expected=2))
        assert isinstance(lost, WrongVersion)
        assert (await store.append("warm", [NewEvent("T")])).version == 4
    await connection.close()


DECIDES_NOTHING = {
    "partial": _TABLE.format(name=KEY, rest=" WHERE stream_seq >= 0"),
    "partial, nulls alike, including": _TABLE.format(
        name=KEY, rest=" INCLUDE (event_type) NULLS NOT DISTINCT WHERE event_type IS NOT NULL"
    ),
    "one of them only included": f"CREATE UNIQUE INDEX {KEY} ON events (stream_id) INCLUDE (stream_seq)",
    "one more key": f"CREATE UNIQUE INDEX {KEY} ON events (stream_id, stream_seq, metadata) NULLS NOT DISTINCT",
    "an exclusion": f"ALTER TABLE events ADD CONSTRAINT {KEY} EXCLUDE (stream_id WITH =, stream_seq WITH =)",
}


@pytest.mark.parametrize("made", DECIDES_NOTHING.values(), ids=DECIDES_NOTHING.keys())
async def test_what_does_not_span_all_events_is_no_arbiter(made: str, dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute(f"{DROP}; {made}")
    assert await find_arbiter(sql, Layout()) is None
    async with EventStore.connect(dsn) as store:
        for count in (1, 2):
            with pytest.raises(StoreFailed, match=r"no unique index on \(stream_id, stream_seq\).*esx doctor"):
                await store.append("s", [NewEvent("T") for _ in range(count)], expected=NO_STREAM)
        [finding] = [each for each in await store.doctor() if each.check == "unique-stream-seq"]
        assert finding.severity.wrong
    assert await stored(sql, "s") == 0


OTHERS = {
    "once a stream": "CREATE UNIQUE INDEX once ON events (stream_id) WHERE event_type = 'Once'",
    "once a stream, by a constraint": "ALTER TABLE events ADD CONSTRAINT once UNIQUE (stream_id, event_type)",
    "once a stream, deferred": (
        "ALTER TABLE events ADD CONSTRAINT once UNIQUE (stream_id, event_type) DEFERRABLE INITIALLY DEFERRED"
    ),
    "no metadata but once": (
        "CREATE UNIQUE INDEX once ON events (stream_id, metadata) NULLS NOT DISTINCT WHERE event_type = 'Once'"
    ),
    "with the places included": (
        "CREATE UNIQUE INDEX once ON events (stream_id, event_type) INCLUDE (stream_seq) WHERE event_type = 'Once'"
    ),
    "by an exclusion": (
        "ALTER TABLE events ADD CONSTRAINT once EXCLUDE (stream_id WITH =) WHERE (event_type = 'Once')"
    ),
}


@pytest.mark.parametrize("made", OTHERS.values(), ids=OTHERS.keys())
async def test_what_another_index_refuses_is_no_lost_race(made: str, dsn: str, sql: asyncpg.Connection) -> None:
    """Nobody has written to the stream: to say so, or to try again, would be wrong."""
    await sql.execute(made)
    async with EventStore.connect(dsn) as store:
        await store.append("s", [NewEvent("Once")])
        for again in ([NewEvent("Once")], [NewEvent("Other"), NewEvent("Once")]):
            for expected in (0, ANY):
                async with asyncio.timeout(120):
                    with pytest.raises(StoreFailed, match='"once"') as refused:
                        await store.append("s", again, expected=expected)
                assert "\n" not in str(refused.value)
        with pytest.raises(StoreFailed, match='"once"'):
            await store.append_to_streams([StreamAppend("s", [NewEvent("Once")])])
        assert (await store.append("s", [NewEvent("Other")], expected=0)).version == 1
