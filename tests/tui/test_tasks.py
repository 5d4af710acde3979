"""Tasks, each done by the keys that docs/tour.md counts."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from esx.config import Config, Connection
from esx.eventstore import EventStore
from esx.load.archive import Archive, Header, Recorder
from esx.load.model import LoadCounts, LoadOptions, LoadSummary
from esx.model import NewEvent
from esx.tui.panels.load_compared import LoadCompared
from esx.tui.panels.load_runs import LoadRuns
from esx.tui.screens.summary import SummaryPane
from esx.tui.screens.trail import TrailPane
from esx.tui.screens.types import TypesPane
from tests.support.connections import connected
from tests.tui.helpers import browse, explorer, feed_of, text_of, until, words
from tests.tui.pictures import fill_shop, shop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from textual.pilot import Pilot

    from esx.load.model import LoadProgress
    from esx.tui.app import Explorer

pytestmark = pytest.mark.slow

TOUR = Path(__file__).parents[2] / "docs" / "tour.md"
NAMES = {
    "→": "right",
    "←": "left",
    "↓": "down",
    "/": "slash",
    "*": "asterisk",
    "=": "equals_sign",
    "␣": "space",
    "~": "tilde",
}


class Step(NamedTuple):
    """Keys, which are pressed once `ready` holds; those of one word are its letters."""

    keys: str
    ready: Callable[[Explorer], object] = lambda _app: True


def keys_of(text: str) -> list[str]:
    """Return the keys that a text of the tour names: words are typed, names are keys."""
    found: list[str] = []
    for word in text.split():
        if word in ("enter", "tab", "ctrl+s", "ctrl+o", *NAMES):
            found.append(NAMES.get(word, word))
        else:
            found += [NAMES.get(letter, letter) for letter in word]
    return found


async def do(app: Explorer, pilot: Pilot[None], steps: Sequence[Step]) -> None:
    for step in steps:
        await until(pilot, lambda step=step: step.ready(app), f"before {step.keys}")  # type: ignore[misc]
        await pilot.press(*keys_of(step.keys))


def told() -> dict[str, tuple[str, int]]:
    """Return the tasks of the tour, with their keys and how many these are."""
    rows = re.findall(
        r"^\| ([^|]+?) \| [^|]+ \| `([^`]+)` \| (\d+) \|$", TOUR.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {task: (keys, int(count)) for task, keys, count in rows}


def shown(app: Explorer, pane: type[TrailPane | SummaryPane]) -> bool:
    return any(each.shown for each in app.query(pane))


def types(app: Explorer) -> TypesPane:
    return app.query(TypesPane).first()


TASKS: dict[str, tuple[list[Step], Callable[[Explorer], object]]] = {
    "a failed payment, and its cause": (
        [
            Step("6"),
            Step("/ decl", lambda app: types(app).types.rows and types(app).types.has_focus),
            Step("enter", lambda app: len(types(app).types.rows) == 1),
            Step("enter", lambda app: types(app).types.has_focus),
            Step("t", lambda app: browse(app).events.rows and browse(app).events.has_focus),
        ],
        lambda app: (
            shown(app, TrailPane) and all(name in text_of(app) for name in ("PaymentRequested", "PaymentDeclined"))
        ),
    ),
    "who made the balance negative": (
        [
            Step("a f"),
            Step("$.ba →", lambda app: browse(app).events_panel.line.line.has_focus and app.session.words.known.data),
            Step("<0 enter", lambda app: browse(app).events_panel.line.line.value == "$.balance"),
        ],
        lambda app: "eve" in getattr(browse(app).detail.event, "metadata_json", ""),
    ),
    "watch one type of one category": (
        [
            Step("2 f"),
            Step("pay →", lambda app: app.session.words.known.data),
            Step("␣ ty →", lambda app: feed_of(app)._line.line.value == "payments-*"),
            Step("*decl* enter", lambda app: feed_of(app)._line.line.value == "payments-* type:"),
        ],
        lambda app: app.follower.where.event_type == "*decl*" and app.follower.where.stream == "payments-*",
    ),
    "what happened in the last ten minutes": (
        [Step("W")],
        lambda app: "lately · 10 min" in text_of(app) and "AccountDebited" in text_of(app),
    ),
    "why the feed is stuck, and what to type": (
        [Step("4", lambda app: app.follower.gap is not None), Step("enter", lambda app: "HELD" in text_of(app))],
        lambda app: "pg_terminate_backend" in text_of(app),
    ),
    "a load test with one hot stream": (
        [Step("3"), Step("↓ → → ctrl+s", lambda app: app.query_one("#load-start").has_focus)],
        lambda _app: [(run.users, run.hot_streams, run.hot_share) for run in ASKED] == [(16, 1, 0.8)],
    ),
    "where writers collapse": (
        [Step("3"), Step("↓ ← ctrl+s", lambda app: app.query_one("#load-start").has_focus)],
        lambda app: (
            [run.users for run in ASKED] == [1, 2, 4, 8, 16, 32]
            and "at users=2, its first step that loses more than 20%" in words(app)
        ),
    ),
    "compare two runs": (
        [
            Step("3"),
            Step("R * * =", lambda app: len(app.query_one(LoadRuns).rows) == 2),
        ],
        lambda app: app.query_one(LoadCompared).has_focus and "B / A" in text_of(app),
    ),
    "the whole history of a customer": (
        [
            Step("/ ~1092"),
            Step("enter", lambda app: len(browse(app).streams.rows) == 1),
            Step("A", lambda app: browse(app).streams.has_focus),
        ],
        lambda app: (
            browse(app).events.has_focus
            and {row.stream for row in browse(app).events.rows} > {"accounts-1092"}
            and any(row.stream.startswith("carts-") for row in browse(app).events.rows)
        ),
    ),
    "a second database": (
        [Step("ctrl+o"), Step("↓ enter", lambda app: "other" in text_of(app))],
        lambda app: app.session.database is not None and app.session.database.name == "other",
    ),
    "which types changed their shape": (
        [Step("6"), Step("s", lambda app: types(app).types.rows)],
        lambda app: "1 changed shape" in text_of(app) and types(app).types.rows[0].summary.event_type == "TableBooked",
    ),
}


ASKED: list[LoadOptions] = []
"""The load tests that were started."""


async def run_load(
    _dsn: str | None, options: LoadOptions, *, sweep: str | None = None
) -> AsyncIterator[LoadProgress | LoadSummary]:
    ASKED.append(options)
    yield replace(summary("started"), goodput=800.0 / options.users)


def summary(run: str) -> LoadSummary:
    return LoadSummary(run, 3.0, 7, LoadCounts(100, 80, 20), 26.7, 0.2, {"p50": 1.5, "p99": 9.0}, 80, "pass")


async def fill(dsn: str) -> None:
    """The shop, with an account that went below zero a moment ago, and a type whose data have got another member."""
    async with EventStore.connect(dsn) as store:
        await store.init()
    await fill_shop(dsn, shop())
    async with EventStore.connect(dsn) as store:
        await store.append("accounts-1092", [NewEvent("AccountDebited", {"balance": -5}, {"user": "eve"})])
        for number in range(60):
            data = {"seats": number, **({"window": True} if number >= 40 else {})}
            await store.append(f"tables-{number}", [NewEvent("TableBooked", data)])


def save_runs() -> None:
    for number in (1, 2):
        began = datetime(2026, 8, 7, number, tzinfo=UTC)
        recorder = Recorder(Archive.of(os.environ), Header(began, "ann@host/shop", LoadOptions(users=number)))
        recorder.line(summary(f"r{number}"))
        recorder.close()


@contextlib.asynccontextmanager
async def stuck(dsn: str) -> AsyncIterator[None]:
    """Hold the feed by a transaction that does not end."""
    async with connected(dsn) as writer, EventStore.connect(dsn) as store:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('w', 0, 'T', '{}')")
        await store.append("behind", [NewEvent("T", {})])
        yield
        await transaction.rollback()


async def show_anew(app: Explorer, pilot: Pilot[None]) -> None:
    """Show the database as if the explorer had just been opened on it: nothing is left of the task before."""
    before = app.session
    app._picked(replace(app.connections.choices[0]))
    await until(pilot, lambda: app.session is not before, "for the database again")
    await pilot.press("1")
    await until(pilot, lambda: browse(app).streams.rows and browse(app).streams.has_focus, "for the streams")


async def test_each_task_is_done_by_its_keys(dsn18: str) -> None:
    await fill(dsn18)
    save_runs()
    config = Config(connections={"other": Connection("other", dsn=dsn18)})
    async with explorer(dsn18, size=(120, 40), config=config, run_load=run_load) as (app, pilot):
        for task, (steps, done) in TASKS.items():
            ASKED.clear()
            await show_anew(app, pilot)
            async with stuck(dsn18) if "stuck" in task else contextlib.nullcontext():
                await do(app, pilot, steps)
                await until(pilot, lambda done=done: done(app), f"for {task}")  # type: ignore[misc]


def test_the_tour_counts_the_keys_of_these_tasks() -> None:
    counted = {}
    for task, (steps, _) in TASKS.items():
        keys = " ".join(step.keys for step in steps)
        counted[task] = (keys, len(keys_of(keys)))
    assert told() == counted
