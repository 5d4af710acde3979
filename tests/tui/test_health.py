from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from textual.widgets._toast import Toast

from esx.errors import ProjectionFailed
from esx.eventstore import EventStore
from esx.model import NewEvent
from esx.tui.screens.health import HealthPane
from esx.tui.tuning import Tuning
from tests.tui.helpers import explorer, fill, lines_of, text_of, until

if TYPE_CHECKING:
    import asyncpg

    from esx import ConsumerReport, Health
    from esx.doctor import Finding
    from esx.model import Event
    from tests.support.roles import Role

pytestmark = pytest.mark.slow


@pytest.fixture
def safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what the doctor finds of a server for tests alone, which may lose its data."""
    real = EventStore.doctor

    async def doctor(store: EventStore) -> list[Finding]:
        return [each for each in await real(store) if each.check not in ("fsync", "idle-in-transaction")]

    monkeypatch.setattr(EventStore, "doctor", doctor)


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


async def test_figures_of_a_server_that_takes_longer_than_they_rest_come_too(
    dsn18: str, store18: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store18, 3, 4)

    async def refuses(_connection: object, _event: Event) -> None:
        raise ValueError("no such account")

    with pytest.raises(ProjectionFailed):
        await store18.project("balances", refuses)
    health, consumers, doctor = EventStore.health, EventStore.consumers, EventStore.doctor

    async def slow_health(store: EventStore) -> Health:
        await asyncio.sleep(0.3)
        return await health(store)

    async def slow_consumers(store: EventStore) -> list[ConsumerReport]:
        await asyncio.sleep(0.3)
        return await consumers(store)

    async def slow_doctor(store: EventStore) -> list[Finding]:
        await asyncio.sleep(0.3)
        return await doctor(store)

    monkeypatch.setattr(EventStore, "health", slow_health)
    monkeypatch.setattr(EventStore, "consumers", slow_consumers)
    monkeypatch.setattr(EventStore, "doctor", slow_doctor)
    async with explorer(dsn18, tuning=Tuning(read_health=0.05, examine=0.05)) as (app, pilot):
        await pilot.press("4")
        await until(pilot, lambda: "head 12" in " ".join(text_of(app).split()), "for the figures")
        await until(pilot, lambda: app.query(HealthPane).first().findings is not None, "for the doctor")
        await pilot.press("5")
        await until(pilot, lambda: "balances" in text_of(app), "for the consumers")


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


@pytest.mark.usefixtures("safe")
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
        await until(pilot, lambda: "looked 10 s ago" in text_of(app), "for the age of the findings")
        assert "● HEALTHY" in lines_of(app)[1]
        assert "● connected, live" in lines_of(app)[0]
        await sql18.execute("DROP TRIGGER events_doorbell ON events")
        await until(pilot, mends, "for the doctor to look again")
        await until(pilot, lambda: "looked just now" in text_of(app))
        await until(pilot, lambda: lines_of(app)[1].startswith(" ▲ 1 TO MEND"), "for the first line")
        assert "enter shows what to do" in lines_of(app)[1]
        # Every screen says so.
        await pilot.press("1")
        await until(pilot, lambda: "▲ 1 to mend" in lines_of(app)[0])


@pytest.mark.usefixtures("safe")
async def test_boxes_with_nothing_to_say_are_not_there(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    async with explorer(dsn18, size=(80, 40)) as (app, pilot):
        await pilot.press("4")
        for width, columns in ((80, 1), (119, 1), (120, 2)):
            await pilot.resize_terminal(width, 40)
            await until(pilot, lambda: "● HEALTHY" in text_of(app) and "checks passed" in text_of(app))
            await until(pilot, lambda: "last event" in text_of(app) and "queue used" in text_of(app))

            def side_by_side() -> bool:
                boxes = [app.query_one(f"#health-{name}").region for name in ("order", "server")]
                return boxes[0].y == boxes[1].y

            await until(pilot, lambda columns=columns: side_by_side() == (columns == 2), f"for {columns} columns")  # type: ignore[misc]
            for title in ("writers in flight", "projections", "doctor"):
                assert title not in text_of(app)
            assert "enter" not in lines_of(app)[-1]


@pytest.mark.usefixtures("safe")
async def test_a_feed_that_is_held_says_by_whom_and_what_to_do(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await fill(store18, 1, 2)
    now = 1000.0
    async with explorer(dsn18, size=(120, 40), tuning=Tuning(clock=lambda: now)) as (app, pilot):
        await pilot.press("4")
        await until(pilot, lambda: "● HEALTHY" in text_of(app) and app.follower.listening)
        async with sql18.transaction():
            pid = await sql18.fetchval("SELECT pg_backend_pid()")
            await sql18.execute("SET LOCAL application_name = 'billing'")
            await sql18.execute(
                "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('o', 0, 'T', '{}')"
            )
            await store18.append("next", [NewEvent("T")])
            await until(pilot, lambda: app.follower.gap is not None and app.follower.held() is None)
            now += 13
            await until(pilot, lambda: f"▲ HELD 13 s  by pid {pid} (billing, " in lines_of(app)[1], "for who holds it")
            await until(pilot, lambda: "▲ held 13 s" in lines_of(app)[0])
            await pilot.press("enter")
            await until(pilot, lambda: "HELD 13 s: what to do" in text_of(app))
            said = " ".join(text_of(app).split())
            assert "The feed waits for 3" in said
            await pilot.press("y")
            await until(pilot, lambda: app.clipboard == f"SELECT pg_terminate_backend({pid});")
            # On every screen.
            await pilot.press("1")
            await until(pilot, lambda: "▲ held" in lines_of(app)[0])
        await until(pilot, lambda: "● connected, live" in lines_of(app)[0], "for its end")


async def test_a_user_with_few_rights_sees_what_it_may(dsn18: str, store18: EventStore, role: Role) -> None:
    await fill(store18, 2, 3)
    async with explorer(role.dsn(dsn18), connected=False) as (app, pilot):
        await until(pilot, lambda: "GRANT SELECT on its tables" in text_of(app), "for what is missing")
        await role.grant("SELECT ON events")
        await pilot.press("r")
        await until(pilot, lambda: "s-001" in text_of(app), "for the streams")
        await pilot.press("4")
        await until(pilot, lambda: "6 or above" in text_of(app), "for the head")
        await until(pilot, lambda: "permission denied for view projections" in text_of(app))
        assert not app.screen.query(Toast), "said in its place, not over everything"
