from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len

from esx.model import NewEvent
from tests.tui.helpers import browse, explorer, feed_of, lines_of, text_of, until

if TYPE_CHECKING:
    from esx.eventstore import EventStore
    from esx.tui.app import Explorer
    from esx.tui.lists.rows import StreamRow
    from esx.tui.screens.streams import StreamsPane

pytestmark = pytest.mark.slow

HOSTILE = {
    "markup": "[red]x[/red] [/] [@click=app.quit]quit[/]",
    "ansi": "\x1b[31mred\x1b[0m\x1b[2J",
    "osc": "\x1b]52;c;aGFjaw==\x07\x1b]0;title\x07",
    "lines": "one\ntwo\r\nthree\u2028four\tfive",
    "bidi": "abc\u202egnp.exe\u202c\u2066x\u2069",
    "wide": "日本語 🎉 e\u0301\u0301\u0301 ｆｕｌｌ",
    "c1": "\x9b31m\x85\x90",
    "long": "L" * 100_000,
}
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def check(app: Explorer, size: tuple[int, int]) -> None:
    for line in lines_of(app):
        assert not FORBIDDEN.search(line), repr(line)
        assert cell_len(line) == size[0], repr(line)


def is_open(pane: StreamsPane, row: StreamRow) -> bool:
    assert row.summary is not None
    event = pane.detail.event
    return (
        event is not None
        and event.stream_id == pane.events_panel.stream_id == row.summary.stream_id
        and pane.detail.document.laid_out
    )


@pytest.mark.parametrize("size", [(80, 24), (200, 40)])
async def test_nothing_from_the_database_is_obeyed(dsn18: str, store18: EventStore, size: tuple[int, int]) -> None:
    for text in HOSTILE.values():
        await store18.append(text, [NewEvent(text[:50_000], {text[:5000]: text, "n": [text, 1]}, {"m": text})])
    async with explorer(dsn18, drawn=True, size=size, label=HOSTILE["ansi"] + HOSTILE["lines"]) as (app, pilot):
        pane = browse(app)
        check(app, size)
        for row in pane.streams.rows[1:]:
            assert row.summary is not None
            await pilot.press("down")
            await until(pilot, partial(is_open, pane, row))
            check(app, size)
            pane.detail.scroll_end(animate=False)
            await pilot.pause()
            check(app, size)
        await pilot.press("2")
        await until(pilot, lambda: feed_of(app).table.rows)
        await pilot.press("enter")
        await until(pilot, lambda: feed_of(app).detail.event is not None)
        await pilot.pause()
        check(app, size)
        await pilot.press("4")
        await until(pilot, lambda: "trigger in place" in text_of(app))
        check(app, size)


async def test_markup_is_text(dsn18: str, store18: EventStore) -> None:
    await store18.append("[red]x[/red]", [NewEvent("[b]T[/b]", {"a": [True]})])
    async with explorer(dsn18, drawn=True, size=(200, 40)) as (app, pilot):
        await until(pilot, lambda: "[b]T[/b]" in text_of(app) and "[red]x[/red]" in text_of(app))
        await pilot.press("down")
        await until(pilot, lambda: "a [true]" in text_of(app))
