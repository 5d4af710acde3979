"""Ids and types of events in a type that is none of PostgreSQL's own, and does not tell capitals from small letters.

It is made of SQL, as citext need not be installed where the tests run, and has what citext has.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from esx import ANY, NO_STREAM, EventStore, NewEvent, WrongVersion
from esx.filters import Filter
from esx.layouts.operators import CustomColumn, rewriter
from esx.postgres.session import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esx import Event

_TYPE = """
    CREATE SCHEMA ext;
    CREATE TYPE ext.folded;
    CREATE FUNCTION ext.folded_in(cstring) RETURNS ext.folded AS 'textin' LANGUAGE internal IMMUTABLE STRICT;
    CREATE FUNCTION ext.folded_out(ext.folded) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT;
    CREATE TYPE ext.folded (INPUT = ext.folded_in, OUTPUT = ext.folded_out, LIKE = text, CATEGORY = 'S',
                            COLLATABLE = true);
    CREATE CAST (ext.folded AS text) WITHOUT FUNCTION AS IMPLICIT;
    CREATE CAST (text AS ext.folded) WITHOUT FUNCTION AS ASSIGNMENT;
    CREATE FUNCTION ext.folded_cmp(ext.folded, ext.folded) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS
        $$ SELECT bttextcmp(lower($1::text) COLLATE "C", lower($2::text) COLLATE "C") $$;
