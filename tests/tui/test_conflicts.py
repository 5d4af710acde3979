"""What the screen Health shows of conflicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esx.config import Config
from esx.tui.dialogs.conflicts import ConflictsDialog
from tests.tui.helpers import explorer, fill, lines_of, text_of, until
from tests.tui.pictures import COMMUTES, fill_conflicts

if TYPE_CHECKING:
    import asyncpg

    from esx.eventstore import EventStore

pytestmark = pytest.mark.slow


async def test_pairs_of_types_that_collide(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    await fill_conflicts(dsn18)
    async with explorer(dsn18, size=(80, 24), config=Config(commutes=COMMUTES)) as (app, pilot):
        await pilot.press("4")
        await until(pilot, lambda: "Conflicts" in lines_of(app)[-1])
        for size in ((80, 24), (200, 55)):
            await pilot.resize_terminal(*size)
            await pilot.press("C")
            await until(pilot, lambda: "conflicts · 61 from" in text_of(app) and "31% commute" in text_of(app))
            await until(pilot, lambda: "AccountDebited lost to AccountDebited" in text_of(app))
            await until(pilot, lambda: "5 on accounts-1000" in text_of(app))
            await pilot.press("j")
            await until(pilot, lambda: "AccountDebited lost to MoneyDeposited" in text_of(app))
            await until(pilot, lambda: "11 of 11 by your rules" in text_of(app))
            assert all(len(line) == size[0] for line in lines_of(app))
            assert "load tests count too, none is among these" in text_of(app)
            assert (await store18.conflicts()).recorded == 61
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, ConflictsDialog))


async def test_hostile_names_and_no_table(dsn18: str, store18: EventStore, sql18: asyncpg.Connection) -> None:
    await fill(store18, 1, 1)
    await sql18.execute(
        "INSERT INTO conflicts (stream_id, expected, actual, lost_types, won_types) "
        "VALUES (E's[b]\\x1b[2J', 0, 1, ARRAY[E'T[/red]\\x1b'], ARRAY[repeat('w', 5000)]), ('s', 0, -1, '{}', '{}')"
    )
    async with explorer(dsn18, size=(100, 30)) as (app, pilot):
        await pilot.press("4")
        await until(pilot, lambda: "Conflicts" in lines_of(app)[-1])
        await pilot.press("C")
        await until(pilot, lambda: "conflicts · 2 from" in text_of(app) and "nothing" in text_of(app))
        await pilot.press("end")
        await pilot.press("home")
        await until(pilot, lambda: "1 on s" in text_of(app))
        assert "\x1b" not in text_of(app)
        await sql18.execute("DROP TABLE conflicts")
        await pilot.press("r")
        await until(pilot, lambda: "there is no table conflicts: `esx init` adds it" in text_of(app))


async def test_nothing_recorded(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    async with explorer(dsn18, size=(100, 30)) as (app, pilot):
        await pilot.press("4")
        await until(pilot, lambda: "Conflicts" in lines_of(app)[-1])
        await pilot.press("C")
        await until(pilot, lambda: "no conflict is recorded" in text_of(app))


async def test_it_says_how_many_are_of_load_tests(dsn18: str, store18: EventStore, sql18: asyncpg.Connection) -> None:
    await fill(store18, 1, 1)
    await sql18.execute(
        "INSERT INTO conflicts (stream_id, expected, actual, lost_types, won_types, stands_for) "
        "VALUES ('load-r1-0', 0, 1, '{T}', '{T}', 3), ('s', 0, 1, '{T}', '{T}', 1)"
    )
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):
        await pilot.press("4")
        await until(pilot, lambda: "Conflicts" in lines_of(app)[-1])
        await pilot.press("C")
        await until(pilot, lambda: "load tests count too: ~3 of ~4 are on streams load-*" in text_of(app))
