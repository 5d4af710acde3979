"""Deleting what a load test left: all of it, nothing else, and the feed goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esx.errors import WrongVersion
from esx.eventstore import EventStore
from esx.expected import ANY, NO_STREAM
from esx.model import NewEvent, Strategy
from esx.store.bulk.erase import Eraser, Mark, Marked, NotMarked

if TYPE_CHECKING:
    from collections.abc import Callable

    import asyncpg

MARK = Mark("run_id", "r1")


async def load(store: EventStore, run: str, streams: int, events: int) -> None:
    for number in range(streams):
        batch = [NewEvent("LoadTested", {}, {"run_id": run}) for _ in range(events)]
        await store.append(f"load-{run}-{number}", batch, expected=ANY, strategy=Strategy.ROW_LOCK)


async def test_only_the_runs_events_go_and_the_feed_passes_the_gap(store: EventStore, sql: asyncpg.Connection) -> None:
    await store.append("account-1", [NewEvent("Opened", {})])
    await load(store, "r1", 3, 5)
    await load(store, "r10", 2, 2)
    await store.append("account-1", [NewEvent("Closed", {})])

    told: list[int] = []
    assert await store.marked("load-r1-", MARK) == Marked(15, 3)
    assert await store.delete_marked("load-r1-", MARK, told.append, batch=4) == 15
    assert told == [4, 8, 12, 15], "in bounded batches"
    assert await store.marked("load-r1-", MARK) == Marked(0, 0)
    assert await store.count_events("load-r10-") == 4
    locks = [row[0] for row in await sql.fetch("SELECT stream_id FROM stream_locks ORDER BY stream_id")]
    assert locks == ["load-r10-0", "load-r10-1"]
    feed = await store.feed(after=0)
    passed = [event.event_type async for batch in feed.to_safe_position() for event in batch.events]
    assert passed == ["Opened", *["LoadTested"] * 4, "Closed"]


async def test_what_is_appended_behind_the_look_stays_unless_it_is_marked(
    store18: EventStore, sql18: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the events and their deletion others may append to the same streams."""
    await load(store18, "r1", 3, 5)
    look = Eraser.look

    async def looked(self: Eraser, on_progress: Callable[[int], None] | None = None) -> Marked:
        found = await look(self, on_progress)
        for metadata in (None, {"run_id": "r2"}, {"run": "r1"}, "r1", {"run_id": ["r1"]}, {"run_id": "r1"}):
            await store18.append("load-r1-1", [NewEvent("Late", {}, metadata)])
        await store18.append("load-r1", [NewEvent("Late", {}, {"run_id": "r1"})])
        return found

    monkeypatch.setattr(Eraser, "look", looked)
    assert await store18.delete_marked("load-r1-", MARK, batch=4) == 16
    left = await sql18.fetch("SELECT stream_id, stream_seq FROM events ORDER BY global_seq")
    assert [tuple(row) for row in left] == [*(("load-r1-1", seq) for seq in range(5, 10)), ("load-r1", 0)]


async def test_an_event_without_the_mark_keeps_everything(store18: EventStore) -> None:
    await load(store18, "r1", 2, 3)
    await store18.append("load-r1-1", [NewEvent("Precious", {}, {"run_id": "another"})])
    for attempt in (store18.marked, store18.delete_marked):
        with pytest.raises(NotMarked, match="of stream load-r1-1 does not carry run_id r1"):
            await attempt("load-r1-", MARK)
    await store18.append("load-r1-", [NewEvent("Unmarked", {})])
    with pytest.raises(NotMarked):
        await store18.delete_marked("load-r1-", MARK)
    assert await store18.count_events("load-r1-") == 8


async def test_the_conflicts_that_the_run_recorded_go_too_and_no_others(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await load(store18, "r1", 1, 2)
    await load(store18, "r10", 1, 2)
    await store18.append("account-1", [NewEvent("Opened", {})])
    async with EventStore.connect(dsn18, record_conflicts=True) as writer:
        for stream_id in ("load-r1-0", "load-r1-0", "load-r10-0", "account-1"):
            with pytest.raises(WrongVersion):
                await writer.append(stream_id, [NewEvent("Late", {}, {"run_id": "r1"})], expected=NO_STREAM)
    assert await store18.marked("load-r1-", MARK) == Marked(2, 1, 2)
    assert await store18.delete_marked("load-r1-", MARK, batch=1) == 2
    left = [conflict.stream_id for conflict in await store18.newest_conflicts()]
    assert sorted(left) == ["account-1", "load-r10-0"]
    # What an older esx left: conflicts of a run whose events are gone.
    await sql18.execute("DELETE FROM events WHERE stream_id = 'load-r10-0'")
    other = Mark("run_id", "r10")
    assert await store18.marked("load-r10-", other) == Marked(0, 0, 1)
    assert await store18.delete_marked("load-r10-", other) == 0
    assert await store18.marked("load-r10-", other) == Marked(0, 0)


async def test_a_table_conflicts_that_is_not_esxs_is_left_alone(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await load(store18, "r1", 1, 2)
    await sql18.execute("DROP TABLE conflicts; CREATE TABLE conflicts AS SELECT 'load-r1-0' AS stream_id")
    assert await store18.marked("load-r1-", MARK) == Marked(2, 1)
    assert await store18.delete_marked("load-r1-", MARK) == 2
    assert await sql18.fetchval("SELECT count(*) FROM conflicts") == 1
