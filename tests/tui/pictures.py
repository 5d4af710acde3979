"""Pictures of the explorer that are the same on every machine, for the snapshots and for the documents.

Clock and time zone are fixed; process numbers, versions, addresses and sizes on disk are replaced by others.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import PropertyMock, patch

import asyncpg

from esx.config import Config
from esx.database_choice import Database
from esx.demo import history
from esx.doctor.finding import Severity
from esx.eventstore import EventStore
from esx.load.archive import Archive, Header, Recorder
from esx.load.model import LoadCounts, LoadOptions, LoadProgress, LoadSummary, StreamCounts
from esx.times import show_times_in
from esx.tui.app import Explorer
from esx.tui.panels import feed_figures
from esx.tui.session.session import SessionState
from esx.tui.tuning import Tuning
from tests.layouts.foreign.fixtures import load_into
from tests.support.connections import connected
from tests.tui.helpers import QuickPilot, browse, feed_of, no_frames, text_of, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from textual.pilot import Pilot

    from esx.doctor.finding import Finding
    from esx.store.bulk.copy import ImportedEvent
    from esx.store.feed.batch import Writer
    from esx.store.health import Health

NOW = datetime(2026, 8, 7, 14, 0, tzinfo=UTC)
LIVE = 240
"""Events at the end of the history that are held back, for a feed to show."""


class _FixedDatetime(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> _FixedDatetime:
        return cls.fromtimestamp(NOW.timestamp(), tz)


class Clock:
    """The clock of the feed's rates; only a test advances it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


_clock = Clock()


@contextlib.contextmanager
def fixed() -> Iterator[Clock]:
    """Fix everything that differs between machines and runs, while inside; yields the feed's clock."""
    _clock.now = 1000.0
    real_health, real_doctor, real_writer = EventStore.health, EventStore.doctor, feed_figures.writer_text

    async def health(store: EventStore) -> Health:
        measured = await real_health(store)
        return replace(
            measured,
            at=NOW,
            server_version="18.4",
            connections=6,
            max_connections=100,
            table_bytes=3_100_000,
            index_bytes=1_100_000,
        )

    async def doctor(store: EventStore) -> list[Finding]:
        found = await real_doctor(store)
        # What the server is set to differs between a test's server and others.
        return [
            _of_shop(each) if each.check == "idle-in-transaction" else replace(each, severity=Severity.OK)
            for each in found
        ]

    async def databases(_store: EventStore) -> list[str]:
        # Those of other tests have other names each time.
        return ["archive", "shop_test"]

    def writer(told: Writer) -> str:
        return re.sub(r"open [^, ]+", "open 12s", re.sub(r"pid \d+", "pid 4242", real_writer(told)))

    with contextlib.ExitStack() as stack:
        for module in ("esx.text", "esx.tui.screens.summary", "esx.store.overview.types", "esx.bookmarks"):
            stack.enter_context(patch(f"{module}.datetime", _FixedDatetime))
        stack.enter_context(patch.object(EventStore, "health", health))
        stack.enter_context(patch.object(EventStore, "doctor", doctor))
        stack.enter_context(patch.object(EventStore, "databases", databases))
        stack.enter_context(patch.object(EventStore, "address", PropertyMock(return_value="ann@localhost:5432/shop")))
        stack.enter_context(patch.object(feed_figures, "writer_text", writer))
        for found in ("local_servers", "services"):
            stack.enter_context(patch(f"esx.tui.session.connections.{found}", lambda *_: []))
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="esx-runs-"))
        stack.enter_context(patch.dict(os.environ, ESX_DATA_DIR=directory))
        show_times_in(UTC)
        stack.callback(show_times_in, None)
        _save_runs(Path(directory))
        yield _clock


def _of_shop(finding: Finding) -> Finding:
    remedy = tuple(re.sub(r"DATABASE \S+", "DATABASE shop", step) for step in finding.remedy)
    return replace(finding, remedy=remedy)


def svg_of(app: Explorer) -> str:
    """Return the screen as SVG that loads nothing, and that names nothing by chance."""
    picture = re.sub(r"@font-face \{.*?\}", "", app.export_screenshot(title="esx"), flags=re.DOTALL)
    picture = re.sub(r"\bterminal-\d+-([\w-]+)", r"terminal-\1", picture)
    # No line is longer than the screen, so that none needs to be clipped: a third less to keep.
    picture = re.sub(r"<clipPath id=\"terminal-line.*?</clipPath>\s*", "", picture, flags=re.DOTALL)
    return re.sub(r' clip-path="url\(#terminal-line-\d+\)"| shape-rendering="crispEdges"', "", picture)


