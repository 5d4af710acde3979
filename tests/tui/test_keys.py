"""Which keys are offered, and that those which other tests do not press do what they say."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Any

import pytest
from textual.drivers.headless_driver import HeadlessDriver
from textual.widgets import OptionList

from esx.config import Config, Connection
from esx.model import NewEvent
from esx.tui.keymap import actions
from esx.tui.screens.trail import TrailPane
from esx.tui.tuning import Tuning
from tests.tui.helpers import browse, explorer, feed_of, fill, lines_of, text_of, until

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from esx.eventstore import EventStore
    from esx.tui.app import Explorer
    from esx.tui.lists.pagedlist import PagedList

pytestmark = pytest.mark.slow


SAME = {
    "a": {"all"},
    "b": {"flip"},
    "c": {"categories"},
    "d": {"diff"},
    "f": {"find", "filter"},
    "g": {"start", "first"},
    "D": {"remove", "clean"},
    "G": {"end", "last"},
    "h": {"focus_list", "collapse", "part-to-the-left"},
    "l": {"focus_detail", "expand", "part-to-the-right"},
    "r": {"retry", "refresh"},
    "s": {"sort", "order"},
    "slash": {"search", "filter", "find"},
    "x": {"copy_as", "close"},
    "y": {"copy", "copy_value"},
    "Y": {"copy"},
    "ctrl+b": {"page-up"},
    "ctrl+f": {"page-down"},
    "minus": {"fold-all"},
    "question_mark": {"help", "close"},
}
"""The actions that are one meaning of a key, wherever it is pressed; a key that is not here has one action."""


def test_a_key_means_the_same_on_all_screens() -> None:
    meanings: dict[str, set[str]] = {}
    for name, (keys, _what) in actions().items():
        for key in keys.split(","):
            if len(key) == 1 or key in SAME or key.startswith("ctrl+") or key == "space":
                meanings.setdefault(key, set()).add(name.rpartition(".")[2])
    for key, found in meanings.items():
        assert len(found) == 1 or found <= SAME.get(key, set()), (key, found)


async def test_the_footer_begins_with_the_focused_part_and_always_ends_with_help_and_quit(
    dsn18: str, store18: EventStore
) -> None:
    await fill(store18, 3, 3)
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):

        def footer() -> str:
            return lines_of(app)[-1]

        async def begins(text: str, width: int) -> None:
            await until(
                pilot, lambda: len(footer()) == width and footer().startswith(text), f"for a footer with {text}"
            )
            # Keys are left out as a whole.
            wanted = width == 200 or text.startswith("enter")
            await until(pilot, lambda: ("y Copy" in footer()) == wanted, f"for the keys with room in {width}")
            assert footer().rstrip().endswith("? Help q Quit ^p palette")

        await until(pilot, lambda: browse(app).detail.event is not None)
        for width in (80, 200):
            await pilot.resize_terminal(width, 24)
            await begins("/ Filter s Sort c Group t Trail", width)
            await pilot.press("right")
            await begins("f / Find : Go to a $all b Flip t Trail", width)
            await pilot.press("right")
            await begins("enter Fold y Copy d Diff v State / Search t Trail", width)
            if width == 80:
                await pilot.press("left", "left")
        await pilot.resize_terminal(60, 24)
        await until(pilot, lambda: len(footer()) == 60 and footer().startswith("enter Fold y Copy d Diff v State  "))
        assert footer().endswith("? Help q Quit ^p palette")
        # In a field every letter is only typed.
        await pilot.press("f", "slash")
        await until(
            pilot, lambda: footer().split() == ["enter", "Apply", "esc", "Leave", "^q", "Quit", "^p", "palette"]
        )


async def test_letters_move_as_the_arrows_do(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 40, 3)
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):
        streams, events, detail = browse(app).streams, browse(app).events, browse(app).detail

        async def lead(where: PagedList[Any, Any], moves: dict[str, int]) -> None:
            for key, row in moves.items():
                await pilot.press(key)
                await until(pilot, lambda row=row: where.cursor == row, f"for {key} to lead to {row}")  # type: ignore[misc]

        page = streams.body_height - 1
        await lead(streams, {"j": 1, "G": 40, "k": 39, "g": 0, "ctrl+f": page, "ctrl+b": 0})
        await lead(streams, {"down": 1, "end": 40, "up": 39, "home": 0, "pagedown": page, "pageup": 0})
        await pilot.press("l")
        await until(pilot, lambda: events.has_focus)
        await pilot.press("l")
        await until(pilot, lambda: detail.has_focus and detail.document.laid_out)
        await pilot.press("G")
        bottom = detail.cursor
        assert bottom > 5
        await pilot.press("k", "k", "j")
        assert detail.cursor == bottom - 1
        await pilot.press("g")
        assert detail.cursor == 0
        await pilot.press("ctrl+f", "ctrl+b")
        assert detail.cursor == 0
        await pilot.press("h")
        await until(pilot, lambda: events.has_focus)
        await pilot.press("h", "c")
        await until(pilot, lambda: "▸ s" in text_of(app))
        await pilot.press("down", "l")
        await until(pilot, lambda: "▾ s" in text_of(app))
        await pilot.press("h")
        await until(pilot, lambda: "▸ s" in text_of(app))


async def test_keys_of_the_feed_and_the_trail(dsn18: str, store18: EventStore) -> None:
    await store18.append("a", [NewEvent("First", {}, {"correlation_id": "c"})])
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: feed_of(app).table.rows)
        await pilot.press("enter")
        await until(pilot, lambda: feed_of(app).detail.event is not None and feed_of(app).has_class("-detail"))
        for key, focused in {"l": "feed-detail", "h": "feed", "right": "feed-detail", "left": "feed"}.items():
            await pilot.press(key)
            await until(pilot, lambda focused=focused: app.screen.query(f"#{focused}:focus"), f"for {focused}")  # type: ignore[misc]
        await pilot.press("d")
        await until(pilot, lambda: "the first event of its stream" in text_of(app), "for d, which compares everywhere")
        await pilot.press("escape")
        await until(pilot, lambda: not feed_of(app).has_class("-detail"))

        await pilot.press("t")
        trail = await _trail(app, pilot)
        for key, focused in {"l": "trail-detail", "h": "trail", "right": "trail-detail", "left": "trail"}.items():
            await pilot.press(key)
            await until(pilot, lambda focused=focused: app.screen.query(f"#{focused}:focus"), f"for {focused}")  # type: ignore[misc]
        await store18.append("a", [NewEvent("Second", {}, {"correlation_id": "c"})])
        await pilot.press("r")
        await until(pilot, lambda: len(trail.table.rows) == 2, "for what r reads again")


async def test_m_looks_further_for_a_trail_that_no_index_finds(dsn18: str, store18: EventStore) -> None:
    for number in range(12):
        await store18.append("a", [NewEvent(f"T{number}", {}, {"correlationId": "c" if number in (0, 11) else "d"})])
    async with explorer(dsn18, tuning=Tuning(trail_scan=5)) as (app, pilot):
        await until(pilot, lambda: browse(app).event_at_hand() == 12)
        await pilot.press("t")
        trail = await _trail(app, pilot)
        assert len(trail.table.rows) == 1
        await until(pilot, lambda: "m looks further" in text_of(app) and "m Look further" in lines_of(app)[-1])
        await pilot.press("m")
        await until(pilot, lambda: len(trail.table.rows) == 2, "for the event that is further away")


async def test_dialogs_are_moved_in_by_letters_too(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    config = Config(connections={"other": Connection("other", dsn="postgresql:///other")})
    async with explorer(dsn18, config=config) as (app, pilot):
        await until(pilot, lambda: browse(app).detail.event is not None)
        for key in ("ctrl+o", "x"):
            await pilot.press(key)
            await until(pilot, lambda: app.screen.query_one(OptionList).highlighted is not None, f"for {key}")
            options = app.screen.query_one(OptionList)
            first = options.highlighted
            await pilot.press("j")
            await until(pilot, lambda options=options, first=first: options.highlighted != first)  # type: ignore[misc]
            await pilot.press("k")
            await until(pilot, lambda options=options, first=first: options.highlighted == first)  # type: ignore[misc]
            await pilot.press("escape")
            await until(pilot, lambda: len(app.screen_stack) == 1)


async def test_r_on_health_reads_at_once(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    async with explorer(dsn18, tuning=Tuning(read_health=3600)) as (app, pilot):
        await pilot.press("4")
        await until(pilot, lambda: re.search(r"last visible +1 ", text_of(app)))
        await store18.append("x", [NewEvent("T")])
        await pilot.press("r")
        await until(pilot, lambda: re.search(r"last visible +2 ", text_of(app)), "for the figures to be read again")


async def test_help_tells_of_the_arrows_that_go_from_part_to_part(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    async with explorer(dsn18, size=(120, 60)) as (app, pilot):
        await pilot.press("question_mark")
        await until(pilot, lambda: "→ l" in text_of(app) and "← h" in text_of(app), "for both ways to say it")


async def _trail(app: Explorer, pilot: Pilot[None]) -> TrailPane:
    await until(pilot, lambda: app.query(TrailPane).first().trail is not None, "for the trail")
    pane = app.query(TrailPane).first()
    await until(pilot, lambda: pane.table.has_focus and pane.table.rows)
    return pane


async def test_it_is_suspended_on_a_terminal_only(dsn18: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr("os.kill", lambda _pid, number: sent.append(number))
    async with explorer(dsn18, connected=False) as (app, pilot):
        await pilot.press("ctrl+z")
        assert sent == []
        monkeypatch.setattr(HeadlessDriver, "can_suspend", property(lambda _self: True))
        for is_web in (True, False):
            monkeypatch.setattr(HeadlessDriver, "is_web", property(lambda _self, is_web=is_web: is_web))  # type: ignore[misc]
            await pilot.press("ctrl+z")
            assert sent == ([] if is_web else [signal.SIGTSTP])
            offered = [command.title for command in app.get_system_commands(app.screen)]
            assert ("Stop for now; fg in the shell goes on" in offered) is not is_web
