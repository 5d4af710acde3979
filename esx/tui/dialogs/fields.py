"""Asking for a few texts."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static

from esx.text import visible
from esx.tui.cells import MUTED
from esx.tui.dialogs.dialog import Dialog
from esx.tui.widgets.line import Line


class Field(NamedTuple):
    """A text to ask for: its name, what it is, an example, and what it is now. One that is `needed` is not empty."""

    name: str
    about: str
    example: str
    value: str = ""
    needed: bool = False


class Fields(Dialog[dict[str, str]]):
    """Asks for texts; the result has them by their names."""

    KEYMAP_PREFIX = "fields"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "Leave")]
    DEFAULT_CSS = """
    Fields {
        align: center middle;
        & > VerticalScroll {
            width: 90%; max-width: 100; height: auto; max-height: 90%; padding: 1 2;
            border: round $primary; background: $surface;
        }
        Input { padding: 0 1; background: $boost; margin-bottom: 1; }
    }
    """

    def __init__(self, title: str, fields: Sequence[Field], note: str = "") -> None:
        super().__init__()
        self._title = title
        self._fields = fields
        self._note = note

    def compose(self) -> ComposeResult:
        """Lay out the fields, one below the other."""
        with VerticalScroll(can_focus=False) as box:
            box.border_title = Content(visible(self._title, limit=80))
            box.border_subtitle = "enter goes on · tab to the next field · esc leaves"
            for field in self._fields:
                yield Static(Content(field.about))
                yield Line(
                    field.value,
                    placeholder=field.example,
                    id=f"field-{field.name}",
                    select_on_focus=False,
                    compact=True,
                )
            yield Static(Content.styled(self._note, MUTED), id="fields-note")

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        message.stop()
        found = {field.name: self.query_one(f"#field-{field.name}", Input).value.strip() for field in self._fields}
        for field in self._fields:
            if field.needed and not found[field.name]:
                self.query_one(f"#field-{field.name}", Input).focus()
                return
        self.end(found)