async def settled(app: Explorer, pilot: Pilot[None], expected: str | None = None) -> str:
    """Return the picture as soon as it is the expected one, or once it no longer changes."""
    # On a busy machine what is expected may come after a moment in which nothing changes.
    last, same, enough = "", 0, 60 if expected else 8
    while same < enough:
        picture = svg_of(app)
        if picture == expected:
            return picture
        same = same + 1 if picture == last else 0
        last = picture
        await pilot.pause(0.05)
    return last


_COLLISIONS = (
    ("AccountDebited", "AccountDebited", "accounts-", 1000, 37, 9),
    ("AccountDebited", "MoneyDeposited", "accounts-", 1000, 11, 4),
    ("ItemAdded", "ItemAdded", "carts-", 30200, 8, 8),
    ("OrderShipped", "OrderCancelled", "orders-", 20000, 3, 3),
    ("CartCheckedOut", "ItemAdded", "carts-", 30200, 2, 2),
)
COMMUTES = ("AccountDebited,MoneyDeposited", "ItemAdded,ItemAdded")
"""The pairs of types that commute in the shop."""


async def fill_conflicts(dsn: str) -> None:
    """Record conflicts, as a shop of some hours has them."""
    rows = [
        (
            NOW - timedelta(minutes=7 + (number * number * 13) % 350),
            f"{prefix}{first + number % streams}",
            [lost],
            [won],
            ("ann", "bob", None)[number % 3],
        )
        for lost, won, prefix, first, count, streams in _COLLISIONS
        for number in range(count)
    ]
    async with connected(dsn) as connection:
        await connection.executemany(
            "INSERT INTO conflicts (at, stream_id, expected, actual, lost_types, won_types, lost_user) "
            "VALUES ($1, $2, 3, 4, $3, $4, $5)",
            sorted(rows),
        )


@contextlib.asynccontextmanager
async def sitting(dsn: str, size: tuple[int, int], **options: Any) -> AsyncIterator[tuple[Explorer, Pilot[None]]]:
    """Open the explorer on a database, as a user of esx's own would; only what is looked at is drawn."""
    label = options.pop("label", "embedded PostgreSQL 18")
    database = Database(dsn, "embedded", label, embedded=options.pop("embedded", True))
    app = Explorer(database, tuning=Tuning(clock=_clock), **options)
    app.animation_level = "none"
    with no_frames():
        async with app.run_test(size=size, notifications=True):
            yield app, QuickPilot(app)


async def live(app: Explorer, pilot: Pilot[None]) -> None:
    """Wait until streams and events are listed, and the feed listens."""
    await until(
        pilot, lambda: app.session.state is SessionState.CONNECTED and app.follower.listening, "for a connection"
    )
    await until(pilot, lambda: browse(app).streams.rows and browse(app).detail.event is not None, "for the first rows")
    await until(pilot, lambda: "● live" in text_of(app) or "connected, live" in text_of(app))


@cache
def shop() -> Sequence[ImportedEvent]:
    """Return the demo's history as it is at noon."""
    return list(history.generate(NOW))


async def fill_shop(dsn: str, rows: Sequence[ImportedEvent]) -> None:
    """Put events into the store, and its statistics in order, so that nothing does so later."""
    async with EventStore.connect(dsn) as store:
        await store.import_events(rows)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("VACUUM ANALYZE events")
    finally:
        await connection.close()


async def let_happen(
    app: Explorer, pilot: Pilot[None], clock: Clock, store: EventStore, rows: Sequence[ImportedEvent], seconds: int
) -> None:
    """Let `rows` come in over some seconds of the feed's clock, more and fewer a second in waves."""
    left = list(rows)
    log = app.follower.log
    for second in range(seconds):
        share = len(left) if second == seconds - 1 else min(len(left), 4 + 3 * (second % 5) + second % 3)
        created = NOW - timedelta(seconds=seconds - second)
        come, left = [row._replace(created_at=created) for row in left[:share]], left[share:]
        before = log.received
        if come:
            await store.import_events(come)
        await until(pilot, lambda before=before, come=come: log.received == before + len(come))  # type: ignore[misc]
        # Each second is shown: columns are as wide as what has been on screen, such as the first event of another day.
        await until(pilot, lambda: log.paused or len(feed_of(app).table.rows) == log.received)
        clock.now += 1


# -- saved runs of the load test ------------------------------------------------------------------------------------


HOT = LoadOptions(users=32, duration=30.0, streams=60, hot_streams=4, hot_share=0.8, on_conflict="backoff", seed=7)


