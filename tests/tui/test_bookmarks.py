"""Bookmarks on the screens."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from esx.bookmarks import Bookmarks
from esx.locators import Locator
from esx.model import NewEvent
from esx.permissions import Permissions
from esx.tui.dialogs.bookmark import BookmarkList, BookmarkNote
from tests.tui.helpers import browse, explorer, feed_of, fill, text_of, until

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from esx.eventstore import EventStore
    from esx.tui.app import Explorer

pytestmark = pytest.mark.slow


def kept() -> list[tuple[str, str]]:
    return [(mark.locator.text, mark.note) for mark in Bookmarks.of(os.environ).all()]


async def mark(app: Explorer, pilot: Pilot[None], note: str) -> None:
    before = len(kept())
    await pilot.press("M")
    await until(pilot, lambda: isinstance(app.screen, BookmarkNote))
    await pilot.press(*note, "enter")
    await until(pilot, lambda: len(kept()) == before + 1 and not isinstance(app.screen, BookmarkNote))


async def test_places_are_kept_listed_and_gone_to(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 3, 4)
    async with explorer(dsn18) as (app, pilot):
        await pilot.press("down", "down")
        await until(pilot, lambda: browse(app).events_panel.stream_id == "s-001" and browse(app).events.rows)
        await mark(app, pilot, "whole stream")
        await pilot.press("enter", "end")
        await until(pilot, lambda: browse(app).events.has_focus and browse(app).event_at_hand() == 8)
        await mark(app, pilot, "the last")
        await pilot.press("2")
        await until(pilot, lambda: feed_of(app).table.rows)
        await pilot.press("home")
        await mark(app, pilot, "")
        assert kept() == [
            ("esx:///s-001", "whole stream"),
            ("esx:///s-001@3", "the last"),
            ("esx:///s-000@0", ""),
        ]

        await pilot.press("apostrophe")
        await until(pilot, lambda: isinstance(app.screen, BookmarkList) and "the last" in text_of(app))
        await pilot.press("down", "enter")
        await until(pilot, lambda: browse(app).events.has_focus and browse(app).event_at_hand() == 8)
        await pilot.press("apostrophe")
        await until(pilot, lambda: isinstance(app.screen, BookmarkList))
        await pilot.press("y")
        await until(pilot, lambda: app.clipboard == "esx:///s-000@0")
        await pilot.press("apostrophe")
        await until(pilot, lambda: isinstance(app.screen, BookmarkList))
        await pilot.press("D")
        await until(pilot, lambda: len(kept()) == 2 and isinstance(app.screen, BookmarkList))
        await pilot.press("escape")


async def test_a_hostile_name_is_kept_whole_and_shown_safely(dsn18: str, store18: EventStore) -> None:
    stream = "evil-\x1b[31m/@é " + "x" * 500
    await store18.append(stream, [NewEvent("T", {})])
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: feed_of(app).table.rows)
        await mark(app, pilot, "\\[bold]no markup")
        await pilot.press("apostrophe")
        await until(pilot, lambda: isinstance(app.screen, BookmarkList) and "[bold]no markup" in text_of(app))
        assert Bookmarks.of(os.environ).all()[0].locator == Locator(None, stream, 0)
        await pilot.press("enter")
        await until(pilot, lambda: browse(app).events_panel.stream_id == stream and browse(app).events.rows)


async def test_a_page_keeps_no_bookmarks(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    permissions = Permissions(terminal=False)
    async with explorer(dsn18, permissions=permissions) as (app, pilot):
        await pilot.press("down", "M", "apostrophe")
        await pilot.pause()
        assert not isinstance(app.screen, BookmarkNote | BookmarkList)
        assert kept() == []


async def test_what_cannot_be_read_is_said(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    path = Bookmarks.of(os.environ).path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("nonsense\n")
    async with explorer(dsn18) as (app, pilot):
        await pilot.press("apostrophe")
        await until(pilot, lambda: "is no bookmark" in text_of(app))
