from __future__ import annotations

import asyncio
import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
from textual.events import Paste
from textual.widgets import Button, Input

import esx.tui
from esx.database_choice import without_secrets
from esx.errors import EsxError
from esx.load.archive import Archive, Header, RecordedRun, Recorder
from esx.load.learn.profile import profile_text
from esx.load.model import LoadCounts, LoadOptions, LoadProgress, LoadSummary, PairCounts, StreamCounts
from esx.load.process import LoadRun
from esx.load.sweep.knee import in_words
from esx.load.sweep.sweep import Plan, Sweeps
from esx.model import NewEvent
from esx.permissions import Permissions
from esx.text import shell_word
from esx.tui.dialogs.agree import Agree
from esx.tui.dialogs.copy_as import CopyAs
from esx.tui.panels.load_compared import LoadCompared
from esx.tui.panels.load_form import LoadForm
from esx.tui.panels.load_runs import LoadRuns
from esx.tui.screens.load import LoadPane
from esx.tui.widgets.choice import Choice
from esx.tui.widgets.heatmap import HeatMap
from esx.tui.widgets.line import Line
from tests.loadtest.test_mix import profile
from tests.tui.helpers import browse, explorer, fill, lines_of, text_of, until, words

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

    from esx.eventstore import EventStore
    from esx.tui.app import Explorer

pytestmark = pytest.mark.slow

SUMMARY = LoadSummary(
    "run-1",
    3.0,
    7,
    LoadCounts(100, 80, 20),
    26.7,
    0.2,
    {"p50": 1.5, "p99": 9.0},
    stored=80,
    verdict="pass",
    evidence=(
        "80 appended, 80 stored: every acknowledged event exactly once, and no other, in all of the 100 streams",
    ),
    tries_per_success=1.25,
)
HOT = (StreamCounts(0, 12, 5), StreamCounts(41, 12, 1))


def second(at: int) -> LoadProgress:
    return LoadProgress(at, 7, LoadCounts(30 * at, 24 * at, 6 * at), 24.0, 0.2, 1.0, 2.0, 3.0, streams=HOT)


def pane(app: Explorer) -> LoadPane:
    return app.query(LoadPane).first()


async def test_a_run_from_form_to_verdict(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    asked: list[tuple[str | None, LoadOptions]] = []
    go_on = asyncio.Event()

    async def run_load(dsn: str | None, options: LoadOptions) -> AsyncIterator[LoadProgress | LoadSummary]:
        asked.append((dsn, options))
        for at in range(1, 4):
            yield second(at)
        await go_on.wait()
        pairs = (PairCounts("Withdrawn", "Deposited", 15, 1, "s-1", 15), PairCounts("T\x1b", "", 5, 1, "s-1", 5))
        yield replace(SUMMARY, recording="20 of 20 conflicts recorded", pairs=pairs)

    async with explorer(dsn18, run_load=run_load) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)
        pane(app).query_one("#load-users", Input).value = "7"
        assert pane(app).query_one("#load-hot-share", Input).disabled
        heat = pane(app).query_one("#load-heat", Choice)
        heat.focus()
        await pilot.press("right")
        await until(pilot, lambda: not pane(app).query_one("#load-hot-share", Input).disabled)
        pane(app).query_one("#load-on-conflict", Choice).choose("backoff")
        pane(app).query_one("#load-rate", Input).value = "500"
        await pilot.press("escape", "ctrl+s")
        await until(pilot, lambda: "stream 41" in text_of(app))
        assert app.query_one(HeatMap).rows == [("stream 0", [5.0] * 3), ("stream 41", [1.0] * 3)]
        shown = text_of(app)
        for piece in ("24/s", "20.0% conflicts", "90 attempts = 72 stored + 18 conflicts", "p99"):
            assert piece in shown, piece
        await pilot.press("2")
        await until(pilot, lambda: "live" in text_of(app) and pane(app).running)
        await pilot.press("3")
        go_on.set()
        await until(pilot, lambda: "PASS" in text_of(app) and not pane(app).running)
        wanted = LoadOptions(users=7, hot_streams=1, hot_share=0.5, on_conflict="backoff", rate=500.0)
        assert asked == [(dsn18, wanted)]
        for piece in (
            "PASS  stored exactly once; 20.0% conflicts; 27 appends/s, 7 users, 3.0 s",
            "100 attempts = 80 stored + 20 conflicts",
            "- 80 appended",
            "20 of 20 conflicts recorded",
            "15  75%  Withdrawn lost to Deposited",
            "5  25%  T␛ lost to nothing",
            "9.000",
            "esx load clean run-1 -d",
        ):
            await until(pilot, lambda piece=piece: piece in text_of(app), piece)  # type: ignore[misc]
        await pilot.press("u")
        await until(pilot, lambda: "workload" in text_of(app))
        await pilot.press("u")
        await until(pilot, lambda: "PASS" in text_of(app))


