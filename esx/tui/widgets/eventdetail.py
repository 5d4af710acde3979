"""An event in full: its columns, then data and metadata as JSON. Draws only the lines on screen."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Protocol

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from esx.text import ago, visible
from esx.times import iso
from esx.tui.cells import fit, size_of, tint_style, wrap
from esx.tui.jsonlayout import JsonLayout, Span
from esx.tui.keymap import Keyed
from esx.tui.work import start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events

    from esx.store.model import Event

_LABEL = 11
_LONGEST_ID = 400
_SHORT = 16
"""Fewer lines than this on screen, and the columns go below the payload."""
_IN_PLACE = 100_000
"""JSON up to this many characters is laid out at once; more, in a thread."""


class _Block(Protocol):
    """Some lines of the detail."""

    def __len__(self) -> int: ...

    def spans(self, index: int) -> Sequence[Span]:
        """Return a line as pieces with their roles."""
        ...


class _Lines:
    """Lines that are already made."""

    def __init__(self, lines: list[list[Span]]) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    def spans(self, index: int) -> list[Span]:
        return self._lines[index]


class EventDetail(Keyed, ScrollView, can_focus=True):
    """Shows one event, or a line of text where there is none."""

    PART = "event"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "line(-1)", "Up", show=False),
        Binding("down,j", "line(1)", "Down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("pagedown,ctrl+f,space", "page(1)", "Page down", show=False),
        Binding("home,g", "start", "Start", show=False),
        Binding("end,G", "end", "End", show=False),
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
    }
    """

    def __init__(self, *, id: str | None = None, empty: str = "choose an event") -> None:
        super().__init__(id=id)
        self.event: Event | None = None
        self._empty = empty
        self._blocks: list[_Block] = []
        self._laid_out_for = (0, False)

    @property
    def laid_out(self) -> bool:
        """Whether everything has its lines."""
        return all(block.done for block in self._blocks if isinstance(block, JsonLayout))

    def show(self, event: Event | None, empty: str | None = None) -> None:
        """Show an event from its start; `empty` is said where there is none."""
        if empty is not None:
            self._empty = empty
        self.event = event
        self._lay_out()
        self.scroll_to(y=0, animate=False, force=True)

    def action_line(self, by: int) -> None:
        """Scroll by lines."""
        self.scroll_to(y=self.scroll_offset.y + by, animate=False, force=True)

    def action_page(self, by: int) -> None:
        """Scroll by screens."""
        self.action_line(by * max(self.scrollable_content_region.height - 1, 1))

    def action_start(self) -> None:
        """Go to the first line."""
        self.scroll_to(y=0, animate=False, force=True)

    def action_end(self) -> None:
        """Go to the last line there is yet."""
        self.scroll_to(y=self.virtual_size.height, animate=False, force=True)

    def on_resize(self, _event: events.Resize) -> None:
        """Wrap long lines anew, where the width has changed."""
        if self._laid_out_for != (self._width, self.scrollable_content_region.height < _SHORT):
            self._lay_out()

    @property
    def _width(self) -> int:
        return max(self.scrollable_content_region.width - 1, 10)

    def _lay_out(self) -> None:
        self.workers.cancel_group(self, "layout")
        width = self._width
        short = self.scrollable_content_region.height < _SHORT
        self._laid_out_for = (width, short)
        event = self.event
        if event is None:
            self._blocks = [_Lines([[Span(" " + self._empty, "label")]])]
            self._measure()
            return
        data = JsonLayout(event.data_json, width)
        size = f"  {size_of(len(event.data_json))}" if len(event.data_json) >= 1000 else ""
        layouts = [data]
        metadata: _Block = _Lines([[Span("none", "label")]])
        if event.metadata_json is not None:
            layouts.append(JsonLayout(event.metadata_json, width))
            metadata = layouts[-1]
        columns = _columns(event, width)
        # Where a few lines are all there is, the payload comes first.
        self._blocks = [
            _Lines([*(_summary(event, width) if short else columns), []]),
            _Lines([[Span("data", "heading"), Span(size, "label")]]),
            data,
            _Lines([[], [Span("metadata", "heading")]]),
            metadata,
        ]
        if short:
            self._blocks.append(_Lines([[], [Span("columns", "heading")], *columns]))
        large = [layout for layout in layouts if len(layout.text) > _IN_PLACE]
        for layout in layouts:
            # Of a large one, what fills the first screens.
            layout.advance(2000 if layout in large else len(layout.text) + 1)
        self._measure()
        if large:
            start(self, partial(self._finish, large), "layout")

    async def _finish(self, layouts: list[JsonLayout]) -> None:
        for layout in layouts:
            while await asyncio.to_thread(layout.advance):
                self._measure()
        self._measure()

    def _measure(self) -> None:
        self.virtual_size = Size(0, sum(map(len, self._blocks)))
        self.refresh()

    def _spans(self, index: int) -> Sequence[Span]:
        for block in self._blocks:
            if index < len(block):
                return block.spans(index)
            index -= len(block)
        return ()

    def render_line(self, y: int) -> Strip:
        """Draw one line of the screen."""
        width = self.scrollable_content_region.width
        base = self.rich_style
        segments = [Segment(" ", base)]
        for span in self._spans(self.scroll_offset.y + y):
            style = base
            if span.role.startswith("type:"):
                style = base + tint_style(span.role[5:], self.app.current_theme.dark)
            elif span.role:
                style = self.get_component_rich_style(f"json--{span.role}")
            segments.append(Segment(span.text, style))
        return Strip(segments).adjust_cell_length(width, base)


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
