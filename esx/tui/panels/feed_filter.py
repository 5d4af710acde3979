"""The line for the filter of the feed."""

from dataclasses import dataclass

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Label, Static

from esx.filters import Filter
from esx.text import visible

_FIELDS = {
    "stream": "glob, e.g. account-*",
    "type": "glob, e.g. *Placed",
    "data": "JSONPath, e.g. $.amount > 100",
}


class FilterLine(Vertical):
    """Three fields side by side: stream, type and a JSONPath. Enter in any of them applies all."""

    @dataclass
    class Entered(Message):
        """The filter was entered."""

        where: Filter

    DEFAULT_CSS = """
    FilterLine {
        display: none;
        height: auto;
        background: $boost;
        &.-shown { display: block; }
        Horizontal { height: 1; }
        Label { width: auto; padding: 0 1; color: $text-muted; }
        Input { width: 1fr; height: 1; border: none; padding: 0; background: $boost; }
        #filter-data { width: 2fr; }
        #filter-error { height: auto; max-height: 2; padding: 0 1; color: $text-error; display: none; }
        #filter-error.-shown { display: block; }
    }
    """

    def compose(self) -> ComposeResult:
        """Lay out the fields."""
        with Horizontal():
            for name, hint in _FIELDS.items():
                yield Label(name)
                yield Input(id=f"filter-{name}", placeholder=hint, compact=True)
        yield Static(id="filter-error")

    @property
    def is_open(self) -> bool:
        """Whether it is shown."""
        return self.has_class("-shown")

    def _field(self, name: str) -> Input:
        return self.query_one(f"#filter-{name}", Input)

    def open(self, where: Filter) -> None:
        """Show the line with the current filter."""
        for name, value in zip(_FIELDS, (where.stream, where.event_type, where.where), strict=True):
            self._field(name).value = value or ""
        self.refuse("")
        self.add_class("-shown")
        self._field("stream").focus()

    def close(self) -> None:
        """Hide the line."""
        self.remove_class("-shown")

    def refuse(self, reason: str) -> None:
        """Show why the filter cannot be used."""
        error = self.query_one("#filter-error", Static)
        error.update(Content(visible(reason, limit=300)))
        error.set_class(bool(reason), "-shown")

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        message.stop()
        stream, event_type, where = (self._field(name).value.strip() or None for name in _FIELDS)
        self.post_message(self.Entered(Filter(stream, event_type, where)))


def describe_filter(where: Filter) -> str:
    """Return a filter in words, empty for none."""
    parts = (("stream", where.stream), ("type", where.event_type), ("data", where.where))
    return " · ".join(f"{name} {value}" for name, value in parts if value is not None)