async def test_marked_runs_are_put_side_by_side(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    archive = Archive.of(os.environ)
    for number, goodput in ((1, 100.0), (2, 150.0), (3, 50.0)):
        began = datetime(2026, 8, 7, number, tzinfo=UTC)
        recorder = Recorder(archive, Header(began, "ann@host/shop", LoadOptions(users=number, grouping="on")))
        recorder.line(replace(SUMMARY, run=f"r{number}", goodput=goodput))
        recorder.close()

    async with explorer(dsn18) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: len(app.query_one(LoadRuns).rows) == 3)
        await pilot.press("R", "equals_sign")
        await until(pilot, lambda: "mark two runs or more" in text_of(app))
        await pilot.press("home", "asterisk")
        await until(pilot, lambda: any(line.startswith("│ *") for line in lines_of(app)), "for the mark")
        await pilot.press("down", "equals_sign")
        await until(pilot, lambda: app.query_one(LoadCompared).has_focus)
        # The older one is what the other is compared with, in the order of time.
        assert "esx load compare r1 r3" in text_of(app)
        goodput_line = next(line for line in lines_of(app) if "goodput" in line)
        assert goodput_line.split()[-4:-1] == ["100.0", "50.0", "0.50"]
        await pilot.press("R")
        await until(pilot, lambda: app.query_one(LoadRuns).has_focus)
        await pilot.press("enter")
        await until(pilot, lambda: "PASS" in text_of(app))
        await pilot.press("u")
        grouping = pane(app).query_one("#load-grouping", Choice)
        await until(pilot, lambda: grouping.value == "on")


async def test_the_events_of_a_run_are_deleted_after_asking(dsn18: str, store18: EventStore) -> None:
    await store18.append("load-run-1-0", [NewEvent("T", {}, {"run_id": "run-1"}) for _ in range(3)])
    await store18.append("kept", [NewEvent("T", {})])

    async def run_load(dsn: str | None, options: LoadOptions) -> AsyncIterator[LoadProgress | LoadSummary]:
        yield SUMMARY

    async with explorer(dsn18, run_load=run_load) as (app, pilot):
        await pilot.press("3", "D")
        await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "PASS" in text_of(app) and "D cleans up" in text_of(app))
        await pilot.press("D")
        await until(pilot, lambda: isinstance(app.screen, Agree))
        assert "3 events in 1 stream of run run-1" in text_of(app)
        await pilot.press("escape")
        assert await store18.head() == 4
        assert await store18.version("load-run-1-0") == 2
        await pilot.press("D")
        await until(pilot, lambda: isinstance(app.screen, Agree))
        await pilot.press("ctrl+y")
        await until(pilot, lambda: "deleted 3 events of run run-1" in text_of(app))
        assert [stream.stream_id async for stream in store18.streams()] == ["kept"]
        await pilot.press("D")
        await until(pilot, lambda: "has no events in this database" in text_of(app))
    async with explorer(dsn18, run_load=run_load, permissions=Permissions(load=False)) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: app.query(LoadPane))
        assert not pane(app).check_action("clean", ())


async def test_nothing_wraps_in_a_narrow_terminal(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)

    async def run_load(dsn: str | None, options: LoadOptions) -> AsyncIterator[LoadProgress | LoadSummary]:
        yield second(1)
        yield replace(SUMMARY, percentiles=dict.fromkeys(("p50", "p90", "p95", "p99", "p99.9", "max"), 12_345.6))

    async with explorer(dsn18, run_load=run_load, size=(80, 24)) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: "events/append" in text_of(app))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "PASS" in text_of(app) and "p99.9" in text_of(app))
        lines = [line.strip("│ ") for line in text_of(app).splitlines()]
        at = next(at for at, line in enumerate(lines) if line.startswith("- 80 appended"))
        assert lines[at + 1].endswith("of the 100 streams"), "broken between words, and only there"
        titles = next(at for at, line in enumerate(lines) if line.startswith("latency, ms"))
        assert lines[titles + 1].split()[:7] == ["append", *["12,345.6"] * 6]


