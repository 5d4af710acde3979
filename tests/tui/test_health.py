from __future__ import annotations

from typing import TYPE_CHECKING

from esx.tui.screens.health import HealthPane
from tests.tui.helpers import explorer, fill, text_of, until

if TYPE_CHECKING:
    import asyncpg

    from esx.store import EventStore


async def test_figures(dsn: str, store: EventStore, sql: asyncpg.Connection) -> None:
    await fill(store, 3, 4)
    async with sql.transaction():
        pid = await sql.fetchval("SELECT pg_backend_pid()")
        await sql.execute("INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('open', 0, 'T', '{}')")
        async with explorer(dsn) as (app, pilot):
            await pilot.press("4")
            await until(pilot, lambda: app.query(HealthPane).first().health is not None)
            await until(pilot, lambda: f"pid {pid}" in text_of(app), "for the writer")
            await until(pilot, lambda: "listening" in text_of(app))
            shown = " ".join(text_of(app).split())
            for piece in (
                "PostgreSQL 1",
                "head 13",
                "last visible 12",
                "trigger in place",
                "writers in flight · 1",
                "idle in transaction",
            ):
                assert piece in shown, piece


async def test_a_writer_that_has_ended_is_gone(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):
        await pilot.press("4")
        await until(pilot, lambda: "none at this moment" in text_of(app))
        assert "last event" in text_of(app)
