"""The form of the Load screen: the knobs of a load test, in groups."""

import math
import os
import re
from collections.abc import Mapping
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.events import DescendantBlur, Resize
from textual.widgets import Input, Label, Static

from esx.load.errors import InvalidOptions
from esx.load.learn.profile import BadProfile, read_profile
from esx.load.model import EXPECTED, GROUPING, NOTIFICATIONS, ON_CONFLICT, RECORDING, STRATEGIES, LoadOptions
from esx.load.options import LEARNED, validate
from esx.load.sweep.sweep import FIXED, Plan, plan_of
from esx.text import visible
from esx.tui.cells import MUTED
from esx.tui.keymap import Keyed
from esx.tui.widgets.choice import Choice
from esx.tui.widgets.frame import Frame
from esx.tui.widgets.line import Line

EVEN, HOT, ZIPF = HEATS = ("even", "hot streams", "zipf")

# By group: name, label, and the first content: a number, words to choose from, or None for a field that may be empty.
_GROUPS: dict[str, tuple[tuple[str, str, str | tuple[str, ...] | None], ...]] = {
    "who": (
        ("users", "users", "10"),
        ("duration", "seconds", "30"),
        ("rate", "rate, /s", None),
    ),
    "where": (
        ("streams", "streams", "100"),
        ("heat", "heat", HEATS),
        ("hot_streams", "hot streams", "1"),
        ("hot_share", "hot share, 0-1", "0.5"),
        ("zipf", "zipf exponent", "1"),
        ("yes_write_to", "yes, write to", None),
    ),
    "how": (
        ("expected", "expected", EXPECTED),
        ("on_conflict", "on conflict", ON_CONFLICT),
        ("events_per_append", "events/append", "1"),
    ),
    "more": (
        ("payload_bytes", "payload, bytes", "0"),
        ("strategy", "strategy", STRATEGIES),
        ("notification", "notification", NOTIFICATIONS),
        ("grouping", "grouping", GROUPING),
        ("record_conflicts", "rec. conflicts", RECORDING),
        ("subscribers", "subscribers", "0"),
        ("warm_up", "warm-up, s", "0"),
        ("seed", "seed", None),
        ("like", "like file", None),
        ("times", "times", "1"),
    ),
}
_FIELDS = tuple(field for group in _GROUPS.values() for field in group)
_FOLDED = frozenset(name for name, _, _ in _GROUPS["more"])
_HINTS = {"rate": "closed loop", "seed": "none", "yes_write_to": "host/database", "like": "esx load learn makes it"}
_TEXTS = frozenset({"yes_write_to", "like"})
_WHOLE = frozenset({"users", "streams", "hot_streams", "events_per_append", "payload_bytes", "subscribers", "seed"})
_SEVERAL = frozenset(name for name, _, first in _FIELDS if not isinstance(first, tuple)) - _TEXTS - FIXED - {"times"}
"""The fields that take several numbers, which makes a sweep."""
_NEEDS = {"hot_streams": HOT, "hot_share": HOT, "zipf": ZIPF}
_IN_FILE = frozenset({*LEARNED, "heat"})
_OWN = "own"
_EVEN = {"streams": "1000", "heat": EVEN, "rate": "", "duration": "30"}
_HOT = {"streams": "100", "heat": HOT, "hot_streams": "1", "hot_share": "0.8"}
PRESETS: Mapping[str, Mapping[str, str]] = {
    "calm": {**_EVEN, "users": "4"},
    "one hot stream": {**_EVEN, "users": "16", **_HOT},
    "zipf": {**_EVEN, "users": "16", "heat": ZIPF, "zipf": "1"},
    "open loop": {**_EVEN, "users": "32", "rate": "500"},
    "sweep of users": {**_EVEN, "users": "1,2,4,8,16,32", **_HOT, "duration": "5"},
}
"""What each preset puts into which fields."""
_MORE, _FEWER = "▸ more fields", "▾ fewer fields"


