"""The lines of a document, with a cursor. Draws only those on screen."""

import asyncio
from time import thread_time
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.strip import Strip

from esx.model import Event
from esx.tui.cells import tint_style
from esx.tui.event.blocks import JsonBlock
from esx.tui.event.document import STEPS, EventDocument
from esx.tui.tasks import cancel, start
from esx.tui.widgets.brush import BrushedView, role_classes

_SLICE = 0.005
"""Seconds of work at a large value before keys are handled; the time that goes to other processes is not work."""

_HEAD = 10
"""The age is in one of the first lines."""


class DocumentView(BrushedView, can_focus=True, inherit_bindings=False):
    """Shows an `EventDocument`, lays large JSON out step by step, and moves the cursor in it."""

    KEYMAP_PREFIX: ClassVar[str] = "event"
    ROLES = "json"
    WITH_BACKGROUND = frozenset({"match", "current", "cursor"})
    COMPONENT_CLASSES: ClassVar[set[str]] = role_classes(
        "json",
        "key string number literal punctuation label strong heading fold path cut added removed changed match current "
        "cursor",
    )
    DEFAULT_CSS = """
    DocumentView {
        overflow-y: auto;
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
        & > .json--current { background: $text-warning; color: $surface; }
        & > .json--cursor { background: $row-blurred; }
    }
    """

    def __init__(self, *, id: str | None = None, empty: str = "choose an event") -> None:
        super().__init__(id=id)
        self.document = EventDocument(empty)
        self.place = (0, 0)
        """The place of the cursor."""
        self._wanted: tuple[JsonBlock, int] | None = None
        """The place of the JSON to go to as soon as that is laid out."""

    @property
    def event(self) -> Event | None:
        """The event that is shown."""
        return self.document.event

    @property
    def as_tree(self) -> bool:
        """Whether JSON is a tree to fold; else it is plain text."""
        return self.document.as_tree

    @property
    def cursor(self) -> int:
        """The line of the cursor."""
        return self.document.line_of(self.place)

    @property
    def value_at_cursor(self) -> tuple[JsonBlock, int] | None:
        """The JSON under the cursor, and the line in it."""
        return self.document.json_at(self.place)

    def set_cursor(self, line: int) -> None:
        """Put the cursor on a line and show it."""
        line = max(0, min(line, len(self.document) - 1))
        self.place = self.document.locate(line) or (0, 0)
        height = max(self.scrollable_content_region.height, 1)
        top = self.scroll_offset.y
        if line < top:
            self._scroll(line)
        elif line >= top + height:
            self._scroll(line - height + 1)
        self.refresh()

    def _scroll(self, line: int) -> None:
        self.scroll_to(y=line, animate=False, force=True)

    def to_first_value(self) -> None:
        """Put the cursor on the first line of JSON."""
        self.place = self.document.first_value
        self._scroll(0)
        self.refresh()

    def action_line(self, by: int) -> None:
        """Move the cursor, or scroll text, by lines."""
        if self.as_tree:
            self.set_cursor(self.cursor + by)
        else:
            self._scroll(self.scroll_offset.y + by)

    def action_page(self, by: int) -> None:
        """Move the cursor, or scroll text, by screens."""
        page = by * max(self.scrollable_content_region.height - 1, 1)
        if self.as_tree:
            self._scroll(self.scroll_offset.y + page)
        self.action_line(page)

    def action_start(self) -> None:
        """Go to the first line."""
        self.set_cursor(0)

    def action_end(self) -> None:
        """Go to the last line, of those that are laid out."""
        self.set_cursor(self.virtual_size.height)

    def go_to(self, block: JsonBlock, place: int) -> None:
        """Put the cursor on a place of the JSON, now or as soon as that is laid out."""
        layout = block.layout
        self._wanted = None
        if not layout.done and (not len(layout) or layout.slice(len(layout) - 1)[1] <= place):
            self._wanted = (block, place)
            return
        index = block.index_of(layout.row_at(place))
        self.place = (self.document.blocks.index(block), index)
        self.measure()
        line, height = self.cursor, self.scrollable_content_region.height
        if not self.scroll_offset.y <= line < self.scroll_offset.y + height:
            self._scroll(line - height // 3)

    def grow_older(self) -> None:
        """Draw the age of the event again, if that has changed; the screen calls it each second."""
        before = len(self.document)
        if self.is_on_screen and self.document.age():
            if len(self.document) == before:
                self.refresh_lines(0, _HEAD)
            else:
                self.measure()

    def on_resize(self, _event: events.Resize) -> None:
        """Wrap long lines for the new width."""
        if self.document.fits(*self._room):
            return
        at = self.value_at_cursor
        place = None if at is None else (self.document.json.index(at[0]), at[0].layout.slice(at[0].row(at[1]))[0])
        self.lay_out()
        if place is not None and place[0] < len(self.document.json):
            self.go_to(self.document.json[place[0]], place[1])
        else:
            self.to_first_value()

    @property
    def _room(self) -> tuple[int, int]:
        return max(self.scrollable_content_region.width - 1, 10), self.scrollable_content_region.height

    def lay_out(self) -> bool:
        """Lay the document out for the current size; return whether any of its JSON is new."""
        cancel(self, "layout")
        self._wanted = None
        is_new = self.document.lay_out(*self._room)
        if not self.document.laid_out:
            start(self, self._finish, "layout")
        self.measure()
        return is_new

    async def _finish(self) -> None:
        # In slices, not in a thread: a thread would hold the interpreter, and so delay keys, for longer.
        for block in self.document.json:
            while not block.layout.done:
                until = thread_time() + _SLICE
                while block.layout.advance(STEPS) and thread_time() < until:
                    pass
                block.folds.grow()
                self.measure()
                if self._wanted is not None:
                    self.go_to(*self._wanted)
                await asyncio.sleep(_SLICE / 5)

    def measure(self) -> None:
        """Take the number of lines from the document."""
        self.virtual_size = Size(0, len(self.document))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw one line of the screen."""
        brush = self.brush
        width, base = brush.width, brush.base
        place = self.document.locate(self.scroll_offset.y + y)
        if place is None:
            return Strip.blank(width, base)
        if self.as_tree and self.has_focus and place == self.place:
            base += Style(bgcolor=brush.role("cursor").bgcolor)
        segments = []
        for span in self.document.spans(place):
            style = base
            if span.role.startswith("type:"):
                style = base + tint_style(span.role[5:], brush.ground)
            elif span.role:
                style = base + brush.role(span.role)
            segments.append(Segment(span.text, style))
        return Strip(segments).adjust_cell_length(width, base)
