"""The keys that work on a screen, by part."""

from __future__ import annotations

from textwrap import wrap
from typing import ClassVar, NamedTuple

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widgets import Input, Static

from esx.tui.dialogs.dialog import Dialog
from esx.tui.keymap import is_ours


class Help(Dialog[None]):
    """Lists the keys that work in the focused part, then those of its screen, then those everywhere."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,enter", "close", "Close"),
        Binding("q", "app.quit", "Quit", show=False),
    ]
    DEFAULT_CSS = """
    Help {
        align: center middle;
        & > VerticalScroll {
            width: auto; min-width: 50; max-width: 90%; height: auto; max-height: 90%;
            border: round $primary; background: $surface; padding: 1 2;
        }
        Static { width: auto; }
    }
    """

    def __init__(self, groups: list[tuple[str, list[tuple[str, str]]]]) -> None:
        super().__init__()
        self._groups = groups

    def compose(self) -> ComposeResult:
        """Lay out the groups one below the other."""
        parts: list[str | tuple[str, str]] = []
        room = max(self.app.size.width * 9 // 10 - _KEYS - 10, 20)
        for title, keys in self._groups:
            parts.append((f"{title}\n", "bold $text-primary"))
            for key, what in keys:
                first, *rest = wrap(what, room, break_on_hyphens=False) or [""]
                parts += [(f"  {key:<{_KEYS}}", "bold"), f"{first}\n", *(f"  {'':<{_KEYS}}{line}\n" for line in rest)]
            parts.append("\n")
        with VerticalScroll() as scroll:
            scroll.border_title = "keys"
            scroll.border_subtitle = "esc closes"
            yield Static(Content.assemble(*parts[:-1]))

    @classmethod
    def of(cls, screen: Screen[object]) -> Help:
        """Return the help for what is focused on `screen`."""
        shown = []
        for group in groups_of(screen):
            lines: dict[str, list[str]] = {}
            for binding, _node in group.bindings:
                keys = lines.setdefault(binding.tooltip or binding.description, [])
                keys.append(screen.app.get_key_display(binding))
            shown.append((group.title, [(" ".join(keys), what) for what, keys in lines.items()]))
        return cls(shown)


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


def is_moving(binding: Binding) -> bool:
    """Return whether a key only moves within its part."""
    return binding.action.partition("(")[0] in {"move", "page", "first", "last", "line", "start", "end"}


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
    "Input": "this field",
}