def _rates(at: int) -> tuple[float, float]:
    """Return the appends and conflicts of a second."""
    goodput = 1900.0 + 52 * ((at * 7) % 5) - (900 if at in (13, 14) else 0) - (1200 if at == 1 else 0)
    rate = 0.31 + 0.02 * ((at * 3) % 4)
    return goodput, goodput * rate / (1 - rate)


def second(at: int) -> LoadProgress:
    goodput, conflicts = _rates(at)
    stored, refused = (round(sum(each)) for each in zip(*map(_rates, range(1, at + 1)), strict=True))
    tall = 3.0 if at in (13, 14) else 1.0
    streams = tuple(
        StreamCounts(number, 400 - 80 * number, round((220 - 50 * number) * (0.6 + 0.4 * ((at + number) % 4) / 3)))
        for number in range(4)
    ) + tuple(StreamCounts(number, 8, (at * number) % 4) for number in range(4, 16))
    total, rate = LoadCounts(stored + refused, stored, refused), conflicts / (goodput + conflicts)
    return LoadProgress(
        at, 32, total, goodput, rate, 4.1 * tall, 17.5 * tall, 33.0 * tall, streams=streams, generator_cpu=0.62
    )


def _save_runs(directory: Path) -> None:
    archive = Archive(directory / "runs")
    for number, (users, goodput, rate) in enumerate([(8, 1480.0, 0.06), (16, 1930.0, 0.17), (32, 2014.0, 0.33)]):
        options = replace(HOT, users=users)
        began = NOW - timedelta(minutes=30 - 10 * number)
        recorder = Recorder(archive, Header(began, "esx@localhost/esx", options))
        for at in range(1, 31):
            recorder.line(second(at))
        stored = round(goodput * 30)
        attempts = round(stored / (1 - rate))
        recorder.line(
            LoadSummary(
                f"20260807_13{30 + 10 * number}",
                30.0,
                users,
                LoadCounts(attempts, stored, attempts - stored),
                goodput,
                rate,
                {"p50": 4.1, "p90": 12.4, "p95": 17.5, "p99": 33.0, "p99.9": 71.2, "max": 118.0},
                stored=stored,
                verdict="pass",
                evidence=(
                    f"{stored:,} appended, {stored:,} stored: every acknowledged event exactly once, and no other, "
                    "in all of the 60 streams",
                ),
                tries_per_success=1 / (1 - rate),
                time_to_success={"p50": 5.2, "p90": 28.3, "p95": 44.0, "p99": 96.0, "p99.9": 188.0, "max": 301.0},
                generator_cpu=0.62,
            )
        )
        recorder.close()
        # Runs are listed by their files' times.
        path = max((directory / "runs").glob("*.ndjson"), key=os.path.getmtime)
        os.utime(path, (began.timestamp(), began.timestamp()))


# -- the pictures of the documents ----------------------------------------------------------------------------------


async def take_all(
    dsn: str,
    clock: Clock,
    done: Callable[[str, str], None],
    expected: Callable[[str], str],
    seen: Callable[[Explorer, Pilot[None], str], Awaitable[None]] | None = None,
) -> None:
    """Take the pictures of the documents on a store filled with `shop()` but for its last `LIVE` events.

    `seen` is called at each of them.
    """
    await fill_conflicts(dsn)
    async with sitting(dsn, (150, 38), config=Config(commutes=COMMUTES)) as (app, pilot):

        async def take(name: str) -> None:
            done(name, await settled(app, pilot, expected(name)))
            if seen is not None:
                await seen(app, pilot, name)

        await live(app, pilot)
        await _show_categories(app, pilot)
        await take("explorer")
        await pilot.resize_terminal(120, 34)
        await _show_account(app, pilot)
        await take("account")
        await pilot.press("v")
        await until(pilot, lambda: "state at version 7" in str(browse(app).event_panel.border_title))
        await pilot.press("left_square_bracket", "left_square_bracket")
        await until(pilot, lambda: "state at version 5" in str(browse(app).event_panel.border_title))
        await take("state")
        await _show_trail(app, pilot)
        await take("trail")
        await pilot.press("4")
        await until(pilot, lambda: "checks passed" in text_of(app) and "complete and in order" in text_of(app))
        await take("health")
        await pilot.press("C")
        await until(pilot, lambda: "AccountDebited lost to AccountDebited" in text_of(app))
        await take("conflicts")
        await pilot.press("escape")
        await pilot.press("3")
        await until(pilot, lambda: "events/append" in text_of(app) and "32 4 hot" in text_of(app))
        await pilot.press("R", "enter")
        await until(pilot, lambda: "PASS" in text_of(app))
        await take("load")
        await pilot.press("2")
        await until(pilot, lambda: feed_of(app).table.rows)
        async with EventStore.connect(dsn) as store:
            await let_happen(app, pilot, clock, store, shop()[-LIVE:], 22)
        await take("feed")


