"""Stepping through a projection on a screen: rows before and after, breakpoints, back; nothing of it stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest
from textual.events import Paste

from esx import NewEvent
from esx.tui.dialogs.fields import Fields
from esx.tui.screens.step import StepScreen
from esx.tui.tuning import Tuning
from tests.store.operate.test_rebuild import MODEL, project
from tests.tui.helpers import explorer, lines_of, text_of, until

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from esx.eventstore import EventStore
    from esx.model import Event
    from esx.tui.app import Explorer

pytestmark = pytest.mark.slow

_QUICK = Tuning(read_health=0.1)
_HANDLER = "tests.store.operate.test_rebuild:book"


async def stumbles(connection: asyncpg.Connection, event: Event) -> None:
    await connection.execute("INSERT INTO balances VALUES ($1, 1)", f"{event.global_seq}\x1b[2J[b]x")
    if event.global_seq == 2:
        raise ValueError("no \x1b[2J [b]such")


async def filled(store: EventStore, dsn: str) -> None:
    """Leave a projection behind at its third event."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(MODEL)
    await connection.close()
    for stream, amount in [("account-1", 50), ("account-1", 60), ("account-2", 500)]:
        await store.append(stream, [NewEvent("Deposited", {"amount": amount})])
    await project(store, 3)


async def begin(app: Explorer, pilot: Pilot[None], handler: str, tables: str = "balances, movements") -> None:
    """Open the screen by its keys; the names are pasted, in place of those from before."""
    await pilot.press("5")
    await until(pilot, lambda: "consumers · 1" in text_of(app))
    await pilot.press("enter")
    await until(pilot, lambda: "step through its events" in text_of(app))
    await pilot.press("up", "enter")  # the last of the list
    await until(pilot, lambda: isinstance(app.screen, Fields))
    for text, key in ((handler, "tab"), (tables, "enter")):
        await pilot.press("home", "ctrl+k")
        app.post_message(Paste(text))
        await pilot.press(key)


async def leave(app: Explorer, pilot: Pilot[None]) -> None:
    await pilot.press("escape")
    await until(pilot, lambda: not isinstance(app.screen, StepScreen))


def shown(app: Explorer) -> str:
    return " ".join(text_of(app).split())


async def test_each_step_shows_its_rows_and_is_taken_back(dsn18: str, store18: EventStore) -> None:
    await filled(store18, dsn18)
    async with explorer(dsn18, size=(80, 24), tuning=_QUICK) as (app, pilot):
        await begin(app, pilot, _HANDLER)
        await until(pilot, lambda: "at 0 of 3" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: "public.balances: new row" in text_of(app))
        await pilot.press("enter")
        for size in ((80, 24), (200, 55)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda: "$.balance 50 → 110" in shown(app), "for the second event")
            assert "at 2 of 3" in text_of(app)
            await until(pilot, lambda size=size: all(len(line) == size[0] for line in lines_of(app)))  # type: ignore[misc]
        await pilot.press("B")
        await until(pilot, lambda: "at 1 of 3" in text_of(app) and "50 → 110" not in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: "$.balance 50 → 110" in shown(app))
        await pilot.press("up")
        await until(pilot, lambda: "public.balances: new row" in text_of(app), "for the first event again")
        await leave(app, pilot)
    connection = await asyncpg.connect(dsn18)
    assert await connection.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'esx_step%'") == 0
    assert await connection.fetchval("SELECT balance FROM balances WHERE account = 'account-1'") == 110
    await connection.close()


async def test_it_goes_on_to_a_breakpoint_and_says_what_fails(dsn18: str, store18: EventStore) -> None:
    await filled(store18, dsn18)
    async with explorer(dsn18, size=(100, 30), tuning=_QUICK) as (app, pilot):
        for handler, tables, said in (
            ("nowhere:book", "balances", "there is no module nowhere"),
            (_HANDLER, "nothing", "there is no table nothing"),
        ):
            await begin(app, pilot, handler, tables)
            await until(pilot, lambda said=said: said in shown(app), said)  # type: ignore[misc]
            await leave(app, pilot)

        # An event that fails can be tried again.
        await begin(app, pilot, "tests.tui.test_step:stumbles")
        await until(pilot, lambda: "at 0 of 3" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: "1␛[2J[b]x" in text_of(app).replace("\\u001b", "␛"))
        await pilot.press("enter")
        await until(pilot, lambda: "the step failed: ValueError: no ␛[2J [b]such" in shown(app))
        assert "at 1 of 3" in text_of(app)
        await leave(app, pilot)

        await begin(app, pilot, _HANDLER)
        await until(pilot, lambda: "at 0 of 3" in text_of(app))
        await pilot.press("o")
        await until(pilot, lambda: "set a breakpoint first" in text_of(app))
        await pilot.press("F")
        await until(pilot, lambda: isinstance(app.screen, Fields))
        await pilot.press("tab", *"$.amount > 100", "enter")
        await until(pilot, lambda: "stops at $.amount > 100" in text_of(app))
        await pilot.press("o")
        await until(pilot, lambda: "at 3 of 3" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: "that is all, up to 3" in text_of(app))
        await pilot.press("F", *["backspace"] * 20, "tab", "tab", *"balances", "enter")
        await until(pilot, lambda: "or balances" in text_of(app))
        await pilot.press("o")
        await until(pilot, lambda: "is no row" in text_of(app))
