"""How lists and parts use the room that there is."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import pytest

from esx.model import NewEvent
from esx.times import show_times_in
from esx.tui.cells import Cell, fit
from esx.tui.lists.column import ListColumn, measured, widths_of
from esx.tui.lists.dates import time_column
from esx.tui.lists.previews import Previews, pairs
from tests.tui.helpers import browse, explorer, feed_of, fill, lines_of, text_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from esx.eventstore import EventStore


class Row(NamedTuple):
    event_type: str
    preview: str
    at: datetime | None = None


@pytest.fixture
def utc() -> Iterator[None]:
    show_times_in(UTC)
    yield
    show_times_in(None)


def texts(title: str, index: int, **options: object) -> ListColumn[Sequence[str]]:
    return ListColumn(title, lambda row: Cell(row[index]), **options)  # type: ignore[arg-type]


def laid_out(columns: Sequence[ListColumn[Sequence[str]]], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    return widths_of(columns, width, measured(columns, rows))


def test_a_column_is_as_wide_as_its_rows_need_and_the_rest_gets_what_is_left() -> None:
    columns = [texts("id", 0), texts("n", 1, width=9), texts("data", 2, rest=True)]
    assert laid_out(columns, [("orders-20523", "7", "x" * 400)], 60) == [12, 1, 45]
    # Without a column of the rest, it stays empty at the end.
    assert laid_out(columns[:2], [("orders-20523", "7")], 60) == [12, 1]


def test_what_matters_less_makes_way_before_anything_is_cut() -> None:
    columns = [texts("id", 0), texts("type", 1), texts("ago", 2, needs=20), texts("late", 3, needs=30, sparse=True)]
    row = ("a" * 20, "b" * 20, "3m", "4ms")
    assert laid_out(columns, [row], 60) == [20, 20, 3, 4]
    assert laid_out(columns, [row], 45) == [20, 20, 3, 0]
    assert laid_out(columns, [row], 42) == [20, 20, 0, 0]
    # Then the wide ones are cut, in proportion; the narrow ones last.
    assert laid_out(columns, [row], 31) == [15, 15, 0, 0]
    assert laid_out(columns, [("a" * 4, *row[1:])], 21) == [4, 16, 0, 0]
    # Where nothing was late there is no such column.
    assert laid_out(columns, [(*row[:3], "")], 60) == [20, 20, 3, 0]


def test_a_long_id_is_cut_in_its_middle() -> None:
    assert fit("load-2611291402-0042", 11, middle=True) == "load-…-0042"
    assert fit("load-2611291402-0042", 20, middle=True) == "load-2611291402-0042"
    assert fit("煎茶煎茶煎茶煎茶", 8, middle=True) == "煎 …煎茶"
    assert fit("abc", 6, middle=True) == "abc   "


def test_a_preview_shows_values_and_first_those_that_differ() -> None:
    previews = Previews()
    rows = [
        Row("Paid", '{"currency": "EUR", "amount": 50.00, "method": "card", "buyer": {"name": "Ann, {x}"}}'),
        Row("Paid", '{"currency": "EUR", "amount": 7.10, "method": "cash", "buyer": {"name": "Bob"}}'),
        Row("Other", '{"a": "b"}'),
    ]
    previews.prepare(rows)
    assert previews.text(rows[0]) == 'amount 50.00 · method card · buyer {"name": "Ann, {x}"} · currency EUR'
    assert previews.text(rows[2]) == "a b"
    long = Row("Placed", '{{"items": [{}], "legal": [{}]}}'.format("1, " * 40, "2, " * 40))
    assert previews.text(long) == f"items [{('1, ' * 40)[:79]}… · legal [{'2, ' * 40}]"


@pytest.mark.parametrize(
    ("start", "found"),
    [
        (
            '{"a": 1, "b": "x, \\"y\\" }", "c": [1, 2], "d": 3',
            (("a", "1"), ("b", 'x, "y" }'), ("d", "3"), ("c", "[1, 2]")),
        ),
        ('{"a": "cut he…', (("a", "cut he…"),)),
        ('{"a": {"b": "cu…', (("a", '{"b": "cu…'),)),
        ("[1, 2]", None),
        ("… 4.2 MB stored", None),
        ("{}", None),
        ('{"', None),
        ('{"a"', None),
    ],
)
def test_a_preview_of_the_start_of_json(start: str, found: object) -> None:
    assert pairs(start) == found


def test_a_date_is_shown_once(utc: None) -> None:
    assert utc is None
    column: ListColumn[Row] = time_column(lambda row: row.at, needs=0)
    rows = [Row("", "", datetime(2026, 8, day, 14, 0, second, tzinfo=UTC)) for day, second in ((6, 1), (6, 2), (7, 3))]
    assert column.prepare is not None
    column.prepare([*rows, Row("", "")])
    assert column.shown_title == "2026-08-06"
    assert [column.cell(row).text for row in rows] == ["14:00:01", "14:00:02", "08-07 14:00:03"]
    assert column.cell(Row("", "")).text == "-"
    # With the year where that changes.
    column.prepare([rows[0], Row("", "", datetime(2027, 8, 6, 14, 0, 1, tzinfo=UTC))])
    assert column.cell(Row("", "", datetime(2027, 8, 6, 14, 0, 1, tzinfo=UTC))).text == "2027-08-06 14:00:01"


@pytest.mark.slow
async def test_no_id_or_type_is_cut_while_there_is_room(dsn18: str, store18: EventStore) -> None:
    long = "payments-2026112914020042-1"
    await store18.append(long, [NewEvent("PaymentAuthorisationRequested", {"amount": 1})])
    for size in ((200, 55), (120, 40)):
        async with explorer(dsn18, size=size) as (app, pilot):
            await until(pilot, lambda: browse(app).detail.event is not None)
            await until(pilot, lambda: text_of(app).count(long) >= 3, "for the id in every part")
            assert text_of(app).count("PaymentAuthorisationRequested") >= 2
    async with explorer(dsn18, size=(60, 24)) as (app, pilot):
        await until(pilot, lambda: browse(app).detail.event is not None)
        await until(pilot, lambda: any("0042-1" in line.split("│")[1] for line in lines_of(app)[3:5]))


@pytest.mark.slow
async def test_lists_get_the_room_that_they_and_the_event_leave(dsn18: str, store18: EventStore) -> None:
    for number in range(3):
        data = {"id": "62a2289e-01dd-5157-911f-c87cefdb7c3e", "text": "x" * 60}
        await store18.append(f"orders-{number}", [NewEvent("OrderPlaced", data)])
    async with explorer(dsn18, size=(200, 40)) as (app, pilot):
        # What the list of streams needs; the event as much as its UUIDs do; the events all the rest.
        await until(pilot, lambda: browse(app).streams_panel.region.width == 44)
        assert browse(app).event_panel.region.width == 66
        assert browse(app).events_panel.region.width == 90
        await pilot.resize_terminal(300, 40)
        await until(pilot, lambda: browse(app).event_panel.region.width == 66)
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: browse(app).streams_panel.region.width < 45)
        # A longer id has what it needs in both lists: the type of the last event makes way.
        await store18.append("orders-" + "9" * 20, [NewEvent("OrderPlaced", {})])
        await until(pilot, lambda: text_of(app).count("orders-" + "9" * 20) >= 2)


@pytest.mark.slow
async def test_what_is_fitted_to_a_width_is_fitted_again_to_another(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 2)
    async with explorer(dsn18, size=(200, 30)) as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: feed_of(app).table.rows and "safe position" in text_of(app))
        await pilot.resize_terminal(80, 30)
        await until(pilot, lambda: "safe 2" in text_of(app))
        await pilot.press("question_mark")
        await pilot.resize_terminal(100, 30)
        said = "What happened in the last ten minutes, by type"
        await until(pilot, lambda: said in text_of(app))
        await pilot.resize_terminal(60, 30)
        # What does not fit goes on below its beginning.
        await until(pilot, lambda: re.search("│ {10,}ten minutes, by type", text_of(app)))


@pytest.mark.slow
async def test_z_gives_the_focused_part_the_whole_screen_everywhere(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 2)
    async with explorer(dsn18, size=(100, 30)) as (app, pilot):
        await until(pilot, lambda: browse(app).detail.event is not None)
        await pilot.press("z")
        await until(pilot, lambda: browse(app).streams_panel.region.width == 100)
        await pilot.press("z", "2")
        await until(pilot, lambda: feed_of(app).table.rows)
        await pilot.press("z")
        await until(pilot, lambda: feed_of(app).panel.region.size == (100, 28))
        await pilot.press("enter", "l")
        await until(pilot, lambda: feed_of(app).event_panel.region.size == (100, 28), "for the zoom to go along")
        await pilot.press("z")
        await until(pilot, lambda: feed_of(app).panel.region.height > 5)


@pytest.mark.slow
async def test_borders_are_moved_by_keys_and_stay(
    dsn18: str, store18: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESX_DATA_DIR", str(tmp_path))
    await fill(store18, 1, 2)
    async with explorer(dsn18, size=(200, 40)) as (app, pilot):
        await until(pilot, lambda: browse(app).detail.event is not None)
        before = browse(app).streams_panel.region.width
        await pilot.press("L", "L")
        await until(pilot, lambda: browse(app).streams_panel.region.width == before + 20)
        await pilot.press("l", "l", "H")
        await until(pilot, lambda: browse(app).event_panel.region.width < before + 20)
        # There is always room for the others.
        await pilot.press(*["h", "h"], *["L"] * 20)
        await until(pilot, lambda: browse(app).events_panel.region.width == 20)
        moved = browse(app).streams_panel.region.width
    async with explorer(dsn18, size=(200, 40)) as (app, pilot):
        await until(pilot, lambda: browse(app).streams_panel.region.width == moved, "for what the last session left")
        await pilot.press("2")
        await until(pilot, lambda: feed_of(app).table.rows)
        await pilot.resize_terminal(100, 40)
        await pilot.press("enter")
        await until(pilot, lambda: feed_of(app).has_class("-detail"))
        height = feed_of(app).panel.region.height
        await pilot.press("J")
        await until(pilot, lambda: feed_of(app).panel.region.height > height)
    (tmp_path / "screens.json").write_text('{"streams": "wide"}')
    async with explorer(dsn18, size=(200, 40)) as (app, pilot):
        await until(pilot, lambda: browse(app).streams_panel.region.width == before, "for a file that says nothing")


@pytest.mark.slow
async def test_the_way_to_a_part_stands_where_there_is_room_for_it(dsn18: str, store18: EventStore) -> None:
    stream = "orders-" + "9" * 14
    await store18.append(stream, [NewEvent("PlacedLongAgo", {})])
    async with explorer(dsn18, size=(200, 40)) as (app, pilot):
        await pilot.press("down")
        await until(pilot, lambda: f"Streams › {stream} · oldest first" in text_of(app))
        await until(pilot, lambda: f"Streams › {stream} › PlacedLongAgo" in text_of(app))
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "Streams ›" not in text_of(app))
        assert f"─ {stream} · oldest first" in text_of(app)
        # As much of its end as fits.
        assert f"─ {stream} › PlacedLongAgo" in text_of(app)


@pytest.mark.slow
async def test_lists_take_the_colours_of_another_theme(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 2, 2)
    async with explorer(dsn18) as (app, pilot):
        streams = browse(app).streams

        def colours() -> tuple[object, object]:
            """Return those of the titles and of the row under the cursor."""
            title, row = (next(iter(streams.render_line(at))).style for at in (0, 1))
            return (title and title.color, row and row.bgcolor)

        dark = colours()
        app.theme = "textual-light"
        await until(pilot, lambda: all(now != then for now, then in zip(colours(), dark, strict=True)))
