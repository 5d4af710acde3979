"""The picture of a recording: ten minutes of the demo's shop, in which a transaction holds the feed."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esx.capsule.format import CONSUMERS, DOCTOR, HEALTH, ConsumersMoment, DoctorMoment, HealthMoment
from esx.capsule.opening import opened_recording
from esx.capsule.reading import Capsule
from esx.database_choice import Database
from esx.doctor.finding import Finding, Severity
from esx.model import Event
from esx.store.consume.report import ConsumerReport, Runner
from esx.store.feed.batch import Counts, Gap, Writer
from esx.store.health import Health
from esx.store.read.estimates import Estimate
from esx.tui.app import Explorer
from tests.capsule.made import make, moment
from tests.tui.helpers import feed_of, no_frames, text_of, until
from tests.tui.pictures import NOW, settled, shop

if TYPE_CHECKING:
    from collections.abc import Callable

    from esx.capsule.format import FeedMoment
    from esx.embedded import EmbeddedServer

BEGUN = NOW - timedelta(minutes=10)
_LIVE = 300
_LENGTH = 600.0
_HELD, _FREED = 180.0, 330.0
"""From when to when the feed was held, in seconds."""


def make_capsule(path: Path) -> Path:
    """Write the capsule."""
    rows = list(shop())[-4000:]
    first_live = len(rows) - _LIVE
    gap_at = first_live + round(_LIVE * _HELD / _LENGTH)
    lines, times = [], []
    for place, row in enumerate(rows):
        at = row.created_at
        if place >= first_live:
            at = BEGUN + timedelta(seconds=(place - first_live + 1) * _LENGTH / _LIVE - 1)
        times.append(at)
        event = Event(
            place + 1, row.stream_id, row.stream_seq, row.event_type, row.data, row.metadata, at, row.event_id
        )
        lines.append(event.to_json())
    held = gap_at + 1
    holder = Writer("3/7", 4242, BEGUN + timedelta(seconds=_HELD - 2), "idle in transaction", "billing")
    gap = Gap(held, held, (holder,))
    moments: list[FeedMoment] = [_moment(0, first_live)]
    for place in range(first_live, len(rows)):
        seconds, number = (times[place] - BEGUN).total_seconds(), place + 1
        if seconds < _HELD:
            moments.append(_moment(seconds, number))
        elif seconds < _FREED and number > held:
            moments.append(_moment(seconds, held - 1, gap=gap, head=number, gaps=(gap,), visible=((number, number),)))
        elif seconds >= _FREED:
            late = {held: _FREED - _HELD} if number == held or moments[-1].gap else {}
            moments.append(_moment(seconds, number, late=late))
    beside: list[tuple[str, object]] = []
    for seconds in range(0, 601, 15):
        head = round(first_live + _LIVE * seconds / _LENGTH)
        writers = gap.writers if _HELD <= seconds < _FREED else ()
        beside.append((HEALTH, HealthMoment(BEGUN + timedelta(seconds=seconds), _health(head, seconds, writers))))
    findings = (Finding("columns", Severity.OK, "all there"), Finding("indexes", Severity.OK, "all there"))
    beside.append((DOCTOR, DoctorMoment(BEGUN, findings)))
    for seconds in range(0, 601, 30):
        position = held - 1 if _HELD <= seconds < _FREED else round(first_live + _LIVE * seconds / _LENGTH)
        behind = round(first_live + _LIVE * seconds / _LENGTH) - position
        report = ConsumerReport(
            *("balances", position, position + behind, behind, behind * 2.0, False, None, (), None),
            BEGUN + timedelta(seconds=min(seconds, _HELD) if behind else seconds),
            runner=Runner("shop-1", 311, BEGUN - timedelta(hours=3), 77),
            rate=0.0 if behind else 0.5,
        )
        beside.append((CONSUMERS, ConsumersMoment(BEGUN + timedelta(seconds=seconds), (report,))))
    return make(
        path, lines, moments, beside, begun=BEGUN, ended=NOW, since=BEGUN - timedelta(minutes=20), followed=True
    )


def _moment(seconds: float, position: int, **fields: Any) -> FeedMoment:
    made = replace(moment(0, position), at=BEGUN + timedelta(seconds=seconds), **fields)
    late = 1 if seconds >= _FREED else 0
    return replace(made, counts=Counts(position, 3, late, position))


def _health(head: int, seconds: float, writers: tuple[Writer, ...]) -> Health:
    at = BEGUN + timedelta(seconds=seconds)
    return Health(
        *(at, "18.4", "shop", "ann", False, head, True, 1, head, at, 3_100_000, 1_100_000, 0.0, True, 6, 100, writers),
        Estimate.counted(head),
    )


async def take_recording(
    server: EmbeddedServer,
    done: Callable[[str, str], None],
    expected: Callable[[str], str],
    size: tuple[int, int] = (120, 34),
    *,
    all_screens: bool = False,
) -> None:
    """Take the picture: the feed, while it was held; with `all_screens` the others as well."""
    with (
        tempfile.TemporaryDirectory(prefix="esx-capsule-") as directory,
        Capsule(make_capsule(Path(directory) / "incident.esx")) as capsule,
        no_frames(),
    ):
        async with opened_recording(capsule, server) as recording:
            database = Database(recording.dsn, "capsule", "incident.esx", embedded=False, read_only=True)
            app = Explorer(database, recording=recording)
            app.animation_level = "none"
            async with app.run_test(size=size, notifications=True) as pilot:
                await until(pilot, lambda: "recording" in text_of(app) and app.follower.started)
                await recording.player.jump(BEGUN + timedelta(seconds=_HELD + 95))
                # The width of a column is that of the widest date that was shown.
                await until(pilot, lambda: app.follower.gap is not None and app.follower.log.received)
                await pilot.press("2")
                await until(pilot, lambda: "waiting for" in text_of(app) and feed_of(app).table.rows)
                done("capsule", await settled(app, pilot, expected("capsule")))
                for key in "1456" if all_screens else "":
                    await pilot.press(key)
                    await pilot.pause(0.6)
                    done(f"capsule-{key}", await settled(app, pilot, ""))
                if all_screens:
                    await recording.player.jump(BEGUN - timedelta(minutes=5))
                    for key in "245":
                        await pilot.press(key)
                        await pilot.pause(0.6)
                        done(f"capsule-before-{key}", await settled(app, pilot, ""))
