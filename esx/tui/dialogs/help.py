"""The keys that work on a screen, by what one wants to do."""

from __future__ import annotations

from textwrap import wrap
from typing import ClassVar, NamedTuple

from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widgets import Input, Static

from esx.tui.dialogs.dialog import Dialog
from esx.tui.keymap import TASKS, is_moving, is_ours, task_of
from esx.tui.widgets.line import Line


class Help(Dialog[None]):
    """Lists the keys that work now by task; those for moving come last. ``/`` searches in them."""

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Close"),
        Binding("question_mark,enter", "close", "Close", show=False),
        Binding("slash", "search", "Search", key_display="/", tooltip="Show only the keys with a text"),
        Binding("down,j", "scroll_by(1)", "Down", show=False),
        Binding("up,k", "scroll_by(-1)", "Up", show=False),
        Binding("pagedown,ctrl+f", "scroll_page(1)", "Page down", show=False),
        Binding("pageup,ctrl+b", "scroll_page(-1)", "Page up", show=False),
        Binding("home,g", "start", "Start", show=False),
        Binding("end,G", "end", "End", show=False),
        Binding("q", "app.quit", "Quit", show=False),
    ]
    DEFAULT_CSS = """
    Help {
        align: center middle;
        #help-box {
            width: 90%; max-width: 110; height: auto; max-height: 90%;
            border: round $primary; background: $surface; padding: 0 1;
        }
        VerticalScroll { height: auto; max-height: 80vh; scrollbar-size-vertical: 1; padding: 1 1 0 1; }
        Static { width: 1fr; height: auto; }
        Input { display: none; height: 1; border: none; padding: 0 1; background: $boost; }
        Input.-shown { display: block; }
    }
    """

    def __init__(self, groups: list[tuple[str, list[tuple[str, str]]]]) -> None:
        super().__init__()
        self._groups = groups

    def compose(self) -> ComposeResult:
        """Lay out the groups one below the other, above the line for the search."""
        with Vertical(id="help-box") as box:
            box.border_title = "keys"
            box.border_subtitle = "j k g G scroll · / searches · esc closes"
            with VerticalScroll(can_focus=False):
                yield Static(id="help-keys")
            yield Line(placeholder="text to look for · enter keeps it · esc shows all", compact=True)

    def on_resize(self) -> None:
        """Write the keys, for this width."""
        self._write(self.query_one(Input).value.strip())

    def _write(self, wanted: str) -> None:
        parts: list[str | tuple[str, str]] = []
        room = max(min(self.app.size.width * 9 // 10, 110) - _KEYS - 10, 20)
        for title, keys in self._groups:
            found = [(key, what) for key, what in keys if wanted.lower() in f"{key} {what}".lower()]
            if not found:
                continue
            parts.append((f"{title}\n", "bold"))
            for key, what in found:
                first, *rest = wrap(what, room, break_on_hyphens=False) or [""]
                parts += [(f"  {key:<{_KEYS}}", "bold"), f"{first}\n", *(f"  {'':<{_KEYS}}{line}\n" for line in rest)]
            parts.append("\n")
        shown = Content.assemble(*parts[:-1]) if parts else Content("no key does that here")
        self.query_one("#help-keys", Static).update(shown)

    @property
    def _view(self) -> VerticalScroll:
        return self.query_one(VerticalScroll)

    def action_scroll_by(self, by: int) -> None:
        """Scroll by lines."""
        self._view.scroll_relative(y=by, animate=False)

    def action_scroll_page(self, by: int) -> None:
        """Scroll by screens."""
        self._view.scroll_relative(y=by * max(self._view.size.height - 1, 1), animate=False)

    def action_start(self) -> None:
        """Scroll to the first line."""
        self._view.scroll_home(animate=False)

    def action_end(self) -> None:
        """Scroll to the last line."""
        self._view.scroll_end(animate=False)

    def action_search(self) -> None:
        """Open the line for the search."""
        line = self.query_one(Input)
        line.add_class("-shown")
        self.set_focus(line)

    @on(Input.Changed)
    def _typed(self, message: Input.Changed) -> None:
        message.stop()
        self._write(message.value.strip())
        self.action_start()

    @on(Input.Submitted)
    def _entered(self, message: Input.Submitted) -> None:
        message.stop()
        self.set_focus(None)

    def action_leave(self) -> None:
        """End the search; if there is none, close."""
        line = self.query_one(Input)
        if not line.has_class("-shown"):
            self.end(None)
            return
        line.value = ""
        line.remove_class("-shown")
        self.set_focus(None)

    @classmethod
    def of(cls, screen: Screen[object]) -> Help:
        """Return the help for what is focused on `screen`."""
        tasks: dict[str, dict[str, list[str]]] = {}
        for group in groups_of(screen):
            for binding, _node in group.bindings:
                lines = tasks.setdefault(task_of(binding), {})
                keys = lines.setdefault(binding.tooltip or binding.description, [])
                key = screen.app.get_key_display(binding)
                if key not in keys:
                    keys.append(key)
        order = sorted(tasks, key=TASKS.index)
        return cls([(task, [(" ".join(keys), what) for what, keys in tasks[task].items()]) for task in order])


class Group(NamedTuple):
    """The bindings of one part, with the nodes whose actions they are."""

    title: str
    bindings: list[tuple[Binding, DOMNode]]


def groups_of(screen: Screen[object]) -> list[Group]:
    """Return the bindings that work on `screen`, by part: the focused one first, the whole explorer last.

    Within a part, keys that only move come last.
    """
    groups: dict[str, list[tuple[Binding, DOMNode]]] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        if binding.system or not binding.description or not active.enabled:
            continue
        # Textual's own keys only for its input field.
        if not is_ours(binding) and not isinstance(active.node, Input):
            continue
        if isinstance(active.node, App | Screen):
            title = EVERYWHERE
        else:
            kinds = (kind.__name__ for kind in type(active.node).__mro__)
            title = next((_TITLES[kind] for kind in kinds if kind in _TITLES), "the focused part")
        groups.setdefault(title, []).append((binding, active.node))
    order = sorted(groups, key=lambda title: title == EVERYWHERE)
    return [Group(title, sorted(groups[title], key=lambda each: is_moving(each[0]))) for title in order]


_KEYS = 18
EVERYWHERE = "everywhere"
_TITLES = {
    "PagedList": "this list",
    "RowTable": "this list",
    "FeedList": "this list",
    "EventDetail": "the event",
    "EventPanel": "the event",
    "StreamsPanel": "the streams",
    "EventsPanel": "the events",
    "StreamsPane": "screen Streams",
    "FeedPane": "screen Feed",
    "TrailTable": "this list",
    "TrailPane": "the trail",
    "LoadPane": "screen Load",
    "HealthPane": "screen Health",
    "ConsumersPane": "screen Consumers",
    "TypesPane": "screen Types",
    "SummaryPane": "what happened lately",
    "Input": "this field",
}
