"""A recording in the explorer: every screen shows what it would have shown then, and says that it is a recording."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from esx.capsule.format import CONSUMERS, DOCTOR, HEALTH, ConsumersMoment, DoctorMoment, HealthMoment
from esx.database_choice import Database
from esx.doctor.finding import Finding, Severity
from esx.store.consume.report import ConsumerReport
from esx.tui.app import Explorer
from tests.capsule.made import line, make, moment
from tests.capsule.test_recording import GAP, at, health, recording_of
from tests.tui.helpers import QuickPilot, browse, feed_of, no_frames, text_of, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from textual.pilot import Pilot

    from esx.capsule.opening import Recording
    from esx.capsule.player import Player
    from tests.conftest import Servers

pytestmark = pytest.mark.slow


def consumer(position: int) -> ConsumerReport:
    return ConsumerReport("balances", position, 6, 6 - position, 5.0, False, None, (), None, at(0))


def story(path: Path) -> Path:
    lines = [
        line(1, "account-1", 0, at=-3600),
        line(2, "account-2", 0, at=-60),
        line(3, "account-1", 1, at=9),
        line(4, "account-2", 1, at=15),
        line(5, "account-1", 2, at=19),
        line(6, "account-3", 0, at=19),
    ]
    moments = [
        moment(0, 2),
        moment(10, 3),
        moment(20, 3, gap=GAP, head=6, gaps=(GAP,), visible=((5, 6),)),
        moment(30, 6, late={4: 12.5}),
    ]
    beside: list[tuple[str, Any]] = [
        (HEALTH, HealthMoment(at(0), health(2))),
        (HEALTH, HealthMoment(at(20), health(6))),
        (CONSUMERS, ConsumersMoment(at(0), (consumer(2),))),
        (CONSUMERS, ConsumersMoment(at(30), (consumer(6),))),
        (DOCTOR, DoctorMoment(at(0), (Finding("columns", Severity.OK, "all there"),))),
    ]
    return make(path, lines, moments, beside, followed=True)


@contextlib.asynccontextmanager
async def opened(recording: Recording, size: tuple[int, int]) -> AsyncIterator[tuple[Explorer, Pilot[None]]]:
    database = Database(recording.dsn, "capsule", "incident.esx", embedded=False, read_only=True)
    app = Explorer(database, recording=recording)
    app.animation_level = "none"
    with no_frames():
        async with app.run_test(size=size, notifications=True):
            pilot = QuickPilot(app)
            await until(pilot, lambda: browse(app).streams.rows and app.follower.started, "for the first rows")
            yield app, pilot


@contextlib.asynccontextmanager
async def shown(
    servers: Servers, tmp_path: Path, size: tuple[int, int] = (130, 36)
) -> AsyncIterator[tuple[Explorer, Pilot[None], Player]]:
    async with (
        recording_of(story(tmp_path / "incident.esx"), await servers.get(18)) as recording,
        opened(recording, size) as (app, pilot),
    ):
        yield app, pilot, recording.player


def streams_of(app: Explorer) -> list[str]:
    return [row.summary.stream_id for row in browse(app).streams.rows if row.summary is not None]


def numbers_of(app: Explorer) -> list[int]:
    return [row.global_seq for row in feed_of(app).table.rows]


async def jump(pilot: Pilot[None], text: str) -> None:
    await pilot.press("at")
    await until(pilot, lambda: "jump to" in text_of(pilot.app))
    await pilot.press(*("full_stop" if each == "." else "plus" if each == "+" else each for each in text), "enter")


async def test_the_clock_plays_and_jumps_and_lists_show_what_had_appeared(servers: Servers, tmp_path: Path) -> None:
    async with shown(servers, tmp_path) as (app, pilot, player):
        await until(pilot, lambda: streams_of(app) == ["account-1", "account-2"])
        before = player.at
        await jump(pilot, "soon")
        await until(pilot, lambda: "neither a position nor a time" in text_of(app), "to be asked again")
        await pilot.press("escape")
        await until(pilot, lambda: "jump to" not in text_of(app))
        assert player.at == before

        await jump(pilot, "+5s")
        await until(pilot, lambda: player.at == at(5))
        await pilot.press("right_parenthesis", "right_parenthesis", "right_parenthesis", "P")
        assert player.playing
        await until(pilot, lambda: not player.playing and player.at == player.timeline.end)
        await until(pilot, lambda: streams_of(app) == ["account-1", "account-2", "account-3"])

        await jump(pilot, "start")
        await until(pilot, lambda: streams_of(app) == ["account-1"])
        await until(pilot, lambda: "not recorded" in text_of(app))
        await pilot.press("full_stop")
        await until(pilot, lambda: streams_of(app) == ["account-1", "account-2"])
        await pilot.press("comma")
        await until(pilot, lambda: streams_of(app) == ["account-1"])
        await jump(pilot, "end")
        await until(pilot, lambda: streams_of(app) == ["account-1", "account-2", "account-3"])
        assert player.at == player.timeline.end


async def test_every_screen_says_that_it_is_a_recording_and_shows_what_was(servers: Servers, tmp_path: Path) -> None:
    async with shown(servers, tmp_path) as (app, pilot, player):
        for key in "12345":
            await pilot.press(key)
            await until(pilot, lambda: "RECORDING incident.esx" in text_of(app) and "● recording" in text_of(app), key)

        # Consumers and figures are those of then.
        await until(pilot, lambda: "balances" in text_of(app) and "4 events behind" in text_of(app))
        await jump(pilot, "end")
        await until(pilot, lambda: "0 events behind" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: "what was is not changed" in text_of(app))
        await pilot.press("4")
        await until(pilot, lambda: "writers in flight · 1" in text_of(app) and "pid 4242" in text_of(app))
        await jump(pilot, "start")
        await until(pilot, lambda: "▲ NOT RECORDED" in text_of(app))
        await until(pilot, lambda: "writers in flight" not in text_of(app))
        await pilot.press("5")
        await until(
            pilot, lambda: "not recorded: of the time before" in text_of(app) and "balances" not in text_of(app)
        )
        await pilot.press("3")
        await until(pilot, lambda: "this is a recording: no load test here" in text_of(app))

        # The feed is held as it was, and goes on.
        await pilot.press("2", "full_stop")
        await until(pilot, lambda: numbers_of(app) == [1, 2])
        await jump(pilot, "#5")
        await until(pilot, lambda: "waiting for 4, may be held by pid 4242" in text_of(app))
        await until(pilot, lambda: numbers_of(app) == [1, 2, 3])
        assert player.at == at(20)
        await jump(pilot, "+5s")
        await until(pilot, lambda: "▲ held 5 s" in text_of(app))
        await jump(pilot, "+5s")
        await until(pilot, lambda: numbers_of(app) == [1, 2, 3, 4, 5, 6])
        await until(pilot, lambda: "1 late" in text_of(app) or "complete and in order" in text_of(app))
        await jump(pilot, "-30m")
        await until(pilot, lambda: "safe position not recorded" in text_of(app))
        await until(pilot, lambda: numbers_of(app) == [1])


async def test_what_a_slice_leaves_out_is_said(servers: Servers, tmp_path: Path) -> None:
    """Events before the slice are missing in counts and states."""
    path = make(tmp_path / "x.esx", [line(500, "order-1", 23, at=-1)], [moment(0, 500)], filter="order-*", after=499)
    async with (
        recording_of(path, await servers.get(18)) as recording,
        opened(recording, size=(150, 36)) as (app, pilot),
    ):
        await until(pilot, lambda: "events of order-* since 2026-08-07 13:00:00 only" in text_of(app))
        await pilot.press("down")
        await until(pilot, lambda: "order-1 · oldest" in text_of(app) or "order-1 · newest" in text_of(app))
        await pilot.press("v")
        await until(pilot, lambda: "state at version 23, without those before 23" in text_of(app))
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "RECORDING of a slice 2026-08-07" in text_of(app))


async def test_keys_of_recordings_do_nothing_elsewhere(dsn18: str) -> None:
    app = Explorer(Database(dsn18, "--dsn", "x", embedded=False))
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("at", "P", "full_stop")
        assert "jump to" not in text_of(app)
        assert "RECORDING" not in text_of(app)
