from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from textual.widgets._toast import Toast

from esx.errors import ProjectionFailed
from esx.tui.screens.health import HealthPane
from esx.tui.tuning import Tuning
from tests.tui.helpers import explorer, fill, lines_of, text_of, until

if TYPE_CHECKING:
    import asyncpg

    from esx.eventstore import EventStore
    from esx.model import Event
    from tests.support.roles import Role

pytestmark = pytest.mark.slow


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


async def test_projections_with_their_lag_and_the_doctors_findings(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 2, 10)

    async def refuses(_connection: object, event: Event) -> None:
        if event.global_seq > 15:
            raise ValueError("no such account [b]\x1b[2J")

    with pytest.raises(ProjectionFailed):
        await store18.project("balances", refuses)
    async with explorer(dsn18, size=(80, 60)) as (app, pilot):
        await pilot.press("4")
        await until(pilot, lambda: "projections · 1" in text_of(app) and "5 behind" in text_of(app))
        assert "not running" in text_of(app)
        await until(pilot, lambda: "stopped at the event after 15: ValueError: no such account [b]␛[2J" in text_of(app))
        await until(pilot, lambda: app.query(HealthPane).first().findings is not None)
        await until(pilot, lambda: "to mend" in text_of(app), "for the doctor")
        await until(pilot, lambda: "→ esx read '$all' --from 16 --limit 1" in text_of(app), "for the remedy")
        assert all(len(line) == 80 for line in lines_of(app))


async def test_the_doctor_says_when_it_looked_and_looks_again_when_a_figure_that_it_judges_changes(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await fill(store18, 1, 1)
    now = 1000.0
    tuning = Tuning(read_health=0.1, examine=1e6, clock=lambda: now)
    async with explorer(dsn18, size=(120, 60), tuning=tuning) as (app, pilot):

        def mends() -> bool:
            findings = app.query(HealthPane).first().findings or ()
            return any(each.check == "doorbell" and each.severity.wrong for each in findings)

        await pilot.press("4")
        await until(pilot, lambda: "looked just now" in text_of(app))
        assert not mends()
        now += 12
        await until(pilot, lambda: "looked 12 s ago" in text_of(app), "for the age of the findings")
        await sql18.execute("DROP TRIGGER events_doorbell ON events")
        await until(pilot, mends, "for the doctor to look again")
        await until(pilot, lambda: "looked just now" in text_of(app))


async def test_a_writer_that_has_ended_is_gone(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):
        await pilot.press("4")
        await until(pilot, lambda: "none at this moment" in text_of(app))
        assert "last event" in text_of(app)


async def test_a_user_with_few_rights_sees_what_it_may(dsn18: str, store18: EventStore, role: Role) -> None:
    await fill(store18, 2, 3)
    async with explorer(role.dsn(dsn18), connected=False) as (app, pilot):
        await until(pilot, lambda: "GRANT SELECT ON events" in text_of(app), "for what is missing")
        await role.grant("SELECT ON events")
        await pilot.press("r")
        await until(pilot, lambda: "s-001" in text_of(app), "for the streams")
        await pilot.press("4")
        await until(pilot, lambda: "6 or above" in text_of(app), "for the head")
        await until(pilot, lambda: "permission denied for view projections" in text_of(app))
        assert not app.screen.query(Toast), "said in its place, not over everything"
