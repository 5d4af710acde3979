"""An event in full: its columns, then data and metadata as JSON. Draws only the lines on screen."""

from __future__ import annotations

import asyncio
import copy
import json
from bisect import bisect_left
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.actions import SkipAction
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip

from esx.text import ago, visible
from esx.times import iso
from esx.tui.cells import fit, size_of, tint_style, wrap
from esx.tui.detail.blocks import JsonBlock, Lines
from esx.tui.detail.search import Matches
from esx.tui.jsonlayout import Span
from esx.tui.keymap import Keyed
from esx.tui.widgets.brush import BrushedView
from esx.tui.work import cancel, start

if TYPE_CHECKING:
    from textual import events

    from esx.fold.states import State
    from esx.store.model import Event
    from esx.tui.detail.blocks import Block
    from esx.tui.detail.compare import Comparison
    from esx.tui.detail.folds import Folds

_LABEL = 11
_LONGEST_ID = 400
_SHORT = 16
"""Fewer lines than this on screen, and the columns go below the payload."""
_IN_PLACE = 100_000
"""JSON up to this many characters is laid out and folded at once; more, bit by bit."""
_FIRST_STEPS = 300
"""Of a large value, enough to fill the first screens."""
_SLICE = 0.005
"""Seconds for which a large value is laid out before keys have their turn."""
_MOST_COPIED = 1_000_000


