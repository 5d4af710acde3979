"""What changed since the event before, and the stream's state at any version, by their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from esx.fold.reducer import Reducer
from esx.model import JsonText, NewEvent
from tests.tui.helpers import browse, explorer, text_of, until

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from esx.eventstore import EventStore
    from esx.model import Event
    from esx.tui.app import Explorer

pytestmark = pytest.mark.slow


async def order(store: EventStore) -> None:
    await store.append(
        "o-1",
        [
            NewEvent("Placed", JsonText('{"status": "open", "total": 12345678901234567890123.10}')),
            NewEvent("Changed", JsonText('{"status": "held", "note": "call"}')),
            NewEvent("Paid", JsonText('{"status": "paid"}')),
            NewEvent("Changed", JsonText('{"status": "sent", "note": null}')),
        ],
    )


async def open_last(app: Explorer, pilot: Pilot[None]) -> None:
    await pilot.press("down", "enter", "end")
    await until(pilot, lambda: (event := browse(app).detail.event) and event.stream_seq == 3, "for the event")


async def test_diff_goes_round_and_the_state_has_versions(dsn18: str, store18: EventStore) -> None:
    await order(store18)
    async with explorer(dsn18) as (app, pilot):
        await open_last(app, pilot)
        await pilot.press("d")
        await until(pilot, lambda: "changed since 2 Paid  2" in text_of(app), "for the stream's")
        assert '~ $.status  "paid" → "sent"' in text_of(app)
        assert "+ $.note  null" in text_of(app)
        await pilot.press("d")
        await until(pilot, lambda: "changed since 1 Changed  2" in text_of(app), "for the type's")
        assert '~ $.note  "call" → null' in text_of(app)
        await pilot.press("up")
        await until(pilot, lambda: "no Paid among the 2 events before it" in text_of(app), "for the event above")
        await pilot.press("home")
        await until(pilot, lambda: "the first event of its stream" in text_of(app))
        await pilot.press("d")
        await until(pilot, lambda: "the first event" not in text_of(app))

        await pilot.press("end")
        await until(pilot, lambda: (event := browse(app).detail.event) and event.stream_seq == 3, "for the event")
        await pilot.press("v")
        await until(pilot, lambda: "state at version 3 of 3 · JSON merge" in text_of(app), "for the state")
        shown = text_of(app)
        assert '"total": 12345678901234567890123.10' in shown
        assert '- $.note  "call"' in shown
        assert '~  "status": "sent"' in shown
        await pilot.press("left_square_bracket", "left_square_bracket")
        await until(pilot, lambda: "state at version 1 of 3" in text_of(app))
        assert '+  "note": "call"' in text_of(app)
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: "state at version 2 of 3" in text_of(app))
        await pilot.click("Scrubber", offset=(3, 0))
        await until(pilot, lambda: "state at version 0 of 3" in text_of(app), "for a click on the bar")
        await pilot.press("up")
        await until(pilot, lambda: "state at version 2 of 3" in text_of(app), "for the event above")
        await pilot.press("l", "escape")
        await until(pilot, lambda: "› Paid ─" in text_of(app), "for the event again")
        assert browse(app).detail.has_focus


async def test_state_by_a_reducer_and_its_failure(dsn18: str, store18: EventStore) -> None:
    await order(store18)

    def types(state: Any, event: Event) -> Any:
        if event.event_type == "Paid":
            raise ValueError("[red]no[/red]")
        return [*state, event.event_type]

    async with explorer(dsn18, reducer=Reducer("mine:types", types, [])) as (app, pilot):
        await open_last(app, pilot)
        await pilot.press("v")
        await until(pilot, lambda: "reducer mine:types failed at event 3" in text_of(app).replace("│ │", " "))
        assert browse(app).detail.document.state is None
        await pilot.press("home")
        await until(pilot, lambda: (event := browse(app).detail.event) and event.stream_seq == 0)
        await pilot.press("v", "right_square_bracket")
        await until(pilot, lambda: "state at version 1 of 3 · mine:types" in text_of(app))
        assert '"Changed"' in text_of(app)


async def test_a_long_fold_can_be_stopped(dsn18: str, store18: EventStore) -> None:
    import threading

    await store18.append("o-1", [NewEvent("T", {"n": n}) for n in range(300)])
    gate = threading.Event()

    def slow(state: Any, event: Event) -> Any:
        if event.stream_seq > 100:
            gate.wait(120)
        return event.stream_seq

    async with explorer(dsn18, reducer=Reducer("mine:slow", slow)) as (app, pilot):
        await pilot.press("down", "enter", "end")
        await until(pilot, lambda: (event := browse(app).detail.event) and event.stream_seq == 299, "for the event")
        await pilot.press("l", "v")
        part = browse(app).event_panel
        await until(pilot, lambda: any(worker.group == "past" for worker in app.workers))
        await pilot.press("escape")
        gate.set()
        await until(pilot, lambda: not any(worker.group == "past" for worker in app.workers))
        assert not part.has_class("-state")
        assert browse(app).detail.document.state is None
