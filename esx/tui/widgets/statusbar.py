"""The line at the top: the screens, the database, and the state of its connection."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from esx.text import visible
from esx.tui.cells import MUTED, fit

_NARROW = 100


class ScreenTab(Static):
    """The name of a screen with its key; a click goes there."""

    @dataclass
    class Clicked(Message):
        """The tab was clicked."""

        screen_id: str

    def __init__(self, key: str, name: str, screen_id: str) -> None:
        super().__init__(Content.assemble((key, MUTED), " ", name), id=f"tab-{screen_id}")
        self._screen_id = screen_id

    def on_click(self) -> None:
        """Ask for the screen."""
        self.post_message(self.Clicked(self._screen_id))


class _Where(Static):
    """The right end of the line; calls `resized` when its width changes."""

    def __init__(self, resized: Callable[[], None]) -> None:
        super().__init__(id="where")
        self._resized = resized

    def on_resize(self) -> None:
        """Tell it."""
        self._resized()


class StatusBar(Horizontal):
    """The line itself."""

    ALLOW_SELECT = False
    DEFAULT_CSS: ClassVar[str] = """
    StatusBar {
        dock: top;
        height: 1;
        background: $panel;
        color: $foreground;
        #brand { width: 5; color: $text-muted; content-align: center middle; }
        ScreenTab { width: auto; padding: 0 1; }
        &.-narrow ScreenTab { padding: 0 1 0 0; }
        ScreenTab:hover { background: $block-hover-background; }
        ScreenTab.-current {
            background: $surface; color: $foreground; text-style: bold;
        }
        #where { width: 1fr; text-align: right; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    }
    """

    def __init__(self, screens: Sequence[tuple[str, str, str]]) -> None:
        super().__init__()
        self._screens = screens
        self._names: list[str] = [""]
        self._state: tuple[str, str] = ("", "")
        self._where = _Where(self._write)

    def compose(self) -> ComposeResult:
        """Lay out the line."""
        yield Static("esx", id="brand")
        for key, name, screen_id in self._screens:
            yield ScreenTab(key, name, screen_id)
        yield self._where

    def mark(self, current: str) -> None:
        """Mark the current screen."""
        for tab in self.query(ScreenTab):
            tab.set_class(tab.id == f"tab-{current}", "-current")

    def say(self, names: Sequence[str], state: str, colour: str) -> None:
        """Show the first of the database's names that fits, and the state of its connection."""
        shown = [visible(name, limit=200) for name in names]
        # It is told every second, and mostly the same.
        if (shown, (state, colour)) != (self._names, self._state):
            self._names, self._state = shown, (state, colour)
            self._write()

    def on_resize(self, event: events.Resize) -> None:
        """Let the screens leave the name what they can, where there is little room."""
        self.set_class(event.size.width < _NARROW, "-narrow")

    def _write(self) -> None:
        width = self._where.size.width
        state, colour = self._state
        if width < 50:
            # "live" or "polling" is enough.
            state = state.removeprefix("connected, ")
        room = width - len(state) - 4
        database = next((name for name in self._names if cell_len(name) <= room), None)
        if database is None:
            database = fit(self._names[-1], room) if room > 4 else ""
        self._where.update(
            Content.assemble((database, MUTED), "  ", (f"{'●' if colour == MUTED else '▲'} {state}", colour))
        )