async def test_earlier_runs_are_listed_and_opened(
    dsn18: str, store18: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESX_DATA_DIR", str(tmp_path))
    await fill(store18, 1, 1)
    recorder = Recorder(
        Archive(tmp_path / "runs"),
        Header(datetime(2026, 8, 7, tzinfo=UTC), "ann@host/\x1b[31mshop", LoadOptions(users=7, zipf=1.5)),
    )
    for line in (second(1), second(2), replace(SUMMARY, run="r1", evidence=("seen \x1b[31mbefore",))):
        recorder.line(line)
    recorder.close()
    (tmp_path / "runs" / "foreign.ndjson").write_text("not a run")

    async with explorer(dsn18) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: "zipf 1.5" in text_of(app))
        await pilot.press("R", "enter")
        await until(pilot, lambda: "PASS" in text_of(app))
        assert "seen ␛[31mbefore" in text_of(app)
        assert "run r1" in text_of(app)
        await pilot.press("u")
        await until(pilot, lambda: pane(app).query_one("#load-users", Input).value == "7")
        assert pane(app).query_one("#load-heat", Choice).value == "zipf"


async def test_what_the_form_does_not_accept(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)

    async def run_load(dsn: str | None, options: LoadOptions) -> AsyncIterator[LoadProgress | LoadSummary]:
        raise AssertionError("must not start")
        yield SUMMARY

    async with explorer(dsn18, run_load=run_load) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)
        for field, value, usual, why in (
            ("users", "0", "10", "--users is 0"),
            ("streams", "many", "100", "'many' is not a whole number"),
            ("duration", "inf", "30", "use a number that is finite"),
            ("payload-bytes", "9999999", "0", "--payload-bytes is 9999999"),
            # Several values are a sweep.
            ("users", "0,1", "10", "with users=0: --users is 0"),
            ("users", "1,1", "10", "--vary 'users=1,1' names a value"),
            ("streams", "1,", "100", "has no values"),
        ):
            line = pane(app).query_one(f"#load-{field}", Input)
            line.value = value
            await pilot.press("ctrl+s")
            await until(pilot, lambda line=line: line.has_focus)  # type: ignore[misc]
            # It says so at the field, until that is changed.
            await until(pilot, lambda why=why, line=line: why in below(app, line), why)  # type: ignore[misc]
            assert not pane(app).running
            line.value = usual
            await until(pilot, lambda why=why: why not in words(app))  # type: ignore[misc]
        await pilot.press("escape", "1")
        await until(pilot, lambda: "streams by name" in text_of(app))


def below(app: Explorer, field: Input) -> str:
    """Return the text on screen under a field."""
    region = field.region
    lines = lines_of(app)[region.bottom : region.bottom + 2]
    return " ".join(line[region.x - 16 : region.right].strip() for line in lines)


async def test_the_form_is_filled_by_keys_alone(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    async with explorer(dsn18, run_load=lambda *_: None, size=(100, 40)) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)

        async def goes_to(key: str, field: str) -> None:
            await pilot.press(key)
            await until(pilot, lambda: app.focused is not None and app.focused.id == f"load-{field}", f"{key}: {field}")

        # Down and tab go as one reads: one group after the other.
        for field in ("preset", "users", "duration", "rate", "streams", "heat", "yes-write-to", "expected"):
            await goes_to("down", field)
        for field in ("on-conflict", "events-per-append", "more", "runs"):
            await goes_to("tab", field)
        await goes_to("shift+tab", "more")
        # A digit in a form is never meant for the screens.
        await pilot.press("4", "2")
        await until(pilot, lambda: "payload, bytes" in text_of(app) and "workload" in text_of(app))
        await goes_to("up", "events-per-append")
        # A number takes no letters, and says so until it is taken back or the field is left.
        line = pane(app).query_one("#load-events-per-append", Input)
        await pilot.press("end", "x", "5", "e")
        assert line.value == "15"
        await until(pilot, lambda: "'e' is left out: this takes digits, and commas" in below(app, line))
        await pilot.press("s")
        await until(pilot, lambda: "'s' is left out" in below(app, line))
        await pilot.press("backspace", "5")
        await until(pilot, lambda: "left out" not in text_of(app))
        await pilot.press("s")
        await until(pilot, lambda: "'s' is left out" in below(app, line))
        await goes_to("up", "on-conflict")
        await until(pilot, lambda: "left out" not in text_of(app))
        await pilot.press("3")
        assert pane(app).query_one("#load-on-conflict", Choice).value == "backoff"