class EventDetail(Keyed, BrushedView, can_focus=True, inherit_bindings=False):
    """Shows one event, or a stream's state after it, or a line of text where there is none."""

    PART = "event"
    ROLES = "json"
    WITH_BACKGROUND = frozenset({"match", "current", "cursor"})

    class Changed(Message):
        """What is found, or what is shown, is another now."""

        def __init__(self, detail: EventDetail) -> None:
            super().__init__()
            self.detail = detail

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "line(-1)", "Up", show=False),
        Binding("down,j", "line(1)", "Down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False),
        Binding("home,g", "start", "Start", show=False),
        Binding("end,G", "end", "End", show=False),
        Binding(
            "enter,space", "fold_here", "Fold", key_display="enter", tooltip="Fold or unfold what is under the cursor"
        ),
        Binding("minus", "fold(0)", "Fold all", show=False, key_display="-", tooltip="Fold all but the first level"),
        Binding("plus", "unfold", "Unfold all", show=False, key_display="+", tooltip="Unfold everything"),
        Binding("less_than_sign", "fold(-1)", "A level less", show=False, key_display="<"),
        Binding("greater_than_sign", "fold(1)", "A level more", show=False, key_display=">"),
        Binding("w", "text", "Text", show=False, tooltip="JSON as text, or as a tree to fold"),
        Binding("n", "match(1)", "Next match", show=False),
        Binding("N", "match(-1)", "Previous match", show=False),
        Binding("y", "copy_value", "Copy", tooltip="Copy the value under the cursor"),
        Binding("p", "copy_path", "Copy path", show=False, tooltip="Copy the JSONPath of the value under the cursor"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "json--key",
        "json--string",
        "json--number",
        "json--literal",
        "json--punctuation",
        "json--label",
        "json--strong",
        "json--heading",
        "json--fold",
        "json--path",
        "json--cut",
        "json--added",
        "json--removed",
        "json--changed",
        "json--match",
        "json--current",
        "json--cursor",
    }
    DEFAULT_CSS = """
    EventDetail {
        scrollbar-size-vertical: 1;
        scrollbar-gutter: stable;
        overflow-x: hidden;
        overflow-y: auto;
        scrollbar-background: $surface;
        scrollbar-background-hover: $surface;
        scrollbar-color: $foreground 25%;
        background: $surface;
        color: $foreground;
        & > .json--key { color: $text-primary; }
        & > .json--string { color: $text-success; }
        & > .json--number { color: $text-warning; }
        & > .json--literal { color: $text-accent; }
        & > .json--punctuation { color: $text-muted; }
        & > .json--label { color: $text-muted; }
        & > .json--strong { text-style: bold; }
        & > .json--heading { color: $text-muted; text-style: bold; }
        & > .json--fold { color: $text-muted; }
        & > .json--path { color: $text-primary; }
        & > .json--cut { color: $foreground; }
        & > .json--added { color: $text-success; text-style: bold; }
        & > .json--removed { color: $text-error; text-style: bold; }
        & > .json--changed { color: $text-warning; text-style: bold; }
        & > .json--match { background: $warning 35%; color: $foreground; }
        & > .json--current { background: $warning; color: $background; }
        & > .json--cursor { background: $primary 25%; }
    }
    """

    def __init__(self, *, id: str | None = None, empty: str = "choose an event") -> None:
        super().__init__(id=id)
        self.event: Event | None = None
        self.state: State | None = None
        """The state that is shown in place of the event."""
        self.as_tree = True
        """Whether JSON is a tree to fold; else it is plain text."""
        self._empty = empty
        self._comparison: Comparison | None = None
        self._blocks: list[Block] = []
        self._json: list[JsonBlock] = []
        self._header: Lines | None = None
        self._cursor: tuple[int, int] = (0, 0)
        """The block and its line that keys act on."""
        self._needle = ""
        self._searching = False
        self._wanted_match = 0
        """Which way to go once the search is done, if it was asked for before."""
        self._wanted: tuple[JsonBlock, int] | None = None
        """A place of the JSON to go to as soon as it is laid out."""
        self._laid_out_for = (0, False)

    @property
    def laid_out(self) -> bool:
        """Whether everything has its lines."""
        return all(block.layout.done for block in self._json)

    def show(self, event: Event | None, empty: str | None = None) -> None:
        """Show an event from its start; `empty` is said where there is none."""
        if empty is not None:
            self._empty = empty
        self.event = event
        self.state = None
        self._comparison = None
        self._json = []
        self._lay_out()
        self._to_first_value()

    def show_state(self, state: State, comparison: Comparison | None) -> None:
        """Show a stream's state after an event, and what that event changed in it; stays where it was in the state."""
        place = self._place()
        was_state = self.state is not None
        self.event = state.event
        self.state = state
        self._comparison = comparison
        level = self._json[0].folds.level if was_state and self._json else None
        self._json = []
        self._lay_out()
        if level is not None:
            self._refold(self._json[0], level)
        if was_state and place is not None:
            self.set_cursor(place)
        else:
            self._to_first_value()

    def compare(self, comparison: Comparison | None) -> None:
        """Show, above the data, what changed; None takes it away."""
        self._comparison = comparison
        self._lay_out()
        self._to_first_value()

    # -- the cursor ---------------------------------------------------------------------------------------------

    @property
    def cursor(self) -> int:
        """The line that keys act on."""
        number, index = self._cursor
        return sum(map(len, self._blocks[:number])) + index

    def set_cursor(self, line: int) -> None:
        """Put the cursor on a line and show that."""
        line = max(0, min(line, sum(map(len, self._blocks)) - 1))
        self._cursor = self._locate(line) or (0, 0)
        height = max(self.scrollable_content_region.height, 1)
        top = self.scroll_offset.y
        if line < top:
            self.scroll_to(y=line, animate=False, force=True)
        elif line >= top + height:
            self.scroll_to(y=line - height + 1, animate=False, force=True)
        self.refresh()

    def _place(self) -> int | None:
        return self.cursor if self._blocks else None

    def _locate(self, line: int) -> tuple[int, int] | None:
        for number, block in enumerate(self._blocks):
            if line < len(block):
                return number, line
            line -= len(block)
        return None

    def _to_first_value(self) -> None:
        first = next((number for number, block in enumerate(self._blocks) if block in self._json), 0)
        self._cursor = (first, 0)
        self.scroll_to(y=0, animate=False, force=True)
        self.refresh()

    def action_line(self, by: int) -> None:
        """Move the cursor, or scroll text, by lines."""
        if self.as_tree:
            self.set_cursor(self.cursor + by)
        else:
            self.scroll_to(y=self.scroll_offset.y + by, animate=False, force=True)

    def action_page(self, by: int) -> None:
        """Move the cursor, or scroll text, by screens."""
        page = by * max(self.scrollable_content_region.height - 1, 1)
        if self.as_tree:
            self.scroll_to(y=self.scroll_offset.y + page, animate=False, force=True)
        self.action_line(page)

    def action_start(self) -> None:
        """Go to the first line."""
        self.set_cursor(0)

    def action_end(self) -> None:
        """Go to the last line there is yet."""
        self.set_cursor(self.virtual_size.height)

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on the line; on its fold, or at the second click, fold or unfold."""
        offset = event.get_content_offset(self)
        if offset is None or not self.as_tree:
            return
        line = self.scroll_offset.y + offset.y
        if line < self.virtual_size.height:
            self.set_cursor(line)
            if offset.x < 2 or event.chain == 2:
                self.action_fold_here()

    # -- folding ------------------------------------------------------------------------------------------------

    def _at_cursor(self) -> tuple[JsonBlock, int] | None:
        """Return the JSON that the cursor is in, and the line of it."""
        number, index = self._cursor
        block = self._blocks[number] if number < len(self._blocks) else None
        return (block, index) if isinstance(block, JsonBlock) and index < len(block) else None

    def action_fold_here(self) -> None:
        """Fold or unfold at the cursor; in text, go a screen down."""
        if not self.as_tree:
            self.action_page(1)
            return
        at = self._at_cursor()
        if at is not None:
            block, index = at
            index = block.folds.toggle(index)
            self._cursor = (self._cursor[0], index)
            self._measure()
            self.set_cursor(self.cursor)

    def action_fold(self, by: int) -> None:
        """Show a level more or less of everything; by 0: only the first."""
        if self.as_tree:
            for block in self._json:
                level = block.folds.level
                # Unfolded all is a level deeper than anything one would step through.
                now = 1 if by == 0 else max((3 if level is None else level) + by, 0)
                self._refold(block, now)

    def action_unfold(self) -> None:
        """Unfold everything."""
        if self.as_tree:
            for block in self._json:
                self._refold(block, None)

    def _refold(self, block: JsonBlock, level: int | None) -> None:
        if len(block.layout.text) <= _IN_PLACE or level is None:
            self._take_folds(block, level)
        else:
            # Every row that is seen then has to be looked at.
            start(self, partial(self._refold_aside, block, level), f"fold {block.root}")

    async def _refold_aside(self, block: JsonBlock, level: int) -> None:
        folds = copy.copy(block.folds)
        await asyncio.to_thread(folds.fold_from, level)
        if block in self._json:
            self._take_folds(block, level, folds)

    def _take_folds(self, block: JsonBlock, level: int | None, folds: Folds | None = None) -> None:
        at = self._at_cursor()
        row = at[0].row(at[1]) if at is not None and at[0] is block else None
        if folds is None:
            block.folds.fold_from(level)
        else:
            folds.grow()
            block.folds = folds
        if row is not None:
            self._cursor = (self._cursor[0], block.folds.index_of(row))
        self._measure()
        self.set_cursor(self.cursor)

    def action_text(self) -> None:
        """Show JSON as text, or as a tree again."""
        self.as_tree = not self.as_tree
        for block in self._json:
            block.plain = not self.as_tree
        self._measure()
        self._to_first_value()
        self.post_message(self.Changed(self))

    # -- search -------------------------------------------------------------------------------------------------

    @property
    def found(self) -> tuple[int | None, int]:
        """Which match was gone to, counted from 1, and how many there are so far."""
        before = 0
        current = None
        for block in self._json:
            if block.current is not None:
                current = before + block.current + 1
            before += 0 if block.matches is None else len(block.matches)
        return current, before

    def find(self, needle: str) -> None:
        """Look for text in the JSON, and mark it; the empty text ends that."""
        self._needle = needle
        cancel(self, "search")
        for block in self._json:
            block.matches = Matches(block.layout.text, needle) if needle else None
            block.current = None
        self._searching = bool(needle)
        self._wanted_match = 0
        if needle:
            start(self, self._search, "search")
        self._tell_found()

    async def _search(self) -> None:
        for block in self._json:
            while block.matches is not None and block.matches.advance():
                self._tell_found()
                await asyncio.sleep(0)
        self._searching = False
        self._tell_found()
        if self._wanted_match:
            self.action_match(self._wanted_match)

    def _tell_found(self) -> None:
        self.refresh()
        self.post_message(self.Changed(self))

    def action_match(self, by: int) -> None:
        """Go to the next match after the last one gone to, or after the cursor, and round at the end."""
        current, total = self.found
        # Which one is next is known once all have been found.
        self._wanted_match = by if self._searching else 0
        if not total or self._searching:
            return
        # Before the first match that is gone to stands the cursor.
        at = self._first_match() - (1 if by > 0 else 0) if current is None else current - 1
        place = (at + by) % total
        for block in self._json:
            count = len(block.matches or ())
            block.current = place if 0 <= place < count else None
            if block.current is not None and block.matches is not None:
                self._go_to(block, block.matches.starts[place])
            place -= count
        self._tell_found()

    def _first_match(self) -> int:
        """Return how many matches there are before the cursor."""
        number, index = self._cursor
        before = 0
        for block in self._json:
            if block.matches is not None and self._blocks.index(block) <= number:
                is_here = self._blocks[number] is block
                here = block.layout.slice(block.row(index))[0] if is_here else len(block.layout.text)
                before += bisect_left(block.matches.starts, here)
        return before

    def _go_to(self, block: JsonBlock, place: int) -> None:
        """Put the cursor on a place of the JSON, now or as soon as that is laid out."""
        layout = block.layout
        self._wanted = None
        if not layout.done and (not len(layout) or layout.slice(len(layout) - 1)[1] <= place):
            self._wanted = (block, place)
            return
        index = block.index_of(layout.row_at(place))
        self._cursor = (self._blocks.index(block), index)
        self._measure()
        line, height = self.cursor, self.scrollable_content_region.height
        if not self.scroll_offset.y <= line < self.scroll_offset.y + height:
            self.scroll_to(y=line - height // 3, animate=False, force=True)

    # -- copying ------------------------------------------------------------------------------------------------

    def action_copy_value(self) -> None:
        """Copy the value under the cursor: text as it reads if that is harmless, anything else as JSON."""
        number, index = self._cursor
        value = self._blocks[number].copied(index) if self.as_tree and number < len(self._blocks) else None
        if value is None:
            # The screen's own key copies the event.
            raise SkipAction
        if value.startswith('"') and len(value) <= _MOST_COPIED and visible(text := json.loads(value)) == text:
            value = text
        at = self._at_cursor()
        self.copy(value, "value" if at is None else visible(at[0].path(index), limit=60))

    def action_copy_path(self) -> None:
        """Copy the path of the value under the cursor."""
        at = self._at_cursor()
        if at is None or not self.as_tree:
            self.notify("the cursor is on no value: w shows the JSON as a tree", severity="warning")
        else:
            path = at[0].path(at[1])
            self.copy(path, visible(path, limit=200), "as JSONPath")

    def copy(self, text: str, name: str, note: str = "") -> None:
        """Put text into the terminal's clipboard (OSC 52), and say so; `name` must be safe to show."""
        if len(text) > _MOST_COPIED:
            self.notify(
                f"{size_of(len(text))} is more than terminals take: use esx read with --json instead",
                severity="warning",
                markup=False,
            )
            return
        self.app.copy_to_clipboard(text)
        self.notify(f"{name} copied{' ' if note else ''}{note}, {size_of(len(text))}", markup=False)

    # -- laying out ---------------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Start the clock: what says how old an event is must not stand still."""
        self.set_interval(1, self._age)

    def _age(self) -> None:
        header = self._header
        if header is None or self.event is None or not self.is_on_screen:
            return
        lines = self._head(self.event, *self._laid_out_for)
        if lines != header.lines:
            header.lines[:] = lines
            self._measure()

    def on_resize(self, _event: events.Resize) -> None:
        """Wrap long lines anew, where the width has changed."""
        if self._laid_out_for != (self._width, self.scrollable_content_region.height < _SHORT):
            at = self._at_cursor()
            place = None if at is None else (self._json.index(at[0]), at[0].layout.slice(at[0].row(at[1]))[0])
            self._lay_out()
            if place is not None and place[0] < len(self._json):
                self._go_to(self._json[place[0]], place[1])
            else:
                self._to_first_value()

    @property
    def _width(self) -> int:
        return max(self.scrollable_content_region.width - 1, 10)

    def _lay_out(self) -> None:
        cancel(self, "layout")
        width = self._width
        short = self.scrollable_content_region.height < _SHORT
        self._laid_out_for = (width, short)
        self._header = None
        self._wanted = None
        event = self.event
        if event is None:
            self._json = []
            self._blocks = [Lines([[Span(self._empty, "label")]])]
            self._measure()
            return
        brief = short or self.state is not None
        self._header = Lines(self._head(event, width, short), {} if brief else _column_values(event, width))
        above: list[Block] = [self._header, Lines([[]])]
        if self._comparison is not None:
            above.append(self._comparison.lines(width))
        if self.state is not None:
            self._make_json([(self.state.text, "$")], width)
            title = f"state at version {self.state.version:,}"
            self._blocks = [*above, _heading(title, self.state.text), self._json[0]]
        else:
            texts = [(event.data_json, "$")]
            if event.metadata_json is not None:
                texts.append((event.metadata_json, "$metadata"))
            self._make_json(texts, width)
            below: Block = Lines([[Span("none", "label")]]) if event.metadata_json is None else self._json[1]
            # Where a few lines are all there is, the payload comes first.
            self._blocks = [
                *above,
                _heading("data", event.data_json),
                self._json[0],
                Lines([[], [Span("metadata", "heading")]]),
                below,
            ]
        if short and self.state is None:
            columns = Lines(_columns(event, width), _column_values(event, width))
            self._blocks += [Lines([[], [Span("columns", "heading")]]), columns]
        if self._comparison is not None and self._comparison.signs:
            self._json[0].signs = self._comparison.signs
        else:
            self._json[0].signs = {}
        self._measure()

    def _make_json(self, texts: list[tuple[str, str]], width: int) -> None:
        """Lay JSON out, unless it is as it was."""
        if [(block.layout.text, block.root, block.width) for block in self._json] != [(*text, width) for text in texts]:
            self._json = [JsonBlock(text, width, root) for text, root in texts]
            for block in self._json:
                block.plain = not self.as_tree
                large = len(block.layout.text) > _IN_PLACE
                block.layout.advance(_FIRST_STEPS if large else len(block.layout.text) + 1)
                block.folds.grow()
            if self._needle:
                self.find(self._needle)
        if not self.laid_out:
            start(self, self._finish, "layout")

    async def _finish(self) -> None:
        # In slices here, not in a thread: that would hold the interpreter, and with it every key, for longer.
        for block in self._json:
            while not block.layout.done:
                until = monotonic() + _SLICE
                while block.layout.advance(_FIRST_STEPS) and monotonic() < until:
                    pass
                block.folds.grow()
                self._measure()
                if self._wanted is not None:
                    self._go_to(*self._wanted)
                await asyncio.sleep(_SLICE / 5)

    def _head(self, event: Event, width: int, short: bool) -> list[list[Span]]:
        return _summary(event, width) if short or self.state is not None else _columns(event, width)

    def _measure(self) -> None:
        self.virtual_size = Size(0, sum(map(len, self._blocks)))
        self.refresh()

    # -- drawing ------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """Draw one line of the screen."""
        brush = self.brush
        width, base = brush.width, brush.base
        line = self.scroll_offset.y + y
        located = self._locate(line)
        if located is None:
            return Strip.blank(width, base)
        number, index = located
        if self.as_tree and self.has_focus and located == self._cursor:
            base += Style(bgcolor=brush.role("cursor").bgcolor)
        segments = []
        for span in self._blocks[number].spans(index):
            style = base
            if span.role.startswith("type:"):
                style = base + tint_style(span.role[5:], brush.dark)
            elif span.role:
                style = base + brush.role(span.role)
            segments.append(Segment(span.text, style))
        return Strip(segments).adjust_cell_length(width, base)


def _heading(title: str, text: str) -> Lines:
    size = f"  {size_of(len(text))}" if len(text) >= 1000 else ""
    return Lines([[Span(title, "heading"), Span(size, "label")]])


def _column_values(event: Event, width: int) -> dict[int, str]:
    """Return what copying a line of the columns gives."""
    values = [str(event.global_seq), event.stream_id, str(event.stream_seq), event.event_type, iso(event.created_at)]
    values.append(str(event.event_id))
    copies: dict[int, str] = {}
    at = -1
    for line, spans in enumerate(_columns(event, width)):
        at += 1 if spans[0].text.strip() else 0
        copies[line] = json.dumps(values[at], ensure_ascii=False)
    return copies


def _columns(event: Event, width: int) -> list[list[Span]]:
    """Return the event's columns but data and metadata, a label and a value each; long values over several lines."""
    shown_type = visible(event.event_type, limit=_LONGEST_ID)
    created = iso(event.created_at)
    when = f"{created}  {_when(ago(event.created_at))}"
    if _LABEL + len(when) <= width:
        created = when
    fields = [
        ("global_seq", str(event.global_seq), "number"),
        ("stream_id", visible(event.stream_id, limit=_LONGEST_ID), "strong"),
        ("stream_seq", str(event.stream_seq), "number"),
        ("event_type", shown_type, f"type:{shown_type}"),
        ("created_at", created, ""),
        ("event_id", "none" if event.event_id is None else str(event.event_id), ""),
    ]
    lines: list[list[Span]] = []
    for label, value, role in fields:
        pieces = wrap(value, max(width - _LABEL, 8))
        lines.append([Span(label.ljust(_LABEL), "label"), Span(pieces[0], role)])
        lines += [[Span(" " * _LABEL), Span(piece, role)] for piece in pieces[1:]]
    return lines


def _summary(event: Event, width: int) -> list[list[Span]]:
    """Return two lines that say which event this is."""
    stream = visible(event.stream_id, limit=_LONGEST_ID)
    return [
        [Span(fit(stream, width), "strong")],
        [
            Span("global ", "label"),
            Span(str(event.global_seq), "number"),
            Span("  stream ", "label"),
            Span(str(event.stream_seq), "number"),
            Span(f"  {_when(ago(event.created_at))}", "label"),
        ],
    ]


def _when(short: str) -> str:
    return "just now" if short == "now" else short.removeprefix("+") + (" ahead" if short.startswith("+") else " ago")
