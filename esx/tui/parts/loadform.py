"""The form of the Load screen: the knobs of a load test."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.containers import Grid
from textual.widgets import Input, Label

from esx.load.errors import InvalidOptions
from esx.load.model import EXPECTED, NOTIFICATIONS, ON_CONFLICT, STRATEGIES, LoadOptions
from esx.load.options import validate
from esx.tui.widgets.choice import Choice

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widget import Widget

EVEN, HOT, ZIPF = HEATS = ("even", "hot streams", "zipf")

# Name, label, and what stands in it at first: a number, words to choose from, or None for a field that may be empty.
_FIELDS: tuple[tuple[str, str, str | tuple[str, ...] | None], ...] = (
    ("users", "users", "10"),
    ("expected", "expected", EXPECTED),
    ("duration", "seconds", "30"),
    ("on_conflict", "on conflict", ON_CONFLICT),
    ("warm_up", "warm-up, s", "0"),
    ("strategy", "strategy", STRATEGIES),
    ("streams", "streams", "100"),
    ("notification", "notification", NOTIFICATIONS),
    ("heat", "heat", HEATS),
    ("subscribers", "subscribers", "0"),
    ("hot_streams", "hot streams", "1"),
    ("events_per_append", "events/append", "1"),
    ("hot_share", "hot share, 0-1", "0.5"),
    ("payload_bytes", "payload, bytes", "0"),
    ("zipf", "zipf exponent", "1"),
    ("rate", "rate, /s", None),
    ("seed", "seed", None),
    ("yes_write_to", "yes, write to", None),
)
_HINTS = {"rate": "closed loop", "seed": "none", "yes_write_to": "host/database"}
_TEXTS = frozenset({"yes_write_to"})
_WHOLE = frozenset({"users", "streams", "hot_streams", "events_per_append", "payload_bytes", "subscribers", "seed"})
_NEEDS = {"hot_streams": HOT, "hot_share": HOT, "zipf": ZIPF}


class BadField(Exception):
    """A field holds what makes no sense; `field` is its widget's id."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field


class LoadForm(Grid):
    """The knobs in two columns. What the chosen heat does not use is greyed out."""

    DEFAULT_CSS: ClassVar[str] = """
    LoadForm {
        grid-size: 4; grid-columns: 15 1fr 17 1fr; grid-rows: 1; height: auto; padding: 0 1;
        border: round $foreground 25%; border-title-color: $text-muted; background: $surface;
        Label { color: $text-muted; width: 1fr; text-wrap: nowrap; }
        Label.-right { padding: 0 0 0 2; }
        Input, Input.-textual-compact { height: 1; border: none; padding: 0 1; background: $boost; }
        Input:focus, Input.-textual-compact:focus { background: $primary 25%; }
        Input:disabled { color: $text-disabled; }
        Input.-invalid { background: $error 30%; }
    }
    LoadForm:focus-within { border: round $primary; border-title-color: $text-primary; border-title-style: bold; }
    """

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.border_title = "workload"

    def compose(self) -> ComposeResult:
        """Lay out labels and fields."""
        for at, (name, label, first) in enumerate(_FIELDS):
            yield Label(label, classes="-right" if at % 2 else "")
            if isinstance(first, tuple):
                usual = getattr(LoadOptions(), name, first[0])
                yield Choice(first, usual, id=field_id(name))
            else:
                yield Input(first or "", placeholder=_HINTS.get(name, ""), id=field_id(name), compact=True)

    def on_mount(self) -> None:
        """Grey out what is not used at first."""
        self._grey()

    @on(Choice.Changed, "#load-heat")
    def _heat_changed(self) -> None:
        self._grey()

    def _grey(self) -> None:
        heat = self._choice("heat")
        for name, needed in _NEEDS.items():
            self._field(name).disabled = heat != needed

    def options(self) -> LoadOptions:
        """Return what the form asks for; raises BadField."""
        values: dict[str, object] = {}
        heat = self._choice("heat")
        for name, label, first in _FIELDS:
            if isinstance(first, tuple):
                values[name] = self._choice(name)
            elif _NEEDS.get(name, heat) == heat:
                values[name] = self._number(name, label, optional=first is None)
        del values["heat"]
        try:
            return validate(LoadOptions(**values))  # type: ignore[arg-type]
        except InvalidOptions as error:
            # The message begins with the option's name as the command line has it.
            option = str(error).partition(" ")[0].lstrip("-").replace("-", "_")
            known = option if any(name == option for name, _, _ in _FIELDS) else "users"
            raise BadField(field_id(known), str(error)) from None

    def fill(self, options: LoadOptions) -> None:
        """Put the options of a run into the form."""
        heat = ZIPF if options.zipf else HOT if options.hot_streams else EVEN
        self.query_one("#load-heat", Choice).choose(heat)
        for name, _, first in _FIELDS:
            if name == "heat":
                continue
            value = getattr(options, name)
            if isinstance(first, tuple):
                self.query_one(f"#{field_id(name)}", Choice).choose(value)
            elif _NEEDS.get(name, heat) == heat:
                text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
                self.query_one(f"#{field_id(name)}", Input).value = text
        self._grey()

    def mark(self, field: str) -> None:
        """Go to a field whose content makes no sense."""
        for line in self.query(Input):
            line.set_class(line.id == field, "-invalid")
        self.query_one(f"#{field}").focus()

    def _field(self, name: str) -> Widget:
        return self.query_one(f"#{field_id(name)}")

    def _choice(self, name: str) -> str:
        return self.query_one(f"#{field_id(name)}", Choice).value

    def _number(self, name: str, label: str, *, optional: bool) -> object:
        line = self.query_one(f"#{field_id(name)}", Input)
        text = line.value.strip()
        line.remove_class("-invalid")
        if not text and optional:
            return None
        if name in _TEXTS:
            return text
        try:
            value = int(text) if name in _WHOLE else float(text)
        except ValueError:
            what = "a whole number" if name in _WHOLE else "a number"
            raise BadField(field_id(name), f"{label}: {text[:40]!r} is not {what}") from None
        if not math.isfinite(value):
            raise BadField(field_id(name), f"{label}: use a number that is finite")
        return value


def field_id(name: str) -> str:
    """Return the id of the field for an option."""
    return f"load-{name.replace('_', '-')}"