"""
_OPERATORS = {"lt": "<", "le": "<=", "eq": "=", "ge": ">=", "gt": ">"}
_CLASS = "CREATE OPERATOR CLASS ext.folded_ops DEFAULT FOR TYPE ext.folded USING btree AS "


@pytest_asyncio.fixture
async def address(dsn18: str, sql18: asyncpg.Connection) -> AsyncIterator[str]:
    await sql18.execute(_TYPE)
    for name, operator in _OPERATORS.items():
        await sql18.execute(
            f"CREATE FUNCTION ext.f_{name}(ext.folded, ext.folded) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS "
            f"$$ SELECT ext.folded_cmp($1, $2) {operator} 0 $$;"
            f"CREATE OPERATOR ext.{operator} (FUNCTION = ext.f_{name}, LEFTARG = ext.folded, RIGHTARG = ext.folded)"
        )
    strategies = ", ".join(
        f"OPERATOR {number} ext.{operator}" for number, operator in enumerate(_OPERATORS.values(), 1)
    )
    await sql18.execute(f"{_CLASS} {strategies}, FUNCTION 1 ext.folded_cmp(ext.folded, ext.folded)")
    await sql18.execute(
        "ALTER TABLE events ALTER stream_id TYPE ext.folded, ALTER event_type TYPE ext.folded;"
        "INSERT INTO events (stream_id, stream_seq, event_type, data) SELECT "
        "CASE WHEN n % 2 = 0 THEN 'Order-' ELSE 'ORDER-' END || n % 3, n / 3, "
        "CASE WHEN n % 2 = 0 THEN 'Placed' ELSE 'placed' END, '{}' FROM generate_series(0, 11) n"
    )
    yield dsn18


async def test_a_stream_is_found_however_it_is_written(address: str) -> None:
    async with EventStore.connect(address, read_only=True) as store:
        for name in ("Order-1", "order-1", "ORDER-1"):
            assert [event.stream_seq async for event in store.read(name)] == [0, 1, 2, 3]
            assert await store.version(name) == 3
            assert (await store.summary(name)) is not None
            previous = await store.previous_event(name, 3, event_type="PLACED")
            assert previous is not None
            assert previous.stream_seq == 2


async def test_lists_have_each_stream_once_and_in_order(address: str) -> None:
    async with EventStore.connect(address, read_only=True) as store:
        forwards = [stream.stream_id.lower() async for stream in store.streams()]
        assert forwards == ["order-0", "order-1", "order-2"]
        recent = [stream.stream_id.lower() async for stream in store.streams(recent=True)]
        assert sorted(recent) == forwards
        page = await store.streams_page(limit=2)
        assert page.next_after is not None
        more = await store.streams_page(after=page.next_after, limit=2)
        assert [each.stream_id.lower() for each in (*page.streams, *more.streams)] == forwards
        backwards = await store.streams_page(backwards=True, limit=10)
        assert [each.stream_id.lower() for each in backwards.streams] == forwards[::-1]
        assert (await store.count_streams()).text == "3"
        # As a load test checks what is stored: page by page, by stream and number.
        found = [each async for part in store.stored_ids("") for each in part]
        assert len(found) == 12
        pages = [part async for part in store.stored_ids("", page=5)]
        assert [each for part in pages for each in part] == found


async def test_filters_feeds_and_searches_go_by_it(address: str) -> None:
    where = Filter(stream="order-1", event_type="PLACED")
    async with EventStore.connect(address, read_only=True) as store:
        feed = await store.feed(where=where)
        delivered: list[Event] = []
        async for batch in feed.to_safe_position():
            delivered += batch.events
        assert len(delivered) == 4
        plan = await store.plan_search(Filter(event_type="PLACED"))
        assert sum([len(part.events) async for part in store.search(plan)]) == 12
        lines = b"".join([piece async for piece in await store.export(where=where)]).splitlines()
        assert len(lines) == 4
        assert (await store.health()).head == 12
        assert {finding.check for finding in await store.doctor(full=True) if finding.severity.wrong} <= {
            "fsync",
            "columns",
        }


async def test_appends_go_by_it(address: str) -> None:
    async with EventStore.connect(address) as store:
        with pytest.raises(WrongVersion) as conflict:
            await store.append("order-1", [NewEvent("T")], expected=NO_STREAM)
        assert conflict.value.actual == 3
        assert (await store.append("order-1", [NewEvent("T")], expected=3)).version == 4
        assert (await store.append("oRDER-1", [NewEvent("T"), NewEvent("T")], expected=ANY)).version == 6
        same = [NewEvent("T")]
        for _ in range(2):
            assert (await store.append("Again", same, expected=NO_STREAM)).version == 0
        await store.import_ndjson([b'{"stream_id": "ORDER-2", "event_type": "T", "data": {}, "stream_seq": 4}\n'])
        assert await store.version("order-2") == 4


@pytest.mark.slow
async def test_no_comparison_is_left_to_the_search_path(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    for name in ("fetch", "fetchrow", "fetchval"):
        method = getattr(asyncpg.Connection, name)

        async def spying(self: Session, query: str, *arguments: Any, method: Any = method, **how: Any) -> Any:
            sent.append(query)
            return await method(self, query, *arguments, **how)

        monkeypatch.setattr(asyncpg.Connection, name, spying)
    await test_a_stream_is_found_however_it_is_written(address)
    await test_lists_have_each_stream_once_and_in_order(address)
    await test_filters_feeds_and_searches_go_by_it(address)
    bare = re.compile(r"\b(?:stream_id|event_type)\b,?[^(]{0,3}(?:<>|<=|>=|=|<|>)(?!\))")
    assert not [query for query in sent if "public.events" in query and bare.search(query)]
    assert any("OPERATOR(ext.=)" in query for query in sent)


def test_what_is_rewritten() -> None:
    rewrite = rewriter(
        [CustomColumn("stream_id", "ext.t", tuple(f"ext.{each}" for each in ("<", "<=", "=", ">=", ">")))]
    )
    assert rewrite is not None
    for query, expected in {
        "WHERE e.stream_id = $1 AND x": "WHERE e.stream_id OPERATOR(ext.=) $1::ext.t AND x",
        "WHERE stream_id <> $2::text)": "WHERE NOT (stream_id OPERATOR(ext.=) $2::ext.t))",
        "s.stream_id > ids.stream_id ORDER": "s.stream_id OPERATOR(ext.>) ids.stream_id::ext.t ORDER",
        "(e.stream_id, e.stream_seq) >= ($2, $3) AND": (
            "(e.stream_id OPERATOR(ext.>) $2::ext.t OR e.stream_id OPERATOR(ext.=) $2::ext.t "
            "AND (e.stream_seq) >= ($3)) AND"
        ),
        "starts_with(e.stream_id, $1)": "starts_with(e.stream_id, $1)",
    }.items():
        assert rewrite(query) == expected
        assert rewrite(expected) == expected
    assert rewriter([]) is None
