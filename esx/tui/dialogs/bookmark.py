"""Keeping a place with a note, and the list of the places that are kept."""

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from esx.bookmarks import Bookmark
from esx.locators import Locator
from esx.text import ago, visible
from esx.tui.cells import MUTED, fit
from esx.tui.dialogs.dialog import Dialog, OptionsDialog
from esx.tui.widgets.line import Line


def place_of(locator: Locator) -> str:
    """Return the place of a locator, safe to show: ``orders-42 @7``."""
    stream = "$all" if locator.stream is None else visible(locator.stream, limit=200)
    return stream if locator.number is None else f"{stream} @{locator.number}"


class BookmarkNote(Dialog[str]):
    """Asks for the note of a place; the result is the note, which may be empty."""

    KEYMAP_PREFIX = "bookmark"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "Leave it")]
    DEFAULT_CSS = """
    BookmarkNote {
        align: center middle;
        Vertical {
            width: 90%; max-width: 80; height: auto;
            border: round $primary; background: $surface; padding: 0 1;
        }
        Static { height: auto; text-style: bold; }
        Input { height: 1; border: none; padding: 0; background: $boost; }
    }
    """

    def __init__(self, locator: Locator) -> None:
        super().__init__()
        self._locator = locator

    def compose(self) -> ComposeResult:
        """Lay out the place above the line for the note."""
        with Vertical() as box:
            box.border_title = "bookmark"
            box.border_subtitle = "enter keeps it · esc leaves"
            yield Static(Content(place_of(self._locator)))
            yield Line(placeholder="a note, if you like", compact=True)

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        message.stop()
        self.end(message.value.strip())


class BookmarkList(OptionsDialog[tuple[str, Bookmark]]):
    """Lists the places that are kept; the result is ``open``, ``copy`` or ``remove``, and the bookmark."""

    KEYMAP_PREFIX = "bookmarks"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,apostrophe", "close", "Close"),
        Binding("y", "copy", "Copy", tooltip="Copy the locator, for esx open"),
        Binding("delete,D", "remove", "Remove", tooltip="Forget this bookmark"),
        *OptionsDialog.LETTERS,
    ]

    def __init__(self, marks: Sequence[Bookmark]) -> None:
        super().__init__()
        # The newest is what one looks for.
        self._marks = list(marks)[::-1]

    def compose(self) -> ComposeResult:
        """Lay out the list."""
        options = OptionList(*map(self._option, self._marks))
        options.border_title = "bookmarks"
        options.border_subtitle = "enter goes there · y copies · D forgets · esc closes"
        yield options

    def _option(self, mark: Bookmark) -> Option:
        width = max(min(self.app.size.width * 9 // 10, 110) - 12, 20)
        place = width * 2 // 5
        return Option(
            Content.assemble(
                (fit(place_of(mark.locator), place, middle=True), "bold"),
                " ",
                fit(visible(mark.note, limit=300), width - place - 1),
                (f" {ago(mark.made_at):>4}", MUTED),
            )
        )

    def on_mount(self) -> None:
        """Begin at the newest."""
        self.query_one(OptionList).highlighted = 0

    def _end(self, what: str) -> None:
        at = self.query_one(OptionList).highlighted
        if at is not None:
            self.end((what, self._marks[at]))

    def action_copy(self) -> None:
        """Copy the locator of the bookmark under the cursor."""
        self._end("copy")

    def action_remove(self) -> None:
        """Forget the bookmark under the cursor."""
        self._end("remove")

    @on(OptionList.OptionSelected)
    def _selected(self, message: OptionList.OptionSelected) -> None:
        self.end(("open", self._marks[message.option_index]))
