"""Whose position it is: the same history is known again, another one is not, and what was erased is told apart."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import pytest

from esx import Event, EventStore, HistoryChanged, NewEvent
from esx.layouts.layout import Layout
from esx.store.feed.comparison import Difference, DifferenceKind, compare
from esx.store.feed.history import History, HistoryMark, history_at
from esx.store.feed.server import Server, look, read_server
from tests.support.roles import new_role

if TYPE_CHECKING:
    from collections.abc import Sequence

LAYOUT = Layout()
NAMELESS = Layout(event_id=None)


async def fill(store: EventStore, count: int, stream: str = "s") -> list[Event]:
    """Append events, one append each, and return all that the stream holds."""
    for n in range(count):
        await store.append(stream, [NewEvent("T", {"n": n})])
    return [event async for event in store.read(stream)]


async def known_of(sql: asyncpg.Connection, events: Sequence[Event]) -> History:
    """Return what a reader knows that was handed these events, the first ones of the store."""
    last = events[-1].global_seq
    return History(await read_server(sql, LAYOUT), 0, 0, 0).moved(events, last, len(events))


async def differs(sql: asyncpg.Connection, known: History, layout: Layout = LAYOUT) -> Difference:
    difference = await compare(sql, layout, History.from_json(known.to_json()))
    assert difference is not None
    return difference


@pytest.mark.parametrize("layout", [LAYOUT, NAMELESS], ids=["with ids", "without ids"])
async def test_the_same_history_is_known_again(store: EventStore, sql: asyncpg.Connection, layout: Layout) -> None:
    events = await fill(store, 30)
    if layout is NAMELESS:
        events = [event._replace(event_id=None) for event in events]
    known = await known_of(sql, events)
    assert [mark.global_seq for mark in known.marks] == list(range(15, 31))
    assert (known.low, known.count) == (0, 30)
    assert await compare(sql, layout, known) is None
    assert History.from_json(known.to_json()) == known
    assert await compare(sql, layout, await history_at(sql, layout, 30)) is None
    assert (await history_at(sql, layout, 30)).marks == known.marks
    await fill(store, 5)
    assert await compare(sql, layout, known) is None


async def test_a_truncated_table_is_another_history(store18: EventStore, sql18: asyncpg.Connection) -> None:
    known = await known_of(sql18, await fill(store18, 10))
    await sql18.execute("TRUNCATE events RESTART IDENTITY")
    for count in (0, 3):
        await fill(store18, count)
        difference = await differs(sql18, known)
        assert (difference.kind, difference.head) == (DifferenceKind.CHANGED, count)
        assert "beyond the head" in difference.reason
    await fill(store18, 20)
    difference = await differs(sql18, known)
    assert (difference.kind, difference.missing) == (DifferenceKind.CHANGED, tuple(range(1, 11)))


async def test_a_table_emptied_without_restart_is_told_for_what_it_is(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    known = await known_of(sql18, await fill(store18, 10))
    await sql18.execute("TRUNCATE events")
    difference = await differs(sql18, known)
    assert (difference.kind, difference.head) == (DifferenceKind.ERASED, 10)
    assert "nothing of what was handed out last is there any more" in difference.reason


@pytest.mark.parametrize("layout", [LAYOUT, NAMELESS], ids=["with ids", "without ids"])
async def test_erased_events_are_told_apart(store: EventStore, sql: asyncpg.Connection, layout: Layout) -> None:
    events = await fill(store, 40)
    if layout is NAMELESS:
        events = [event._replace(event_id=None) for event in events]
    known = await known_of(sql, events)
    async with sql.transaction():
        await sql.execute("DELETE FROM events WHERE global_seq IN (30, 32)")
        difference = await differs(sql, known, layout)
        assert (difference.kind, difference.missing) == (DifferenceKind.ERASED, (30, 32))
        assert difference.reason == "events 30, 32 are there no more"
    await sql.execute("DELETE FROM events WHERE global_seq = 40")
    difference = await differs(sql, known, layout)
    assert (difference.kind, difference.missing) == (DifferenceKind.ERASED, (30, 32, 40))
    error = difference.error(40, projection="p")
    assert (error.position, error.head, error.erased) == (40, 40, (30, 32, 40))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


async def test_the_last_event_alone_may_have_gone_in_a_crash(store18: EventStore, sql18: asyncpg.Connection) -> None:
    known = await known_of(sql18, await fill(store18, 10))
    await sql18.execute("DELETE FROM events WHERE global_seq >= 9")
    difference = await differs(sql18, known)
    assert (difference.kind, difference.missing) == (DifferenceKind.ERASED, (9, 10))
    assert difference.reason == "events 9, 10 are there no more, erased or lost in a crash"


async def test_a_lost_event_far_back_shows_in_the_count(store18: EventStore, sql18: asyncpg.Connection) -> None:
    known = await known_of(sql18, await fill(store18, 40))
    await sql18.execute("DELETE FROM events WHERE global_seq = 3")
    difference = await differs(sql18, known)
    assert (difference.kind, difference.missing) == (DifferenceKind.ERASED, ())
    assert difference.reason == "1 of the 40 events between 1 and 40 are gone"
    moved = known.on(known.server._replace(timeline=0))
    difference = await differs(sql18, moved)
    assert difference.kind is DifferenceKind.CHANGED
    assert "promoted" in difference.reason


async def test_on_another_server_all_must_be_there(store18: EventStore, sql18: asyncpg.Connection) -> None:
    events = await fill(store18, 20)
    here = await read_server(sql18, LAYOUT)
    assert here.system is not None
    for server in (Server(here.system ^ 1, 1), Server(None, None), Server(here.system, None), Server(here.system, 7)):
        known = (await known_of(sql18, events)).on(server)
        assert await compare(sql18, LAYOUT, known) is None
        await sql18.execute("BEGIN; DELETE FROM events WHERE global_seq = 12")
        assert (await differs(sql18, known)).kind is DifferenceKind.CHANGED
        await sql18.execute("ROLLBACK")


async def test_an_event_that_was_missed_is_no_other_history(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await sql18.execute("SELECT nextval('events_global_seq_seq')")
    known = await known_of(sql18, await fill(store18, 5))
    await sql18.execute(
        "INSERT INTO events (global_seq, stream_id, stream_seq, event_type, data) VALUES (1, 'l', 0, 'T', '1')"
    )
    assert await compare(sql18, LAYOUT, known) is None


async def test_a_position_from_elsewhere(store18: EventStore, sql18: asyncpg.Connection) -> None:
    """What a reader knows is that of an earlier position, or of a later one than it was set back to."""
    events = await fill(store18, 20)
    known = await known_of(sql18, events[:10])
    assert await compare(sql18, LAYOUT, known, 15) is None
    difference = await compare(sql18, LAYOUT, known, 100)
    assert difference is not None
    assert (difference.kind, difference.head) == (DifferenceKind.CHANGED, 20)
    await sql18.execute("DELETE FROM events WHERE global_seq = 8")
    assert await compare(sql18, LAYOUT, known, 7) is None
    assert await compare(sql18, LAYOUT, known, 8) is not None


async def test_what_esx_noted_as_erased_is_not_missed(store18: EventStore, sql18: asyncpg.Connection) -> None:
    known = await known_of(sql18, await fill(store18, 40))
    await sql18.execute(
        "INSERT INTO erased_events (first, last, numbers) VALUES (3, 32, '{[3,4), [30,33)}');"
        "DELETE FROM events WHERE global_seq IN (3, 30, 31, 32)"
    )
    assert await compare(sql18, LAYOUT, known) is None
    await sql18.execute("DELETE FROM events WHERE global_seq = 4")
    assert (await differs(sql18, known)).reason == "1 of the 40 events between 1 and 40 are gone"
    await sql18.execute("DELETE FROM events WHERE global_seq = 33")
    assert (await differs(sql18, known)).missing == (33,)


async def test_who_may_not_ask_does_not_harm_the_transaction_and_is_told_so(dsn18: str, store18: EventStore) -> None:
    events = await fill(store18, 20)
    async with new_role(dsn18) as role:
        admin = await asyncpg.connect(dsn18)
        asked = ("pg_control_system()", "pg_current_wal_lsn()")
        await admin.execute(f"GRANT SELECT ON events TO {role.name}")
        known = await known_of(admin, events)
        for function in asked:
            await admin.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
        try:
            guest = await asyncpg.connect(role.dsn(dsn18))
            async with guest.transaction():
                assert await read_server(guest, LAYOUT) == Server(None, None)
                assert await compare(guest, LAYOUT, known) is None
            # What follows the last visible number is not known to one who may not ask the sequence.
            await admin.execute("DELETE FROM events WHERE global_seq = 20")
            difference = await differs(guest, known)
            assert (difference.kind, difference.head) == (DifferenceKind.CHANGED, 19)
            await guest.close()
        finally:
            for function in asked:
                await admin.execute(f"GRANT EXECUTE ON FUNCTION {function} TO PUBLIC")
            await admin.close()


async def test_dead_numbers_before_the_position_are_no_change(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await fill(store18, 3)
    await sql18.execute("SELECT nextval('events_global_seq_seq') FROM generate_series(1, 4)")
    events = await fill(store18, 3)
    known = await known_of(sql18, events)
    assert (known.position, known.count) == (10, 6)
    assert await compare(sql18, LAYOUT, known) is None


def event(number: int) -> Event:
    return Event(number, "s", number, "T", "{}", None, None, UUID(int=number))


def test_the_window_moves_and_what_is_kept_stays_small() -> None:
    known = History(Server(2**62, 3), 0, 0, 0)
    for first in range(1, 30_001, 500):
        known = known.moved([event(n) for n in range(first, first + 500)], first + 499, 500)
        # Of dense numbers exactly all are counted, wherever the window begins.
        assert known.count == known.position - known.low <= 10_000
        assert known.position < 10_000 or known.position - known.low >= 4_500
    assert len(known.to_json()) < 2_000
    beyond = 2**63 - 1
    leapt = known.moved([event(n) for n in (31_000, beyond - 1, beyond)], beyond, 3)
    assert (leapt.position - leapt.low, leapt.count) == (10_000, 2)
    assert len(leapt.moved([event(beyond)] * 16, beyond, 16).to_json()) < 2_000
    # A filter lets few through: what else was passed is counted too.
    filtered = History(Server(None, None), 0, 0, 0).moved([event(7)], 100, 60)
    assert (filtered.count, filtered.marks) == (60, (HistoryMark(7, str(UUID(int=7))),))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "7", "{}", '{"position": 1}'),
        '{"system": 1, "timeline": 1, "position": "1", "low": 0, "count": 0, "marks": []}',
        '{"system": 1, "timeline": 1, "position": 1, "low": 2, "count": 0, "marks": []}',
        '{"system": 1, "timeline": 1, "position": 9223372036854775808, "low": 0, "count": 0, "marks": []}',
        '{"system": 1, "timeline": 1, "position": 1, "low": 0, "count": 0, "marks": [[1]]}',
        '{"system": 1, "timeline": 1, "position": 1, "low": 0, "count": 0, "marks": [[1, 2]]}',
        "[" * 100_000,
    ],
)
def test_what_is_no_history_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no history"):
        History.from_json(text)


def test_keys_of_later_versions_are_passed_over() -> None:
    text = '{"system": null, "timeline": 1, "position": 5, "low": 0, "count": 5, "marks": [[5, "x"]], "later": {}}'
    assert History.from_json(text) == History(Server(None, 1), 5, 0, 5, (HistoryMark(5, "x"),))


def test_the_error_says_where_and_what_to_do() -> None:
    error = HistoryChanged(100, 6, "numbers will be used again")
    assert str(error) == (
        "the reader is at 100, the store's head at 6: numbers will be used again; begin again from the start, or from "
        "a position of this store"
    )


async def test_the_timeline_is_told_on_a_primary(sql: asyncpg.Connection) -> None:
    here = await look(sql, LAYOUT)
    assert (here.server.timeline, here.recovering) == (1, False)
    assert here.server.system == await sql.fetchval("SELECT system_identifier FROM pg_control_system()")
