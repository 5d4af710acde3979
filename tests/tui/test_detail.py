"""The event in full: folding, searching and copying, by its keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from esx.model import JsonText, NewEvent
from tests.tui.helpers import browse, explorer, lines_of, text_of, until

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from esx.eventstore import EventStore
    from esx.tui.app import Explorer
    from esx.tui.event.detail import EventDetail

pytestmark = pytest.mark.slow

ORDER = '{"z": 1, "id": "o-1", "lines": [{"sku": "A", "price": 1.10}, {"sku": "B", "price": 12345678901234567890123}]}'


async def open_event(app: Explorer, pilot: Pilot[None], stream_id: str) -> None:
    await pilot.press("down")
    await until(pilot, lambda: (event := browse(app).detail.event) and event.stream_id == stream_id, "for the event")
    browse(app).detail.focus()
    await until(pilot, lambda: browse(app).detail.has_focus)


def shown(detail: EventDetail) -> str:
    """Return what the detail draws, without the notices that may lie over it."""
    return "\n".join(detail.render_line(y).text for y in range(detail.size.height))


async def test_folding_copying_and_text(dsn18: str, store18: EventStore) -> None:
    await store18.append("o-1", [NewEvent("Placed", JsonText(ORDER), {"user": "ann"})])
    async with explorer(dsn18) as (app, pilot):
        await open_event(app, pilot, "o-1")
        detail = browse(app).detail
        assert "▾ {" in shown(detail)
        await pilot.press("p")
        await until(pilot, lambda: app.clipboard == "$")
        await pilot.press("down", "down", "down", "enter")
        assert '▸   "lines": [{"sku": "A", "pri' in shown(detail)
        assert "2 elements" in shown(detail)
        await pilot.press("p")
        await until(pilot, lambda: app.clipboard == "$.lines")
        await pilot.press("enter", "down", "down", "down", "y")
        await until(pilot, lambda: app.clipboard == "1.10")
        await pilot.press("up", "y")
        await until(pilot, lambda: app.clipboard == "A")
        await pilot.press("p")
        await until(pilot, lambda: app.clipboard == "$.lines[0].sku")
        await pilot.press("minus")
        assert '"lines": [{"sku": "A"' in shown(detail)
        assert '"id": "o-1"' in shown(detail)
        assert detail.value_at_cursor is not None, "on the fold"
        await pilot.press("less_than_sign")
        assert "3 members" in shown(detail)
        await pilot.press("greater_than_sign", "greater_than_sign")
        assert '▸     {"sku": "A", "price": 1.10},' in shown(detail)
        await pilot.press("plus")
        assert '"price": 12345678901234567890123' in shown(detail)
        await pilot.press("Y")
        await until(pilot, lambda: app.clipboard.startswith('{"global_seq": 1'))
        assert json.loads(app.clipboard)["metadata"] == {"user": "ann"}
        await pilot.press("end", "up", "p")
        await until(pilot, lambda: app.clipboard == "$metadata.user")
        await pilot.press("w")
        assert "▾" not in shown(detail)
        await pilot.press("y")
        await until(pilot, lambda: app.clipboard.startswith('{"global_seq": 1'))
        await pilot.press("w", "home", "down", "y")
        await until(pilot, lambda: app.clipboard == "o-1")
        line = next(at for at, text in enumerate(shown(detail).splitlines()) if '"lines"' in text)
        await pilot.click("#detail", offset=(0, line))
        assert "2 elements" in shown(detail)


async def test_search_unfolds_what_it_finds(dsn18: str, store18: EventStore) -> None:
    await store18.append("o-1", [NewEvent("Placed", JsonText(ORDER), {"user": "Sku"})])
    async with explorer(dsn18) as (app, pilot):
        await open_event(app, pilot, "o-1")
        detail = browse(app).detail
        await pilot.press("minus", "slash", *"sku")
        await until(pilot, lambda: "3 found" in text_of(app), "for the matches")
        await pilot.press("enter")
        await until(pilot, lambda: "1 of 3" in text_of(app))
        assert detail.has_focus
        assert '      {"sku": "B"' not in text_of(app)
        await pilot.press("y")
        await until(pilot, lambda: app.clipboard == "A")
        await pilot.press("n", "y")
        await until(pilot, lambda: app.clipboard == "B")
        await pilot.press("n", "y")
        await until(pilot, lambda: app.clipboard == "Sku")
        await pilot.press("n")
        await until(pilot, lambda: "1 of 3" in text_of(app))
        await pilot.press("N")
        await until(pilot, lambda: "3 of 3" in text_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: "of 3" not in text_of(app))
        assert detail.has_focus
        await pilot.press("escape")
        assert browse(app).events.has_focus


async def test_age_grows_while_one_looks(dsn18: str, store18: EventStore) -> None:
    await store18.append("o-1", [NewEvent("Placed")])
    async with explorer(dsn18) as (app, pilot):
        await open_event(app, pilot, "o-1")

        def age() -> str:
            [line] = [line for line in lines_of(app) if "created_at" in line]
            return line.split("Z")[-1]

        first = age()
        await until(pilot, lambda: age() != first, "for a second to pass")


async def test_large_values_fold_and_are_found_while_they_are_laid_out(dsn18: str, store18: EventStore) -> None:
    rows = ", ".join(f'{{"i": {n}, "price": {n}.10}}' for n in range(40_000))
    await store18.append("big", [NewEvent("Huge", JsonText(f'{{"rows": [{rows}]}}'), {"after": "data"})])
    async with explorer(dsn18) as (app, pilot):
        await open_event(app, pilot, "big")
        detail = browse(app).detail
        await pilot.press("slash", *"39999.10", "enter")
        await until(pilot, lambda: "1 of 1" in text_of(app) and '"price": 39999.10' in text_of(app), "for the match")
        await until(pilot, lambda: detail.document.laid_out)
        await pilot.press("minus")
        await until(pilot, lambda: "40,000 elements" in text_of(app))
        assert '"after": "data"' in text_of(app)