async def test_a_preset_fills_the_form_until_a_field_is_changed(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    async with explorer(dsn18, run_load=lambda *_: None) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)
        form = pane(app).query_one(LoadForm)
        preset = form.query_one("#load-preset", Choice)
        assert preset.value == "own"
        await pilot.press("down")
        for name, wanted in {
            "calm": LoadOptions(users=4, streams=1000),
            "one hot stream": LoadOptions(users=16, streams=100, hot_streams=1, hot_share=0.8),
            "zipf": LoadOptions(users=16, streams=1000, zipf=1.0),
            "open loop": LoadOptions(users=32, streams=1000, rate=500.0),
        }.items():
            await pilot.press("right")
            await until(pilot, lambda wanted=wanted: form.plan() == Plan(wanted, ()), name)  # type: ignore[misc]
            assert preset.value == name
        await pilot.press("down", "end", "1")
        await until(pilot, lambda: preset.value == "own" and form.plan().base.users == 321)


class Stoppable:
    """Ends with its summary when it is told to stop."""

    def __init__(self, _dsn: str | None, _options: LoadOptions) -> None:
        self._stopped = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[LoadProgress | LoadSummary]:
        yield second(1)
        await self._stopped.wait()
        yield SUMMARY

    def stop(self) -> None:
        self._stopped.set()


async def test_a_run_ends_when_it_is_stopped_and_a_failure_is_a_line(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    closed: list[bool] = []

    async def knows_no_stop() -> AsyncIterator[LoadProgress | LoadSummary]:
        try:
            yield second(1)
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async def fails() -> AsyncIterator[LoadProgress | LoadSummary]:
        raise EsxError("the child \x1b[31mdied")
        yield SUMMARY

    runs: list[Callable[[], AsyncIterable[LoadProgress | LoadSummary]]] = [
        lambda: Stoppable(None, LoadOptions()),
        knows_no_stop,
        fails,
    ]

    def run_load(_dsn: str | None, _options: LoadOptions) -> AsyncIterable[LoadProgress | LoadSummary]:
        return runs.pop(0)()

    async with explorer(dsn18, run_load=run_load) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "24/s" in text_of(app) and pane(app).running)
        # As on every other screen, x copies.
        await pilot.press("x")
        if app.screen is not app.main:
            await pilot.press("escape")
        assert pane(app).running
        assert "stopping" not in text_of(app)
        await pilot.press("S")
        await until(pilot, lambda: "PASS" in text_of(app) and not pane(app).running)

        await pilot.press("ctrl+s")
        await until(pilot, lambda: "PASS" not in text_of(app) and "24/s" in text_of(app))
        await pilot.press("S")
        await until(pilot, lambda: closed and not pane(app).running)
        assert "without a summary" in text_of(app)

        await pilot.press("ctrl+s")
        await until(pilot, lambda: "the child ␛[31mdied" in text_of(app))
        assert not pane(app).running


async def test_leaving_stops_a_run_first_and_a_second_time_leaves_at_once(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    told: list[bool] = []
    go_on = asyncio.Event()

    class Slow(Stoppable):
        async def __aiter__(self) -> AsyncIterator[LoadProgress | LoadSummary]:
            async for line in super().__aiter__():
                if isinstance(line, LoadSummary):
                    await go_on.wait()
                    told.append(True)
                yield line

    for twice in (False, True):
        told.clear()
        go_on.clear()
        async with explorer(dsn18, run_load=Slow) as (app, pilot):
            await pilot.press("3")
            await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)
            await pilot.press("ctrl+s")
            await until(pilot, lambda: "24/s" in text_of(app) and pane(app).running)
            await pilot.press("q")
            await until(pilot, lambda: "q again leaves at once" in text_of(app))
            if twice:
                await pilot.press("q")
            else:
                go_on.set()
            await until(pilot, lambda: app.return_code is not None)
        assert told == ([] if twice else [True])


