"""The fence: remembered for who comes later, believed only of the history that it was found out about."""

from __future__ import annotations

import asyncio

import asyncpg

from esx import EventStore
from esx.layouts.layout import Layout
from esx.store.feed.fence import advance_fence, read_fence
from esx.store.feed.history import History, history_at
from esx.store.feed.server import Server
from tests.store.feed.test_history import fill
from tests.support.roles import new_role

LAYOUT = Layout()


async def test_it_only_moves_forwards(store: EventStore, sql: asyncpg.Connection) -> None:
    assert await read_fence(sql, LAYOUT) == 0
    await fill(store, 10)
    for position, moved in ((5, True), (5, False), (3, False), (9, True)):
        assert await advance_fence(sql, LAYOUT, await history_at(sql, LAYOUT, position)) is moved
    assert await read_fence(sql, LAYOUT) == 9
    await fill(store, 10)
    assert await read_fence(sql, LAYOUT) == 9


async def test_of_two_at_once_one_is_first_and_none_waits(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await fill(store18, 10)
    histories = [await history_at(sql18, LAYOUT, position) for position in range(1, 11)]
    others = [await asyncpg.connect(dsn18) for _ in histories]
    done = await asyncio.gather(
        *(advance_fence(other, LAYOUT, history) for other, history in zip(others, histories, strict=True))
    )
    assert any(done)
    assert await read_fence(sql18, LAYOUT) in {n + 1 for n in range(10) if done[n]}
    async with sql18.transaction(), asyncio.timeout(120):
        await sql18.execute("SELECT FROM feed_fence FOR UPDATE")
        await sql18.execute("UPDATE feed_fence SET advanced_at = now()")
        later = await fill(store18, 5)
        assert not await advance_fence(others[0], LAYOUT, await history_at(others[0], LAYOUT, later[-1].global_seq))
    for other in others:
        await other.close()


async def test_nothing_is_proven_of_another_history(store: EventStore, sql: asyncpg.Connection) -> None:
    for breaking in (
        "TRUNCATE events",
        "TRUNCATE events RESTART IDENTITY",
        "DELETE FROM events WHERE global_seq = 2",
        "DELETE FROM events WHERE global_seq = 10",
        "UPDATE events SET event_id = gen_random_uuid() WHERE global_seq = 8",
        "UPDATE feed_fence SET position = 11",
        "UPDATE feed_fence SET history = history - 'marks'",
        """UPDATE feed_fence SET history = history || '{"timeline": 2}'""",
        """UPDATE feed_fence SET history = history || '{"timeline": null}'""",
        """UPDATE feed_fence SET history = history || '{"system": 1}'""",
        "DROP TABLE feed_fence",
    ):
        await sql.execute("TRUNCATE events RESTART IDENTITY; TRUNCATE feed_fence")
        await fill(store, 20)
        assert await advance_fence(sql, LAYOUT, await history_at(sql, LAYOUT, 19)), breaking
        assert await advance_fence(sql, LAYOUT, await history_at(sql, LAYOUT, 20)), breaking
        await sql.execute(breaking)
        assert await read_fence(sql, LAYOUT) == 0, breaking
        there = "DROP" not in breaking
        await fill(store, 3, "after")
        newest = await sql.fetchval("SELECT max(global_seq) FROM events")
        assert await advance_fence(sql, LAYOUT, await history_at(sql, LAYOUT, newest)) is there, breaking
        assert await read_fence(sql, LAYOUT) == (newest if there else 0), breaking


async def test_what_names_no_history_is_not_written(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await fill(store18, 10)
    known = await history_at(sql18, LAYOUT, 10)
    for unsure in (
        known.on(Server(None, None)),
        known.on(Server(known.server.system, None)),
        known.on(Server(known.server.system, 2)),
        History(known.server, 10, 0, 0),
    ):
        assert not await advance_fence(sql18, LAYOUT, unsure), unsure
        assert await read_fence(sql18, LAYOUT) == 0, unsure


async def test_who_may_not_write_does_not_and_who_may_not_read_knows_nothing(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await fill(store18, 10)
    known = await history_at(sql18, LAYOUT, 10)
    async with new_role(dsn18) as role:
        await role.grant("SELECT ON events")
        guest = await asyncpg.connect(role.dsn(dsn18))
        async with guest.transaction():
            assert not await advance_fence(guest, LAYOUT, known)
            assert await read_fence(guest, LAYOUT) == 0
        await role.grant("SELECT ON feed_fence")
        assert not await advance_fence(guest, LAYOUT, known)
        assert await advance_fence(sql18, LAYOUT, known)
        assert await read_fence(guest, LAYOUT) == 10
        await guest.close()
    await fill(store18, 1)
    async with sql18.transaction(readonly=True):
        assert not await advance_fence(sql18, LAYOUT, await history_at(sql18, LAYOUT, 11))
        assert await read_fence(sql18, LAYOUT) == 10


async def test_who_makes_the_row_just_now_is_not_waited_for(
    dsn: str, store: EventStore, sql: asyncpg.Connection
) -> None:
    await fill(store, 1)
    history = await history_at(sql, LAYOUT, 1)
    other = await asyncpg.connect(dsn)
    async with asyncio.timeout(120), sql.transaction():
        assert await advance_fence(sql, LAYOUT, history)
        assert not await advance_fence(other, LAYOUT, history)
    await other.close()
