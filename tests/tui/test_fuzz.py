"""Any text in an event is drawn without control characters and without reordering, in its own cells."""

from __future__ import annotations

import json
import random
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.content import Content

from esx.fold.states import State
from esx.fold.value import dump
from esx.model import Event
from esx.text import visible
from esx.tui.cells import Cell, fit, wrap
from esx.tui.contrast import ReadableApp
from esx.tui.dialogs.help import Help
from esx.tui.event.blocks import JsonBlock
from esx.tui.event.changes import compare
from esx.tui.event.detail import EventDetail
from esx.tui.event.find import Matches
from esx.tui.lists.column import ListColumn
from esx.tui.lists.rows import EventRow
from esx.tui.lists.rowtable import RowTable
from esx.tui.widgets.notice import Notice
from tests.tui.helpers import lines_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from esx.tui.event.blocks import Block

pytestmark = pytest.mark.slow

FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e007f\U000e0100-\U000e01ef]"
)
PIECES = [
    *("[red]", "[/]", "[@click=app.quit]x[/]", "\\[", "[[", "$primary", "{", "}", ",", '"', "\\", "\\u0000"),
    *(
        "\x1b[31m",
        "\x1b]52;c;aGk=\x07",
        "\x1b]8;;http://x\x1b\\",
        "\x9b2J",
        "\x9d0;t\x9c",
        "\x00",
        "\x08",
        "\x7f",
        "\x85",
    ),
    *(
        "\u202e",
        "\u2066",
        "\u2069",
        "\u061c",
        "\u200b",
        "\u200d",
        "\u200e",
        "\ufeff",
        "\xad",
        "\u180e",
        "\U000e0041",
        "\U000e0101",
    ),
    *(
        "\n",
        "\r\n",
        "\t",
        "\v",
        "\u2028",
        "\u2029",
        "日本語",
        "ｆｕｌｌ",
        "🎉",
        "👩\u200d🚀",
        "🇩🇪",
        "❤\ufe0f",
        "1\ufe0f\u20e3",
    ),
    *("e\u0301", "\u0301" * 9, "\u0e33", "ﷺ", "𒐫", "שלום", "مرحبا", "\u1100\u1161", "\u3164", "\U0001f3fd", "x", " "),
]
# What PostgreSQL can hold: neither NUL nor surrogates.
storable = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=3)
hostile = st.lists(st.sampled_from(PIECES) | storable, max_size=14).map("".join)
names = hostile | hostile.map(lambda text: (text or "x") * 20)
values = st.recursive(
    names | st.sampled_from([0, -1.5, True, None, 10**30]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=10,
)
widths = st.integers(1, 60)


def text_of_json(value: Any) -> str:
    return dump(json.loads(json.dumps(value)))


def check(text: str, width: int) -> None:
    assert not FORBIDDEN.search(text), repr(text)
    assert cell_len(text) <= width, (width, repr(text))


@settings(deadline=None)
@given(names, widths, st.booleans())
@example("❤\ufe0f" * 40, 7, False)
def test_fitting_and_wrapping(text: str, width: int, right: bool) -> None:
    shown = visible(text)
    fitted = fit(shown, width, right=right)
    check(fitted, width)
    assert cell_len(fitted) == width
    pieces = wrap(shown, max(width, 2))
    assert "".join(pieces) == shown
    for piece in pieces:
        check(piece, max(width, 2))


def lines(block: Block) -> Sequence[str]:
    return ["".join(span.text for span in block.spans(index)) for index in range(len(block))]


@settings(deadline=None)
@given(values, st.integers(12, 60), st.sampled_from([None, 0, 1, 2]), hostile)
def test_the_tree_and_its_folds(value: Any, width: int, level: int | None, needle: str) -> None:
    text = text_of_json(value)
    block = JsonBlock(text, width)
    while block.layout.advance(3):
        block.folds.grow()
    block.folds.grow()
    if level is not None:
        block.folds.fold_from(level)
    block.matches = Matches(text, needle or '"')
    while block.matches.advance(7):
        pass
    block.signs = {(): "changed"}
    # A column for each side: the frame's space, and a row's least room.
    for line in lines(block):
        check(line, max(width + 1, 18))
    for index in range(len(block)):
        check(visible(block.path(index)), 10**6)


@settings(deadline=None)
@given(values, values, st.integers(16, 60), names)
def test_differences(old: Any, new: Any, width: int, title: str) -> None:
    comparison = compare(title, text_of_json(old), text_of_json(new))
    for line in lines(comparison.lines(width)):
        check(line, width + 8)


def hostile_text(rng: random.Random, pieces: int = 12) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(pieces))).replace("\x00", "") or "x"


def hostile_json(rng: random.Random) -> str:
    value = {hostile_text(rng): [hostile_text(rng), {hostile_text(rng): hostile_text(rng, 60)}], "n": 1}
    return dump(value)


class Stage(ReadableApp):
    def compose(self) -> ComposeResult:
        yield RowTable[EventRow](
            [
                ListColumn("seq", lambda row: Cell(str(row.stream_seq)), 5, right=True),
                ListColumn("stream", lambda row: Cell(row.stream, "strong"), share=2),
                ListColumn("type", lambda row: Cell(row.event_type, tint=row.event_type), 9, right=True),
                ListColumn("data", lambda row: Cell(row.preview), share=3),
            ],
            id="table",
            empty="",
        )
        yield EventDetail(id="detail")
        yield Notice(id="notice")


@pytest.mark.parametrize("width", [40, 81])
async def test_whole_widgets(width: int) -> None:
    rng = random.Random(width)
    app = Stage()
    async with app.run_test(size=(width, 50)) as pilot:
        table, detail = app.query_one("#table", RowTable), app.query_one("#detail", EventDetail)
        for number in range(25):
            text = hostile_text(rng) * (5000 if number == 7 else 1)
            event = Event(number, text, number, hostile_text(rng), hostile_json(rng), hostile_json(rng), NOW, None)
            table.set_rows([EventRow.of(event)], cursor=0, offset=0)
            detail.show(event)
            detail.find(rng.choice(PIECES))
            if number % 3 == 0:
                detail.compare(compare(text[:300], hostile_json(rng), event.data_json))
            elif number % 3 == 1:
                detail.show_state(State(event, hostile_json(rng), "null"), None)
            detail.action_fold(rng.choice([0, 1]))
            app.query_one(Notice).say("title", text, "remedy", error=True)
            table.border_title = Content(visible(text, limit=60))
            detail.focus()
            await pilot.pause()
            for widget in (table, detail):
                for y in range(widget.size.height):
                    strip = widget.render_line(y)
                    width_of_line = widget.scrollable_content_region.width
                    assert strip.cell_length == cell_len(strip.text) == width_of_line
                    assert not FORBIDDEN.search(strip.text)
            for line in lines_of(app):
                check(line, width)
        await app.push_screen(Help([(visible(text), [("k", visible(hostile_text(rng)))])]))
        await pilot.pause()
        for line in lines_of(app):
            check(line, width)


NOW = datetime(2026, 8, 7, tzinfo=UTC)
