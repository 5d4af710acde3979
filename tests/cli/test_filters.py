"""The language of filters in commands: read, tail, export and streams choose the same by it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from esx.filter_language import filter_text, parse_filter
from esx.store.bulk.copy import ImportedEvent
from esx.store.views import EventsView, FeedView
from tests.cli.support import esx, ndjson, one_line_error

if TYPE_CHECKING:
    import asyncpg

    from esx import EventStore

START = datetime(2026, 8, 7, tzinfo=UTC)


async def fill(store: EventStore) -> None:
    """Twenty events, half an hour apart, of two categories; the last is half an hour old."""
    start = datetime.now(UTC) - timedelta(hours=10)
    await store.import_events(
        ImportedEvent(
            f"{'orders' if n % 2 else 'Carts'}-1",
            n // 2,
            "OrderPlaced" if n % 2 else "CartOpened",
            f'{{"total": {n}, "city": "{"Ulm" if n % 4 else "Bonn"}"}}',
            f'{{"user": "{"Ann" if n > 9 else "bob"}", "correlation_id": "c-{n // 5}"}}',
            start + timedelta(minutes=30 * n),
            uuid4(),
        )
        for n in range(20)
    )


@pytest.mark.slow
async def test_the_same_filter_in_read_tail_and_export(dsn18: str, store18: EventStore) -> None:
    await fill(store18)

    def numbers(*arguments: str) -> list[int]:
        done = esx(*arguments, "-d", dsn18)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return [event["global_seq"] for event in ndjson(done.stdout)]

    for text, expected in (
        ("orders-*", [n + 1 for n in range(1, 20, 2)]),
        ("carts-* $.total < 6", [1, 3, 5]),
        ("type:orderplaced $.total > 14 user:ann", [16, 18, 20]),
        ("type:Orderplaced $.total > 14", []),
        ("corr:c-1", [6, 7, 8, 9, 10]),
        ("corr:c-1 $.city == Bonn", [9]),
        ("$.city ~ b* $.total > 10", [13, 17]),
        ("since:-62m", [19, 20]),
        ("where:'$.total > 17 || $.total < 1'", [1, 19, 20]),
    ):
        assert numbers("read", "$all", text, "--json") == expected if expected else True, text
        assert numbers("export", text) == expected
        begin = [] if "since" in text else ["--from", "start"]
        if expected:
            assert numbers("tail", text, *begin, "--no-follow", "--json") == expected
    assert numbers("read", "orders-1", "$.total", ">", "16", "--json") == [18, 20]
    assert numbers("tail", "since:-5h until:-4h", "--no-follow", "--json") == [12, 13]
    assert numbers("read", "$all", "type:Order*", "--where", "$.total > 16", "--json") == [18, 20]
    streams = esx("streams", "orders-*", "--json", "-d", dsn18)
    assert [stream["stream_id"] for stream in ndjson(streams.stdout)] == ["orders-1"]


async def test_a_correlation_id_is_found_by_its_index(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await store18.import_events(
        ImportedEvent("s-1", n, "T", "{}", f'{{"correlation_id": "c-{n}"}}', START + timedelta(seconds=n), uuid4())
        for n in range(3000)
    )
    await sql18.execute("ANALYZE events")
    plan = await store18.plan_search(parse_filter("corr:c-77"))
    assert plan.index == "events_correlation_id_idx"
    assert plan.reads < 100
    part = await store18.search_slice(plan)
    assert [event.stream_seq for event in part.events] == [77]


async def test_what_cannot_be_chosen_is_said_in_one_line(dsn18: str, store18: EventStore) -> None:
    await fill(store18)
    for arguments, reason in (
        (["read", "$all", "typ:X"], "did you mean type:?"),
        (["read", "orders-1", "stream:carts-*"], "chooses among all streams"),
        (["read", "$all", "type:X", "--type", "Y"], "give one of them"),
        (["tail", "since:-1h", "--from", "3"], "give one of them"),
        (["tail", "until:-1h"], "add --no-follow"),
        (["streams", "type:X"], "streams are chosen by their ids"),
        (["streams", "a-*", "--match", "b-*"], "give one of them"),
        (["export", "$.a >"], "needs a value"),
    ):
        assert reason in one_line_error(esx(*arguments, "-d", dsn18), 2)
    for arguments in (["read", "$all", "type:OrderPlacd"], ["tail", "--no-follow", "--from=start", "type:orderplacd"]):
        assert "did you mean OrderPlaced?" in esx(*arguments, "-d", dsn18).stderr


async def test_what_a_screen_shows_is_printed_by_its_command(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await fill(store18)
    chosen = parse_filter("type:orderplaced $.total > 14 user:ann")
    view = EventsView(where=chosen)
    rows = b"".join([piece async for piece in view.rows(store18)]).decode()
    assert rows.count("\n") == 3
    assert esx(*view.arguments(["--json", "-d", dsn18])).stdout == rows
    feed = FeedView(where=parse_filter("orders-* type:orderplaced $.total > 14"))
    assert filter_text(feed.where) in feed.arguments([])
    assert len(await sql18.fetch(await store18.sql(view))) == 3