class BadField(Exception):
    """A field has an invalid value; `field` is its widget's id."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field


class _Field(Vertical):
    """A label beside its field, and below them what is wrong with its value."""

    def __init__(self, label: str, field: Line | Choice) -> None:
        super().__init__(classes="field")
        self._label = label
        self.field = field
        self.left_out, self.size_then = False, 0
        """Whether it says what was left out, which stays said until something is taken back, or the field is left."""

    def compose(self) -> ComposeResult:
        """Lay out the label beside the field."""
        with Horizontal():
            yield Label(self._label)
            yield self.field
        yield Static(classes="error")

    def refuse(self, why: str) -> None:
        """Say what is wrong; nothing, with an empty text."""
        self.left_out = False
        self.set_class(bool(why), "-invalid")
        self.query_one(Static).update(Content(visible(why, limit=300)))


class LoadForm(Keyed, Frame):
    """The knobs in groups: who writes, where, and how; the others are folded. Tab goes down one group after the other.

    Fields that the chosen heat, or the file with learned traffic, does not use are not there. A number field that a
    sweep can turn takes several numbers.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "next(1)", "Next field", show=False),
        Binding("up", "next(-1)", "Field before", show=False),
    ]
    DEFAULT_CSS: ClassVar[str] = """
    LoadForm {
        height: auto; max-height: 100%; overflow-y: auto; scrollbar-size-vertical: 1;
        Label { color: $text-muted; width: 16; text-wrap: nowrap; }
        .preset { height: 1; Choice { width: 22; } .hint { width: 1fr; padding: 0 2; } }
        .groups { layout: grid; grid-size: 4; grid-columns: 1fr; grid-rows: auto; grid-gutter: 0 4; height: auto; }
        &.-narrow .groups { grid-size: 2; }
        .group { height: auto; }
        .group > Label { width: 1fr; text-style: bold; color: $foreground; }
        .field { height: auto; Horizontal { height: 1; } Input, Choice { width: 1fr; } }
        .-folded .field, .field.-unused { display: none; }
        .error { display: none; height: auto; color: $text-error; }
        .-invalid .error { display: block; }
        Input, Input.-textual-compact { height: 1; border: none; padding: 0 1; background: $boost; }
        Input:focus, Input.-textual-compact:focus { background: $primary 25%; }
        .-invalid Input { background: $error 30%; }
    }
    """

    def __init__(self, *, files: bool = True, id: str) -> None:
        """Make it; without `files` it reads none, and has no field for one."""
        super().__init__("workload", id=id)
        usual = LoadOptions()
        self._files = files
        self._choices = {
            name: Choice(first, getattr(usual, name, first[0]), id=field_id(name))
            for name, _, first in _FIELDS
            if isinstance(first, tuple)
        }
        self._inputs = {
            name: Line(
                first or "",
                placeholder=_HINTS.get(name, ""),
                restrict=_taken(name)[0],
                id=field_id(name),
                compact=True,
            )
            for name, _, first in _FIELDS
            if not isinstance(first, tuple)
        }
        widgets: dict[str, Line | Choice] = {**self._choices, **self._inputs}
        self._fields = {name: _Field(label, widgets[name]) for name, label, _ in _FIELDS}
        self._preset = Choice((_OWN, *PRESETS), _OWN, id="load-preset")
        self._more = Choice((_MORE, _FEWER), _MORE, id="load-more")
        self._leave_out_unused()

    def compose(self) -> ComposeResult:
        """Lay out the preset above the groups."""
        with Horizontal(classes="preset"):
            yield Label("preset")
            yield self._preset
            yield Static(classes="hint")
        with Container(classes="groups"):
            for title, fields in _GROUPS.items():
                with Vertical(classes="group -folded" if title == "more" else "group", id=f"load-group-{title}"):
                    if title == "more":
                        yield self._more
                    else:
                        yield Label(title)
                    yield from (self._fields[name] for name, _, _ in fields)

    def on_resize(self, event: Resize) -> None:
        """Put two groups side by side where there is no room for all."""
        self.set_class(event.size.width < 150, "-narrow")

    def action_next(self, by: int) -> None:
        """Go to the next field, or the one before; above the first are the buttons, below the last the runs."""
        where = "#load-buttons Button, #load-form Input, #load-form Choice, #load-runs"
        (self.screen.focus_next if by > 0 else self.screen.focus_previous)(where)

    @on(Choice.Changed, "#load-more")
    def _fold(self, message: Choice.Changed) -> None:
        message.stop()
        self._show_more(self._more.value == _FEWER)

    def _show_more(self, more: bool) -> None:
        self._more.say(_FEWER if more else _MORE)
        self.query_one("#load-group-more").set_class(not more, "-folded")

    @on(Choice.Changed, "#load-preset")
    def _take_preset(self, message: Choice.Changed) -> None:
        message.stop()
        for name, value in PRESETS.get(self._preset.value, {}).items():
            if name in self._choices:
                self._choices[name].choose(value)
            else:
                self._inputs[name].value = value

    def on_mount(self) -> None:
        """Say what the fields take."""
        self._hint()

    @on(Choice.Changed)
    @on(Input.Changed)
    def _changed(self, message: Choice.Changed | Input.Changed) -> None:
        message.stop()
        for each in self._fields.values():
            if each.field is message.control:
                grown = isinstance(message, Input.Changed) and len(message.value) > each.size_then
                if not (each.left_out and grown):
                    each.refuse("")
        self._leave_out_unused()
        self._preset.say(next((name for name in PRESETS if self._is_preset(name)), _OWN))
        self._hint()

    @on(Line.Refused)
    def _left_out(self, message: Line.Refused) -> None:
        message.stop()
        for name, each in self._fields.items():
            if each.field is message.line:
                each.refuse(f"{message.text[:40]!r} is left out: {_taken(name)[1]}")
                each.left_out, each.size_then = True, len(message.line.value)

    def on_descendant_blur(self, event: DescendantBlur) -> None:
        """Take back what a field says was left out, once it has been left."""
        for each in self._fields.values():
            if each.field is event.widget and each.left_out:
                each.refuse("")

    def _hint(self) -> None:
        runs = math.prod(len(self._inputs[name].value.split(",")) for name in _SEVERAL if self._used(name))
        text = "← → choose · 1,2,4 makes a sweep" if runs == 1 else f"a sweep of {runs:,} runs"
        self.query_one(".hint", Static).update(Content.styled(text, MUTED))

    def _is_preset(self, name: str) -> bool:
        return all(self._fields[field].field.value == value for field, value in PRESETS[name].items())

    def _used(self, name: str) -> bool:
        if name in ("like", "times") and not self._files:
            return False
        learned = self._files and bool(self._inputs["like"].value.strip())
        if name == "times" or (learned and name in _IN_FILE):
            return learned and name == "times"
        return _NEEDS.get(name, self._choices["heat"].value) == self._choices["heat"].value

    def _leave_out_unused(self) -> None:
        for name, field in self._fields.items():
            used = self._used(name)
            field.field.disabled = not used
            field.set_class(not used, "-unused")

    def plan(self) -> Plan:
        """Return what the form asks for: its options, and the knobs that a sweep turns, if any; raises BadField."""
        for field in self._fields.values():
            field.refuse("")
        values: dict[str, object] = {name: choice.value for name, choice in self._choices.items() if name != "heat"}
        vary: list[str] = []
        for name, label, first in _FIELDS:
            if name not in self._inputs or not self._used(name):
                continue
            text = self._inputs[name].value.strip()
            if name in _SEVERAL and "," in text:
                vary.append(f"{name}={text}")
            else:
                values[name] = self._number(name, label, optional=first is None)
        if isinstance(path := values.get("like"), str):
            values["like"] = path = os.path.abspath(os.path.expanduser(path))
            try:
                read_profile(path)
            except BadProfile as error:
                raise BadField(field_id("like"), str(error)) from None
        try:
            base = LoadOptions(**values)  # type: ignore[arg-type]
            return plan_of(base, vary, 1) if vary else Plan(validate(base), ())
        except InvalidOptions as error:
            # The message names the command-line option, or the knob that is turned.
            named = [each.replace("-", "_") for each in re.findall(r"--(?:vary '?)?([a-z-]+)", str(error))]
            bad = next((each for each in named if each in self._fields), vary[0].partition("=")[0] if vary else "users")
            raise BadField(field_id(bad), str(error)) from None

    def fill(self, options: LoadOptions) -> None:
        """Put the options of a run into the form."""
        heat = ZIPF if options.zipf else HOT if options.hot_streams else EVEN
        self._inputs["like"].value = options.like or ""
        for name, choice in self._choices.items():
            choice.choose(heat if name == "heat" else getattr(options, name))
        for name, line in self._inputs.items():
            value = getattr(options, name)
            if _NEEDS.get(name, heat) == heat:
                line.value = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        self._leave_out_unused()
        usual = LoadOptions()
        self._show_more(any(getattr(options, name) != getattr(usual, name) for name in _FOLDED))

    def mark(self, field: str, why: str) -> None:
        """Say at a field what is wrong with its value, and go to it."""
        for name, each in self._fields.items():
            if field_id(name) == field:
                if name in _FOLDED:
                    self._show_more(True)
                each.refuse(why)
                # Not `focus`, which takes effect later: keys that were typed ahead belong here.
                self.screen.set_focus(each.field)

    def _number(self, name: str, label: str, *, optional: bool) -> object:
        text = self._inputs[name].value.strip()
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


def _taken(name: str) -> tuple[str | None, str]:
    """Return what the value of a field matches while it is typed, and this in words."""
    if name in _TEXTS:
        return None, ""
    digits, words = (r"\d*", "digits") if name in _WHOLE else (r"\d*(\.\d*)?", "digits and one point")
    if name in _SEVERAL:
        return rf"({digits} *, *)*{digits}", f"this takes {words}, and commas between several numbers"
    return digits, f"this takes {words}"