async def test_what_is_pasted_is_taken_whole_or_named(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    async with explorer(dsn18, run_load=lambda *_: None) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)
        users = pane(app).query_one("#load-users", Input)
        users.focus()
        users.value = ""
        await until(pilot, lambda: users.has_focus)
        users.post_message(Paste("1-8"))
        await until(pilot, lambda: "'1-8' is left out" in below(app, users))
        assert users.value == ""
        users.post_message(Paste("1, 2,\r\n4\n"))
        await until(pilot, lambda: users.value == "1, 2, 4")
        seconds = pane(app).query_one("#load-duration", Input)
        seconds.focus()
        await until(pilot, lambda: seconds.has_focus)
        seconds.post_message(Paste("1,5"))
        await until(pilot, lambda: "'1,5' is left out: this takes digits" in below(app, seconds))
        # So do all fields of the explorer: of several lines Textual would take the first, and say nothing.
        await pilot.press("escape", "1")
        await until(pilot, lambda: browse(app).streams.has_focus)
        await pilot.press("slash")
        await until(pilot, lambda: isinstance(app.focused, Line))
        assert app.focused is not None
        app.focused.post_message(Paste("pay\nments"))
        await until(pilot, lambda: getattr(app.focused, "value", "") == "pay ments")


def test_no_field_of_the_explorer_loses_what_is_typed_silently() -> None:
    own = Path(esx.tui.__file__).parent
    made = re.compile(r"(?<![\w.])Input\(|class \w+\(.*\bInput\b.*\)")
    found = [path.name for path in own.rglob("*.py") if made.search(path.read_text(encoding="utf-8"))]
    assert found == ["line.py"], "a field is a Line"


async def test_the_form_has_learned_traffic_and_recorded_conflicts(
    dsn18: str, store18: EventStore, tmp_path: Path
) -> None:
    await fill(store18, 1, 1)
    file = tmp_path / "shop traffic.toml"
    async with explorer(dsn18, run_load=lambda *_: None, size=(100, 40)) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)
        form = pane(app).query_one(LoadForm)
        form.query_one("#load-record-conflicts", Choice).choose("on")
        like, times = form.query_one("#load-like", Input), form.query_one("#load-times", Input)
        assert times.disabled
        like.value = str(file)
        await until(pilot, lambda: not times.disabled)
        # What the file decides is not asked for.
        assert form.query_one("#load-streams", Input).disabled
        assert form.query_one("#load-heat", Choice).disabled
        times.value = "2.5"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "cannot be read: No such file or directory" in words(app))
        assert like.has_focus
        file.write_text(profile_text(profile()))
        assert form.plan() == Plan(LoadOptions(like=str(file), times=2.5, record_conflicts="on"), ())
        form.fill(LoadOptions(users=3))
        await until(pilot, lambda: times.disabled and not form.query_one("#load-streams", Input).disabled)
        assert form.plan() == Plan(LoadOptions(users=3), ())
    async with explorer(dsn18, run_load=lambda *_: None, permissions=Permissions.only("load")) as (app, pilot):
        await pilot.press("3")
        # A page in a browser reads no files of the machine that serves it.
        await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)
        form = pane(app).query_one(LoadForm)
        assert form.query_one("#load-like", Input).disabled
        form.fill(LoadOptions(like="/etc/passwd"))
        assert form.plan() == Plan(LoadOptions(), ())
        assert not form.query_one("#load-streams", Input).disabled


def steps() -> dict[int, tuple[float, float]]:
    """Return goodput and conflict rate by the number of users, as a hot stream has them."""
    return {1: (800.0, 0.0), 2: (300.0, 0.5), 4: (200.0, 0.75)}