OTHER_STORES = {
    "messagedb": ("account-1001", "UPDATE message_store.messages SET time = time - interval '115 days'"),
    "marten": ("00a694e8-f50d-50b9-89e9-82526c1cca60", ""),
}
"""The pictures of stores of other tools: the stream that is shown, and what puts the events before `NOW`, if needed."""


async def take_other_store(
    dsn: str, name: str, done: Callable[[str, str], None], expected: Callable[[str], str]
) -> None:
    """Take the picture of the store of another tool; it is put into an empty database."""
    stream, earlier = OTHER_STORES[name]
    await load_into(dsn, name)
    if earlier:
        async with connected(dsn) as connection:
            await connection.execute(earlier)
    async with sitting(dsn, (120, 30), embedded=False, label="ann@localhost:5432/shop") as (app, pilot):
        await until(pilot, lambda: "connected, polling" in text_of(app), "for a connection")
        await go_to_row(app, pilot, stream)
        await pilot.press("enter")
        await until(pilot, lambda: browse(app).events_panel.stream_id == stream and len(browse(app).events.rows) > 2)
        await pilot.press("home", "down", "down")
        place = browse(app).events.rows[2].stream_seq
        await until(pilot, lambda: shown(app) == (stream, place))
        done(name, await settled(app, pilot, expected(name)))


async def _show_categories(app: Explorer, pilot: Pilot[None]) -> None:
    await pilot.press("c")
    await until(pilot, lambda: "by category" in text_of(app) and "orders" in text_of(app))
    await go_to_row(app, pilot, "orders")
    await pilot.press("right")
    await until(pilot, lambda: "orders-20001" in text_of(app))
    await go_to_row(app, pilot, "orders-20001")
    await pilot.press("enter")
    await until(
        pilot, lambda: browse(app).events_panel.stream_id == "orders-20001" and len(browse(app).events.rows) > 2
    )
    await pilot.press("down", "down")
    await until(pilot, lambda: shown(app) == ("orders-20001", 2))


async def _show_account(app: Explorer, pilot: Pilot[None]) -> None:
    await find_stream(app, pilot, "accounts-1092")
    await pilot.press("end")
    await until(pilot, lambda: shown(app) == ("accounts-1092", 7))


async def _show_trail(app: Explorer, pilot: Pilot[None]) -> None:
    await pilot.press("right_square_bracket", "right_square_bracket")
    await until(pilot, lambda: "state at version 7" in str(browse(app).event_panel.border_title))
    await pilot.press("v")
    await until(pilot, lambda: browse(app).detail.document.state is None and shown(app) == ("accounts-1092", 7))
    await pilot.press("t")
    await until(pilot, lambda: "events of" in text_of(app) and "OrderPlaced" in text_of(app))


def shown(app: Explorer) -> tuple[str, int]:
    """Return which event is shown in full: its stream, and its place there."""
    event = browse(app).detail.event
    return ("", -1) if event is None else (event.stream_id, event.stream_seq)


async def go_to_row(app: Explorer, pilot: Pilot[None], text: str) -> None:
    """Put the cursor of the streams on the row that begins with a text."""
    streams = browse(app).streams
    await pilot.press("home")
    for _ in range(60):
        row = streams.row
        if row is not None and row.label.lstrip("▸▾ ") == text:
            return
        await pilot.press("down")
    raise AssertionError(f"no row {text}; the screen shows:\n{text_of(app)}")


async def find_stream(app: Explorer, pilot: Pilot[None], stream_id: str) -> None:
    """Open a stream by its filter; the focus is on its events then."""
    browse(app).streams.focus()
    await until(pilot, lambda: browse(app).streams.has_focus)
    await pilot.press("slash")
    await until(pilot, lambda: app.focused is not None and app.focused.id == "filter")
    await pilot.press(*stream_id, "enter")
    await until(pilot, lambda: browse(app).streams.has_focus and len(browse(app).streams.rows) <= 2)
    await pilot.press("end", "enter")
    await until(pilot, lambda: browse(app).events.has_focus and browse(app).events_panel.stream_id == stream_id)
    await until(pilot, lambda: browse(app).events.rows and shown(app)[0] == stream_id)
