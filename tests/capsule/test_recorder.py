"""What is recorded: the events of a slice, and the feed, consumers and figures as they were."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from esx import EventStore, NewEvent
from esx.capsule.format import CONSUMERS, DOCTOR, EVENTS, FEED, HEALTH, TABLES, CapsuleBounds, FeedMoment
from esx.capsule.reading import Capsule
from esx.capsule.recorder import CapsuleRecorder, EventTooLarge, RecordOptions
from esx.filters import Filter
from tests.support.connections import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import asyncpg

APPEND = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ($1, $2, 'T', '{}') RETURNING global_seq"


async def recorded(store: EventStore, path: Path, options: RecordOptions | None = None) -> Capsule:
    """Record a slice that is there, and open what was made: it is whole."""
    with path.open("wb") as file:
        await CapsuleRecorder(store, options or RecordOptions()).run(file)
    capsule = Capsule(path)
    assert capsule.verify() == []
    return capsule


def lines_of(capsule: Capsule) -> bytes:
    return b"".join(capsule.pieces(EVENTS))


def moments_of(capsule: Capsule) -> list[FeedMoment]:
    return list(capsule.records(FEED))


async def exported(store: EventStore, **options: Any) -> bytes:
    return b"".join([piece async for piece in await store.export(**options)])


class Following:
    """A recording that follows, until `ended`."""

    def __init__(self, recorder: CapsuleRecorder, seen: asyncio.Condition) -> None:
        self._recorder = recorder
        self._seen = seen
        self.events = 0
        self.running: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def until(self, events: int) -> None:
        """Wait until so many events have been recorded."""
        async with self._seen, asyncio.timeout(60):
            await self._seen.wait_for(lambda: self.events >= events)

    async def ended(self) -> None:
        """Wait until the recording has ended."""
        await asyncio.wait([self.running])

    async def begun(self) -> None:
        """Wait until the recording has begun."""
        async with asyncio.timeout(60):
            while not self._recorder.begun:
                await asyncio.sleep(0.02)

    async def beyond(self, gap: int) -> None:
        """Wait until the recorder has looked at what is visible beyond a gap."""
        async with asyncio.timeout(60):
            while not any(first > gap for first, _ in self._recorder.beyond):
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def following(
    store: EventStore, path: Path, options: RecordOptions | None = None
) -> AsyncIterator[tuple[Following, Callable[[], Capsule]]]:
    """Record from the first event on until the block ends; the second value opens what was made, afterwards."""
    seen = asyncio.Condition()

    def tell(events: int, _share: float | None) -> None:
        followed.events = events
        tasks.append(asyncio.ensure_future(_notify(seen)))

    tasks: list[asyncio.Future[None]] = []
    recorder = CapsuleRecorder(store, options or RecordOptions(follow=300.0), on_progress=tell)
    followed = Following(recorder, seen)
    with path.open("wb") as file:
        followed.running = running = asyncio.ensure_future(recorder.run(file))
        try:
            yield followed, lambda: Capsule(path)
        finally:
            recorder.stop()
            await running
            await asyncio.gather(*tasks)


async def _notify(seen: asyncio.Condition) -> None:
    async with seen:
        seen.notify_all()


async def test_the_events_of_a_slice_are_those_of_an_export(store: EventStore, tmp_path: Path) -> None:
    for number in range(30):
        await store.append(f"s-{number % 3}", [NewEvent("T", {"n": number, "x": 1.10}), NewEvent("U", 'é"\\')])
    with await recorded(store, tmp_path / "x.esx") as capsule:
        assert lines_of(capsule) == await exported(store)
        info = capsule.info
        assert (info.events, info.first, info.last, info.until, info.after) == (60, 1, 60, 60, 0)
        assert (info.followed, info.filter, info.since) == (False, None, None)
        assert info.begun <= info.ended
        assert info.server.split(".")[0] in ("16", "18")
        [health] = capsule.records(HEALTH)
        assert (health.health.head, health.health.database) == (60, info.database)
        assert [each.consumers for each in capsule.records(CONSUMERS)] == [()]
        assert [len(each.findings) > 5 for each in capsule.records(DOCTOR)] == [True]
        [shape] = capsule.records(TABLES)
        assert "global_seq bigint NOT NULL" in shape.columns[0]
        assert len(shape.columns) == 8
        assert any("UNIQUE" in each for each in shape.constraints)
        assert any("events_doorbell" in each for each in shape.triggers)


async def test_a_slice_by_stream_number_and_time(store18: EventStore, tmp_path: Path) -> None:
    for number in range(6):
        await store18.append(f"{'ab'[number % 2]}-1", [NewEvent("T", {"n": number})])
    with await recorded(store18, tmp_path / "a.esx", RecordOptions(start=2, stream="a-*")) as capsule:
        assert lines_of(capsule) == await exported(store18, after=2, where=Filter(stream="a-*"))
        assert (capsule.info.filter, capsule.info.after, capsule.info.events) == ("a-*", 2, 2)
    times = [event.created_at async for event in store18.read_all()]
    middle = times[3]
    assert middle is not None
    with await recorded(store18, tmp_path / "b.esx", RecordOptions(start=middle)) as capsule:
        assert (capsule.info.since, capsule.info.first) == (middle, 4)
    with await recorded(store18, tmp_path / "c.esx", RecordOptions(until=middle)) as capsule:
        assert capsule.info.last == 3
    future = datetime.now(UTC) + timedelta(days=1)
    with await recorded(store18, tmp_path / "d.esx", RecordOptions(start=future)) as capsule:
        assert (capsule.info.events, capsule.info.first, lines_of(capsule)) == (0, None, b"")


async def test_events_that_wait_for_a_gap_are_recorded_with_what_holds_it(
    dsn: str, store: EventStore, tmp_path: Path
) -> None:
    await store.append("s", [NewEvent("T")])
    async with connected(dsn) as writer:
        transaction = writer.transaction()
        await transaction.start()
        held = await writer.fetchval(APPEND, "held", 0)
        await store.append("s", [NewEvent("T"), NewEvent("T")])
        with await recorded(store, tmp_path / "x.esx") as capsule:
            pid = writer.get_server_pid()
            moment = moments_of(capsule)[-1]
            assert moment.gap is not None
            assert (moment.gap.first, moment.gap.last) == (held, held)
            assert [each.pid for each in moment.gap.writers] == [pid]
            assert (moment.counts.position, capsule.info.until) == (held - 1, held - 1)
            assert moments_of(capsule)[0].visible == ((held + 1, held + 2),)
            assert (capsule.info.events, capsule.info.last) == (3, held + 2)
        await transaction.rollback()


async def test_numbers_that_were_not_looked_at_are_not_called_visible(
    dsn18: str, store18: EventStore, tmp_path: Path
) -> None:
    """A look ahead goes over ten thousand visible numbers."""
    async with connected(dsn18) as writer, writer.transaction():
        held = await writer.fetchval(APPEND, "held", 0)
        async with connected(dsn18) as other:
            await other.execute(
                "INSERT INTO events (stream_id, stream_seq, event_type, data) "
                "SELECT 's', n, 'T', '{}' FROM generate_series(0, 10099) n"
            )
        with await recorded(store18, tmp_path / "x.esx") as capsule:
            assert moments_of(capsule)[0].visible == ((held + 1, held + 10_000),)
            assert capsule.info.events == 10_100


async def test_what_happens_while_it_follows(dsn: str, store: EventStore, tmp_path: Path) -> None:
    await store.append("s", [NewEvent("T")])
    async with (
        connected(dsn) as writer,
        connected(dsn) as aborted,
        following(store, tmp_path / "x.esx") as (followed, capsule_of),
    ):
        pid = writer.get_server_pid()
        await followed.until(1)
        undone = aborted.transaction()
        await undone.start()
        dead = await aborted.fetchval(APPEND, "dead", 0)
        transaction = writer.transaction()
        await transaction.start()
        held = await writer.fetchval(APPEND, "held", 0)
        await undone.rollback()
        await store.append("s", [NewEvent("T"), NewEvent("T")])
        await followed.beyond(held)
        await transaction.commit()
        await followed.until(4)
    with capsule_of() as capsule:
        assert capsule.verify() == []
        assert [event.global_seq for few in capsule.events() for event, _ in few] == [1, held, held + 1, held + 2]
        moments = moments_of(capsule)
        waiting = [each for each in moments if each.gap is not None and each.visible]
        assert waiting[0].visible == ((held + 1, held + 2),)
        assert pid in {each.pid for each in waiting[0].gap.writers}  # type: ignore[union-attr]
        assert set().union(*(each.late for each in moments)) == {held}
        last = moments[-1]
        assert (last.counts.position, last.counts.late, last.counts.dead) == (held + 2, 1, 1)
        assert last.gap is None
        assert dead == held - 1
        assert capsule.info.followed
        assert sorted(each.at for each in moments) == [each.at for each in moments]


async def test_only_what_comes_from_now_on(store18: EventStore, tmp_path: Path) -> None:
    await store18.append("s", [NewEvent("T")])
    options = RecordOptions(start=None, follow=300.0, stream="s*")
    async with following(store18, tmp_path / "x.esx", options) as (followed, capsule_of):
        await followed.begun()
        await store18.append("other", [NewEvent("T")])
        await store18.append("s", [NewEvent("T")])
        await followed.until(1)
    with capsule_of() as capsule:
        assert capsule.verify() == []
        assert [event.global_seq for few in capsule.events() for event, _ in few] == [3]
        # The number that the filter left out was looked at: it is no gap, and not dead.
        assert moments_of(capsule)[-1].counts.dead == 0
        assert capsule.info.since == capsule.info.begun


async def test_consumers_are_noted_as_they_move(store18: EventStore, sql18: asyncpg.Connection, tmp_path: Path) -> None:
    await sql18.execute("CREATE TABLE seen (global_seq bigint)")

    async def handle(connection: asyncpg.Connection, event: Any) -> None:
        await connection.execute("INSERT INTO seen VALUES ($1)", event.global_seq)

    await store18.append("s", [NewEvent("T")])
    projecting = asyncio.ensure_future(store18.project("balances", handle))
    try:
        async with asyncio.timeout(60):
            while not await sql18.fetchval("SELECT count(*) FROM seen"):
                await asyncio.sleep(0.02)
        async with following(store18, tmp_path / "x.esx") as (followed, capsule_of):
            await followed.begun()
            await store18.append("s", [NewEvent("T"), NewEvent("T")])
            async with asyncio.timeout(60):
                while await sql18.fetchval("SELECT count(*) FROM seen") < 3:
                    await asyncio.sleep(0.02)
            await followed.until(3)
    finally:
        projecting.cancel()
        await asyncio.gather(projecting, return_exceptions=True)
    with capsule_of() as capsule:
        positions = [each.consumers[0].position for each in capsule.records(CONSUMERS)]
        assert positions[0] == 1
        assert positions[-1] == 3


async def test_a_user_who_may_only_read_events_can_record(
    dsn18: str, store18: EventStore, role: Any, tmp_path: Path
) -> None:
    await store18.append("s", [NewEvent("T")])
    async with connected(dsn18) as connection:
        await connection.execute(f"GRANT SELECT ON events TO {role.name}")
    async with EventStore.connect(role.dsn(dsn18), read_only=True) as theirs:
        with await recorded(theirs, tmp_path / "x.esx") as capsule:
            assert capsule.info.events == 1
            [consumers] = capsule.records(CONSUMERS)
            assert consumers.problem is not None
            assert "consumers" in consumers.problem


async def test_a_feed_that_ends_leaves_what_was_recorded(
    store18: EventStore, sql18: asyncpg.Connection, tmp_path: Path
) -> None:
    store18.feed_settings = replace(store18.feed_settings, look_every=0.05, poll=0.05)
    await store18.append("s", [NewEvent("T"), NewEvent("T")])
    async with following(store18, tmp_path / "x.esx") as (followed, capsule_of):
        await followed.until(2)
        await followed.begun()
        await sql18.execute("TRUNCATE events RESTART IDENTITY")
        await store18.append("s", [NewEvent("T")])
        async with asyncio.timeout(60):
            await followed.ended()
    with capsule_of() as capsule:
        assert capsule.verify() == []
        assert capsule.info.events == 2
        assert any("the feed ended before the recording" in note for note in capsule.info.notes)


async def test_one_that_is_ended_while_it_reads_what_is_there_keeps_that(store18: EventStore, tmp_path: Path) -> None:
    for _ in range(4):
        await store18.append("s", [NewEvent("T", {"x": "y" * 10_000}) for _ in range(500)])
    recorder = CapsuleRecorder(store18, RecordOptions(follow=300.0))
    recorder.stop()
    with (tmp_path / "x.esx").open("wb") as file:
        done = await recorder.run(file)
    assert 0 < done.info.events < 2000
    assert "ended early" in done.info.notes[-1]
    with Capsule(tmp_path / "x.esx") as capsule:
        assert capsule.verify() == []


@pytest.mark.slow
async def test_a_recording_takes_no_more_than_a_capsule_holds(store18: EventStore, tmp_path: Path) -> None:
    from esx.capsule import recorder as module

    await store18.append("s", [NewEvent("T", {"x": "y" * 10_000}) for _ in range(600)])
    bounds = replace(CapsuleBounds(), events=module._ROOM + 500_000)
    with (tmp_path / "x.esx").open("wb") as file:
        done = await CapsuleRecorder(store18, RecordOptions(), bounds=bounds).run(file)
    assert done.full
    assert 0 < done.info.events < 600
    assert done.info.until == done.info.last == done.info.events
    assert "a capsule holds no more" in done.info.notes[-1]


async def test_a_recording_ends_before_what_was_seen_is_more_than_is_read(store18: EventStore, tmp_path: Path) -> None:
    from esx.capsule import recorder as module

    await store18.append("s", [NewEvent("T")])
    bounds = replace(CapsuleBounds(), member=module._ROOM + 1500)
    with (tmp_path / "x.esx").open("wb") as file:
        async with asyncio.timeout(60):
            recorder = CapsuleRecorder(store18, RecordOptions(follow=300.0), bounds=bounds)
            done = await recorder.run(file)
    assert done.full
    assert done.info.notes == ("it was ended early: a capsule holds no more of doctor.ndjson",)
    with Capsule(tmp_path / "x.esx") as capsule:
        assert capsule.verify() == []


async def test_an_event_that_no_capsule_holds_is_named(store18: EventStore, tmp_path: Path) -> None:
    await store18.append("s", [NewEvent("T"), NewEvent("T", {"x": "y" * 10_000})])
    with (tmp_path / "x.esx").open("wb") as file, pytest.raises(EventTooLarge, match=r"^event 2 has 10,\d+ bytes"):
        await CapsuleRecorder(store18, RecordOptions(), bounds=replace(CapsuleBounds(), line=10_000)).run(file)
