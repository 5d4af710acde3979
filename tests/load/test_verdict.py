"""The judge over what a run left in the store: it passes what is right, and fails whatever is not."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest

from esx.eventstore import EventStore
from esx.load.ledger import EventIds, Ledger, fingerprint
from esx.load.verdict import Delivery, conclude, examine
from esx.model import NewEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from esx.store.read.pages import StoredId

_RUN = "x"


class Written:
    """Three streams of three appends of two events each, as writers would have made them, and a way to spoil them."""

    def __init__(self, store: EventStore, sql: asyncpg.Connection) -> None:
        self.store = store
        self.sql = sql
        self.ledger = Ledger()
        self.ids = EventIds()

    async def append(self, stream: int, events: int = 2) -> list[UUID]:
        ids = [self.ids.next() for _ in range(events)]
        done = await self.store.append(f"load-{_RUN}-{stream}", [NewEvent("T", {}, None, each) for each in ids])
        self.ledger.stored(stream, done.version, ids)
        return ids

    async def fill(self) -> None:
        for stream in (0, 1, 2) * 3:
            await self.append(stream)
        await self.store.append("load-xy-0", [NewEvent("T")])  # another run's

    async def verdict(self) -> tuple[str, str]:
        self.ledger.issued = {self.ids.base: self.ids.issued}
        found = conclude(await examine(self.store, _RUN, self.ledger))
        return str(found), "; ".join(found.evidence)

    async def insert(self, stream: int, version: int, event_id: UUID) -> None:
        await self.sql.execute(
            "INSERT INTO events (stream_id, stream_seq, event_type, data, event_id) VALUES ($1, $2, 'T', '{}', $3)",
            f"load-{_RUN}-{stream}",
            version,
            event_id,
        )


@asynccontextmanager
async def written(dsn: str) -> AsyncIterator[Written]:
    connection = await asyncpg.connect(dsn)
    async with EventStore.connect(dsn) as store:
        made = Written(store, connection)
        await made.fill()
        yield made
    await connection.close()


@pytest.mark.slow
async def test_what_was_acknowledged_and_nothing_else_passes(dsn: str) -> None:
    async with written(dsn) as made:
        assert await made.verdict() == (
            "pass",
            "18 events acknowledged, 18 stored: every acknowledged event exactly once, and no other; "
            "versions are contiguous from 0 in all 3 streams",
        )
        # The same ledger after its way from two workers.
        halves = (Ledger(), Ledger())
        for stream, record in made.ledger.streams.items():
            halves[stream % 2].streams[stream] = record
        merged = Ledger()
        for half in halves:
            merged.add(Ledger.from_wire(half.to_wire()))
        made.ledger = merged
        assert (await made.verdict())[0] == "pass"

        nothing = conclude(await examine(made.store, "none", Ledger()))
        assert not nothing.passed
        assert "nothing could be appended, so nothing was tested" in nothing.evidence[0]


@pytest.mark.parametrize(
    ("statement", "evidence"),
    [
        ("DELETE FROM events WHERE stream_id = 'load-x-1' AND stream_seq = 5", "17 stored: 1 lost: load-x-1"),
        ("DELETE FROM events WHERE stream_id = 'load-x-1' AND stream_seq = 2", "versions are missing in 1 stream"),
        ("DELETE FROM events WHERE stream_id = 'load-x-1' AND stream_seq = 0", "versions are missing in 1 stream"),
        ("DELETE FROM events WHERE stream_id = 'load-x-1'", "12 stored: 6 lost: load-x-1"),
        (
            "UPDATE events SET event_id = gen_random_uuid() WHERE stream_id = 'load-x-1' AND stream_seq = 3",
            "1 stream with other events than acknowledged: load-x-1",
        ),
        (
            "UPDATE events SET stream_seq = 6 - stream_seq WHERE stream_id = 'load-x-1' AND stream_seq IN (2, 4)",
            "1 stream with other events than acknowledged: load-x-1",
        ),
        (
            "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('load-x-2', 6, 'T', '{}')",
            "19 stored: 1 too many (1 that no writer of the run made): load-x-2",
        ),
        (
            "INSERT INTO events (stream_id, stream_seq, event_type, data, event_id) SELECT 'load-x-2', 6, 'T', '{}', "
            "event_id FROM events WHERE stream_id = 'load-x-2' AND stream_seq = 5",
            "19 stored: 1 too many (1 a second time): load-x-2",
        ),
        (
            "INSERT INTO events (stream_id, stream_seq, event_type, data, event_id) SELECT stream_id, stream_seq, 'T', "
            "'{}', event_id FROM events WHERE stream_id = 'load-x-2' AND stream_seq = 5",
            "a version is stored twice in 1 stream: load-x-2",
        ),
    ],
)
async def test_what_was_lost_moved_or_stored_twice_fails(dsn18: str, statement: str, evidence: str) -> None:
    async with written(dsn18) as made:
        await made.sql.execute("ALTER TABLE events DROP CONSTRAINT events_stream_id_stream_seq_key")
        await made.sql.execute(statement)
        said, why = await made.verdict()
        assert said == "fail"
        assert evidence in why


async def test_a_loser_that_was_stored_fails(dsn18: str) -> None:
    async with written(dsn18) as made:
        await made.insert(0, 6, made.ids.next())  # its writer was told of a conflict
        said, why = await made.verdict()
        assert said == "fail"
        assert "19 stored: 1 too many (1 of appends that were refused): load-x-0" in why


async def test_unknown_outcomes_are_resolved_by_event_id(dsn18: str) -> None:
    async with written(dsn18) as made:
        stored, lost = [made.ids.next(), made.ids.next()], [made.ids.next()]
        made.ledger.lost_sight(0, stored)
        made.ledger.lost_sight(7, lost)
        await made.insert(0, 6, stored[0])
        said, why = await made.verdict()
        assert said == "fail", "an append is stored as a whole"
        assert "of 2 appends of unknown outcome 1 had been stored, 1 of them in part" in why
        await made.insert(0, 7, stored[0])
        said, why = await made.verdict()
        assert said == "fail", "one event twice does not make up for the other"
        assert "1 of them in part, twice" in why
        await made.sql.execute("DELETE FROM events WHERE stream_id = 'load-x-0' AND stream_seq = 7")
        await made.insert(7, 0, stored[1])
        assert (await made.verdict())[0] == "fail", "an event belongs to its own stream"
        await made.sql.execute("DELETE FROM events WHERE stream_id = 'load-x-7'")
        await made.insert(0, 7, stored[1])
        assert await made.verdict() == (
            "pass",
            "18 events acknowledged, 20 stored: every acknowledged event exactly once, and no other; "
            "versions are contiguous from 0 in all 3 streams; "
            "of 2 appends of unknown outcome 1 had been stored, the others not, by their event ids",
        )


async def test_the_feed_is_judged_too(dsn18: str) -> None:
    async with written(dsn18) as made:
        found = await examine(made.store, _RUN, made.ledger)
        marks = [fingerprint(each.stream_seq, each.event_id.int) async for each in events(made.store) if each.event_id]
        total = sum(marks) % 2**128
        right = Delivery(18, 0, 0, total, True)
        assert conclude(found, [right, right]).passed
        for wrong, why in (
            (Delivery(17, 0, 0, total - marks[0], True), "1 got other events than are stored"),
            (Delivery(18, 0, 0, total + 1, True), "1 got other events than are stored"),
            (Delivery(19, 1, 0, total, True), "1 got events again"),
            (Delivery(18, 0, 2, total, True), "1 got events out of order"),
            (Delivery(9, 0, 0, 5, False), "1 did not come to the end"),
        ):
            verdict = conclude(found, [right, wrong])
            assert not verdict.passed
            assert why in verdict.evidence[-1]


async def events(store: EventStore) -> AsyncIterator[StoredId]:
    async for page in store.stored_ids(f"load-{_RUN}-", page=4):
        for each in page:
            yield each


def test_a_stranger_is_told_from_what_was_issued() -> None:
    ids = EventIds()
    ledger = Ledger()
    known = [ids.next() for _ in range(3)]
    ledger.issued = {ids.base: ids.issued}
    assert all(ledger.was_issued(each.int) for each in known)
    assert not ledger.was_issued(ids.next().int)
    assert not ledger.was_issued(ids.base)
    assert not ledger.was_issued(uuid4().int)


async def test_a_locked_stream_is_decided_on_by_one_at_a_time(dsn: str) -> None:
    async with EventStore.connect(dsn, max_connections=8) as store:

        async def turn(number: int) -> None:
            async with store.lock_stream("s-1") as stream:
                await stream.append([NewEvent("T", {"by": number, "at": stream.version})])

        await asyncio.gather(*(turn(number) for number in range(20)))
        stored = [event async for event in store.read("s-1")]
        assert [event.data["at"] for event in stored] == list(range(-1, 19))

        with pytest.raises(ZeroDivisionError):
            async with store.lock_stream("s-1") as stream:
                await stream.append([NewEvent("T")])
                raise ZeroDivisionError
        assert await store.version("s-1") == 19, "an error takes the append back"
