"""The form of the Load screen: the knobs of a load test."""

import math
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.widget import Widget
from textual.widgets import Input, Label

from esx.load.errors import InvalidOptions
from esx.load.model import EXPECTED, NOTIFICATIONS, ON_CONFLICT, STRATEGIES, LoadOptions
from esx.load.options import validate
from esx.tui.widgets.choice import Choice
from esx.tui.widgets.frame import Frame

EVEN, HOT, ZIPF = HEATS = ("even", "hot streams", "zipf")

# Name, label, and the first content: a number, words to choose from, or None for a field that may be empty.
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
    """A field has an invalid value; `field` is its widget's id."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field


class LoadForm(Frame):
    """The knobs in two columns. Fields that the chosen heat does not use are disabled."""

    DEFAULT_CSS: ClassVar[str] = """
    LoadForm {
        layout: grid; grid-size: 4; grid-columns: 15 1fr 17 1fr; grid-rows: 1; height: auto;
        Label { color: $text-muted; width: 1fr; text-wrap: nowrap; }
        Label.-right { padding: 0 0 0 2; }
        Input, Input.-textual-compact { height: 1; border: none; padding: 0 1; background: $boost; }
        Input:focus, Input.-textual-compact:focus { background: $primary 25%; }
        Input:disabled { color: $text-disabled; }
        Input.-invalid { background: $error 30%; }
    }
    """

    def __init__(self, *, id: str) -> None:
        super().__init__("workload", id=id)
        usual = LoadOptions()
        self._choices = {
            name: Choice(first, getattr(usual, name, first[0]), id=field_id(name))
            for name, _, first in _FIELDS
            if isinstance(first, tuple)
        }
        self._inputs = {
            name: Input(first or "", placeholder=_HINTS.get(name, ""), id=field_id(name), compact=True)
            for name, _, first in _FIELDS
            if not isinstance(first, tuple)
        }
        self._disable_unused()

    def compose(self) -> ComposeResult:
        """Lay out labels and fields."""
        fields: dict[str, Widget] = {**self._choices, **self._inputs}
        for at, (name, label, _) in enumerate(_FIELDS):
            yield Label(label, classes="-right" if at % 2 else "")
            yield fields[name]

    @on(Choice.Changed)
    def _disable_unused(self) -> None:
        for name, needed in _NEEDS.items():
            self._inputs[name].disabled = self._choices["heat"].value != needed

    def options(self) -> LoadOptions:
        """Return the options of the form; raises BadField."""
        values: dict[str, object] = {name: choice.value for name, choice in self._choices.items()}
        heat = values.pop("heat")
        for name, label, first in _FIELDS:
            if name in self._inputs and _NEEDS.get(name, heat) == heat:
                values[name] = self._number(name, label, optional=first is None)
        try:
            return validate(LoadOptions(**values))  # type: ignore[arg-type]
        except InvalidOptions as error:
            # The message begins with the name of the command-line option.
            option = str(error).partition(" ")[0].lstrip("-").replace("-", "_")
            known = option if any(name == option for name, _, _ in _FIELDS) else "users"
            raise BadField(field_id(known), str(error)) from None

    def fill(self, options: LoadOptions) -> None:
        """Put the options of a run into the form."""
        heat = ZIPF if options.zipf else HOT if options.hot_streams else EVEN
        for name, choice in self._choices.items():
            choice.choose(heat if name == "heat" else getattr(options, name))
        for name, line in self._inputs.items():
            value = getattr(options, name)
            if _NEEDS.get(name, heat) == heat:
                line.value = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        self._disable_unused()

    def mark(self, field: str) -> None:
        """Mark a field as invalid, and go to it."""
        for line in self._inputs.values():
            line.set_class(line.id == field, "-invalid")
        self.query_one(f"#{field}").focus()

    def _number(self, name: str, label: str, *, optional: bool) -> object:
        line = self._inputs[name]
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