class Measured(Stoppable):
    """A test of a sweep, whose figures depend on its users; that of 4 users ends when it is let go, or stopped."""

    go_on = asyncio.Event()
    made: ClassVar[list[tuple[str | None, LoadOptions]]] = []

    def __init__(self, dsn: str | None, options: LoadOptions, *, sweep: str | None = None) -> None:
        super().__init__(dsn, options)
        self.options = options
        self._ended_early = False
        self.made.append((sweep, options))

    async def __aiter__(self) -> AsyncIterator[LoadProgress | LoadSummary]:
        users = self.options.users
        goodput, rate = steps()[users]
        yield replace(second(1), users=users, goodput=goodput / 2, conflict_rate=rate)
        if users == 4:
            await self.go_on.wait()
        found = replace(SUMMARY, run=f"r{users}", users=users, goodput=goodput, conflict_rate=rate)
        yield replace(found, interrupted=self._ended_early)

    def stop(self) -> None:
        self._ended_early = True
        self.go_on.set()

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("size", [(80, 24), (200, 55)])
async def test_users_are_swept_from_the_form(dsn18: str, store18: EventStore, size: tuple[int, int]) -> None:
    await store18.append("load-r1-0", [NewEvent("T", {}, {"run_id": "r1"})])
    await store18.append("kept", [NewEvent("T", {})])
    Measured.go_on, stops = asyncio.Event(), size[0] == 80
    Measured.made.clear()
    async with explorer(dsn18, run_load=Measured, size=size) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)
        users = pane(app).query_one("#load-users", Input)
        users.value = "1,2,4"
        await until(pilot, lambda: "a sweep of 3 runs" in text_of(app))
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, CopyAs) and "esx load sweep --vary" in text_of(app))
        await pilot.press("enter")
        await until(
            pilot, lambda: app.clipboard == f"esx load sweep --vary users=1,2,4 -d {shell_word(without_secrets(dsn18))}"
        )
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "run 3 of 3" in text_of(app) and "loses" in text_of(app))
        rows = [line.strip("│ ").split() for line in lines_of(app)]
        assert [row[:2] for row in rows if row and row[0] in ("1", "2", "4")] == [
            ["1", "800"], ["2", "300"], ["4", "100"]
        ]  # fmt: skip
        headline = "It loses 62% at users=2, its first step that loses more than 20%: 800/s and 0% conflicts at 1, "
        assert headline + "300/s and 50% conflicts at 2" in words(app)
        bars = {line.strip("│ ").split()[0]: line.count("█") for line in lines_of(app) if "█" in line}
        assert bars["1"] > bars["4"] > 0
        if stops:
            await pilot.press("S")
        else:
            Measured.go_on.set()
        await until(pilot, lambda: not pane(app).running)
        [sweep] = Sweeps.of(os.environ).all([])
        ran = 2 if stops else 3
        assert [result.run for result in sweep.results] == ["r1", "r2", "r4"][:ran]
        await until(pilot, lambda: all(line in words(app) for line in in_words(sweep)), "for what `--show` says")
        assert f"{ran} of 3 runs {'ended early' if stops else 'done'}" in words(app)
        assert Measured.made == [(sweep.id, LoadOptions(users=count)) for count in (1, 2, 4)]
        await pilot.press("u")
        await until(pilot, lambda: "workload" in text_of(app))
        await pilot.press("u")
        await until(pilot, lambda: "loses" in text_of(app))


async def test_a_sweep_on_a_real_store(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)

    def run_load(dsn: str | None, options: LoadOptions, *, sweep: str | None = None) -> RecordedRun:
        return RecordedRun(LoadRun(dsn, options), Archive.of(os.environ), "test", sweep=sweep)

    async with explorer(dsn18, run_load=run_load, size=(100, 30)) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)
        for field, value in (("users", "1,4"), ("duration", "0.5"), ("streams", "1"), ("yes-write-to", "no/where")):
            pane(app).query_one(f"#load-{field}", Input).value = value
        pane(app).query_one("#load-record-conflicts", Choice).choose("on")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "give --yes-write-to" in words(app) and not pane(app).running, "for the refusal")
        pane(app).query_one("#load-yes-write-to", Input).value = words(app).split("give --yes-write-to ")[1].split()[0]
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "2 of 2 runs done" in words(app) and not pane(app).running, "for the sweep")
        [sweep] = Sweeps.of(os.environ).all([])
        assert [result.verdict for result in sweep.results] == ["pass", "pass"]
        await until(pilot, lambda: all(line in words(app) for line in in_words(sweep)))
        assert (await store18.conflicts()).by_load_tests > 0
        await pilot.press("D")
        await until(pilot, lambda: isinstance(app.screen, Agree) and "of recorded conflicts of sweep" in words(app))
        await pilot.press("ctrl+y")
        await until(pilot, lambda: re.search(r"deleted .* of recorded conflicts of sweep", words(app)))
        assert [stream.stream_id async for stream in store18.streams()] == ["s-000"]
        assert (await store18.conflicts()).conflicts == 0
