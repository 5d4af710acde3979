"""The widget that shows an event in full, and takes keys. Draws only the lines on screen."""

from __future__ import annotations

import asyncio
import copy
import json
from functools import partial
from typing import ClassVar

from textual import events
from textual.actions import SkipAction
from textual.binding import Binding, BindingType
from textual.message import Message

from esx.fold.states import State
from esx.model import Event
from esx.payloads.decoder import DecodedEvent
from esx.text import size_of, visible
from esx.tui.event.blocks import JsonBlock
from esx.tui.event.changes import Comparison
from esx.tui.event.document import IN_PLACE
from esx.tui.event.documentview import DocumentView
from esx.tui.event.folds import Folds
from esx.tui.keymap import Keyed
from esx.tui.tasks import cancel, start

_MOST_COPIED = 1_000_000
_MOST_FOUND = 300
"""How long a value may be to be looked for."""


class EventDetail(Keyed, DocumentView, can_focus=True, inherit_bindings=False):
    """Shows one event, or a stream's state after it, or a text where there is none."""

    KEYMAP_PREFIX = "event"

    class Changed(Message):
        """The matches, or the view, have changed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "line(-1)", "Up", show=False),
        Binding("down,j", "line(1)", "Down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False),
        Binding("home,g", "start", "Start", show=False),
        Binding("end,G", "end", "End", show=False),
        Binding("enter", "fold_here", "Fold", key_display="enter", tooltip="Fold or unfold what is under the cursor"),
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

    def __init__(self, *, id: str | None = None, empty: str = "choose an event") -> None:
        super().__init__(id=id, empty=empty)
        self._searching = False
        self._wanted_match = 0
        """Which way to go once the search is done; 0 for nowhere."""

    def lay_out(self) -> bool:
        """Lay the event out, and search new JSON too."""
        is_new = super().lay_out()
        if is_new and self.document.needle:
            self.find(self.document.needle)
        return is_new

    def show(self, event: Event | None, empty: str | None = None, decoded: DecodedEvent | None = None) -> None:
        """Show an event from its start, with what is `decoded` of it; `empty` is the text where there is none."""
        document = self.document
        document.empty = document.empty if empty is None else empty
        document.event, document.state, document.comparison, document.json = event, None, None, []
        document.decoded = decoded
        self.lay_out()
        self.to_first_value()

    def show_state(self, state: State, comparison: Comparison | None) -> None:
        """Show a stream's state after an event, and what the event changed; from state to state, the line stays."""
        document = self.document
        line = self.cursor if document.blocks else None
        was_state = document.state is not None
        level = document.json[0].folds.level if was_state and document.json else None
        document.event, document.state, document.comparison, document.json = state.event, state, comparison, []
        document.decoded = None
        self.lay_out()
        if level is not None:
            self._refold(document.json[0], level)
        if was_state and line is not None:
            self.set_cursor(line)
        else:
            self.to_first_value()

    def compare(self, comparison: Comparison | None) -> None:
        """Show changes above the data; None removes them."""
        self.document.comparison = comparison
        self.lay_out()
        self.to_first_value()

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on the line; on its fold, or at a double click, fold or unfold."""
        offset = event.get_content_offset(self)
        if offset is None or not self.as_tree:
            return
        line = self.scroll_offset.y + offset.y
        if line < self.virtual_size.height:
            self.set_cursor(line)
            if offset.x < 2 or event.chain == 2:
                self.action_fold_here()

    def action_fold_here(self) -> None:
        """Fold or unfold at the cursor; in text, go a screen down."""
        if not self.as_tree:
            self.action_page(1)
            return
        at = self.value_at_cursor
        if at is not None:
            block, index = at
            self.place = (self.place[0], block.folds.toggle(index))
            self.measure()
            self.set_cursor(self.cursor)

    def action_fold(self, by: int) -> None:
        """Show a level more or less; by 0: only the first."""
        if self.as_tree:
            for block in self.document.json:
                level = block.folds.level
                # When all is unfolded, count from level 3.
                self._refold(block, 1 if by == 0 else max((3 if level is None else level) + by, 0))

    def action_unfold(self) -> None:
        """Unfold everything."""
        if self.as_tree:
            for block in self.document.json:
                self._refold(block, None)

    def _refold(self, block: JsonBlock, level: int | None) -> None:
        if len(block.layout.text) <= IN_PLACE or level is None:
            self._take_folds(block, level)
        else:
            # In a thread, because it visits every visible row.
            start(self, partial(self._refold_aside, block, level), f"fold {block.root}")

    async def _refold_aside(self, block: JsonBlock, level: int) -> None:
        folds = copy.copy(block.folds)
        await asyncio.to_thread(folds.fold_from, level)
        if block in self.document.json:
            self._take_folds(block, level, folds)

    def _take_folds(self, block: JsonBlock, level: int | None, folds: Folds | None = None) -> None:
        at = self.value_at_cursor
        row = at[0].row(at[1]) if at is not None and at[0] is block else None
        if folds is None:
            block.folds.fold_from(level)
        else:
            folds.grow()
            block.folds = folds
        if row is not None:
            self.place = (self.place[0], block.folds.index_of(row))
        self.measure()
        self.set_cursor(self.cursor)

    def action_text(self) -> None:
        """Show JSON as text, or as a tree again."""
        self.document.as_tree = not self.as_tree
        self.measure()
        self.to_first_value()
        self.post_message(self.Changed())

    def find(self, needle: str) -> None:
        """Search the JSON for text, and mark it; an empty text ends the search."""
        cancel(self, "search")
        self.document.find(needle)
        self._searching = bool(needle)
        self._wanted_match = 0
        if needle:
            start(self, self._search, "search")
        self._tell_found()

    async def _search(self) -> None:
        for block in self.document.json:
            while block.matches is not None and block.matches.advance():
                self._tell_found()
                await asyncio.sleep(0)
        self._searching = False
        self._tell_found()
        if self._wanted_match:
            self.action_match(self._wanted_match)

    def _tell_found(self) -> None:
        self.refresh()
        self.post_message(self.Changed())

    def action_match(self, by: int) -> None:
        """Go to the next match after the last one, or after the cursor; from the end, to the first."""
        # The next one is known once all have been found.
        self._wanted_match = by if self._searching else 0
        target = None if self._searching else self.document.match(by, self.place)
        if target is not None:
            self.go_to(*target)
            self._tell_found()

    @property
    def text_at_cursor(self) -> str | None:
        """The text or the number under the cursor, as text; None where there is none, such as on an object."""
        value = self.document.copied(self.place)
        if value is None or len(value) > _MOST_FOUND or value[:1] not in '"-0123456789':
            return None
        return str(json.loads(value)) if value.startswith('"') else value

    def action_copy_value(self) -> None:
        """Copy the value under the cursor: harmless text as it is, anything else as JSON."""
        value = self.document.copied(self.place)
        if value is None:
            # The screen's own key copies the event.
            raise SkipAction
        if value.startswith('"') and len(value) <= _MOST_COPIED and visible(text := json.loads(value)) == text:
            value = text
        at = self.value_at_cursor
        self.copy(value, "value" if at is None else visible(at[0].path(at[1]), limit=60))

    def action_copy_path(self) -> None:
        """Copy the path of the value under the cursor."""
        at = self.value_at_cursor
        if at is None or not self.as_tree:
            self.notify("the cursor is on no value: w shows the JSON as a tree", severity="warning")
        else:
            path = at[0].path(at[1])
            self.copy(path, visible(path, limit=200), "as JSONPath")

    def copy(self, text: str, name: str, note: str = "") -> None:
        """Put text into the terminal's clipboard (OSC 52), and say so; `name` must be safe to show."""
        if len(text) > _MOST_COPIED:
            more = f"{size_of(len(text))} is more than terminals take: use esx read with --json instead"
            self.notify(more, severity="warning")
            return
        self.app.copy_to_clipboard(text)
        self.notify(f"{name} copied{' ' if note else ''}{note}, {size_of(len(text))}")
