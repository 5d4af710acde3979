"""Names for the explorer's actions, so that a config file can give them other keys."""

import importlib
import pkgutil
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, ClassVar

from textual.binding import Binding, BindingType

from esx.config import BadConfig
from esx.text import visible

_NAMES: dict[str, tuple[str, str]] = {}


class Keyed:
    """The first base of an app, screen or widget with BINDINGS: gives each an id, by which keymaps know it.

    The id is ``prefix.action``. The prefix is `KEYMAP_PREFIX` or comes from the name of the class: the keys of
    StreamsPane are ``streams.zoom`` and so on. Bindings of one action share an id.
    """

    KEYMAP_PREFIX: ClassVar[str] = ""

    def __init_subclass__(cls, *arguments: Any, **options: Any) -> None:
        own: Sequence[BindingType] = cls.__dict__.get("BINDINGS", ())
        if own:
            part = prefix_of(cls)
            cls.BINDINGS = [_named(part, binding) for binding in own]  # type: ignore[attr-defined]
        super().__init_subclass__(*arguments, **options)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what the explorer's `permissions` allow. Overrides must call this."""
        permissions = getattr(self.app, "permissions", None)  # type: ignore[attr-defined]
        if permissions is not None and not all(map(permissions.allow, names_in(type(self), action))):  # type: ignore[arg-type]
            return False
        return bool(super().check_action(action, parameters))  # type: ignore[misc]


@lru_cache(maxsize=1000)
def names_in(kind: type, action: str) -> tuple[str, ...]:
    """Return the names of an action of a class, with the prefix of the class and of each of its bases."""
    return tuple(f"{prefix_of(each)}.{action}" for each in kind.__mro__)


def prefix_of(kind: type) -> str:
    """Return what the names of a class's actions begin with."""
    kebab = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower()
    return str(kind.__dict__.get("KEYMAP_PREFIX") or kebab.removesuffix("-pane").removesuffix("-screen"))


def _named(part: str, binding: BindingType) -> Binding:
    assert isinstance(binding, Binding)
    name = binding.id or name_of(part, binding)
    keys, what = _NAMES.get(name, ("", ""))
    if binding.key not in keys.split(","):
        keys = ",".join(filter(None, (keys, binding.key)))
    _NAMES[name] = (keys, what or binding.tooltip or binding.description)
    return replace(binding, id=name)


def is_ours(binding: Binding) -> bool:
    """Return whether a binding is one of the explorer's, not of Textual's."""
    return binding.id in _NAMES


TASKS = ("find", "look closer", "go back in time", "copy and keep", "run", "screens and databases", "move")
"""What keys are for, the goals first."""
_TASK_OF = {
    "find": "filter find search go match categories all mentions summary",
    "look closer": "choose fold_here fold unfold text zoom trail order sort flip expand collapse remedy more",
    "go back in time": "diff state version step faster jump",
    "copy and keep": "bookmark bookmarks remove copy copy_value copy_path copy_as export screenshot",
    "run": "start stop edit runs mark compare clean pause play",
    "move": "move page first last line start_of end focus_panel focus_detail focus_list part resize next form turn "
    "scroll_by scroll_page start_line",
}
_TASKS = {action: task for task, actions in _TASK_OF.items() for action in actions.split()}


def verb_of(binding: Binding) -> str:
    """Return the action of a binding, without arguments, and without the part whose action it is."""
    inner = re.match(r"panel\('[^']+', '([^']+)'\)", binding.action)
    return (inner[1] if inner else binding.action).rpartition(".")[2].partition("(")[0]


def is_moving(binding: Binding) -> bool:
    """Return whether a key only moves within its part, or from part to part."""
    return task_of(binding) == "move"


def task_of(binding: Binding) -> str:
    """Return what a key is for."""
    if binding.id in _MOVES:
        return "move"
    return _TASKS.get(verb_of(binding), "screens and databases")


# Their actions are called as others are.
_MOVES = frozenset({"event.start", "event.end", "help.start", "help.end"})


def name_of(part: str, binding: Binding) -> str:
    """Return ``part.action``; where the action has arguments, its description stands for it: ``list.page-up``."""
    verb, _, arguments = binding.action.rpartition(".")[2].partition("(")
    return f"{part}.{'-'.join(re.findall(r'[a-z0-9]+', binding.description.lower())) if arguments else verb}"


def actions() -> dict[str, tuple[str, str]]:
    """Return every action by its name: its keys, and what it does."""
    import esx.tui

    for module in pkgutil.walk_packages(esx.tui.__path__, "esx.tui."):
        importlib.import_module(module.name)
    return dict(sorted(_NAMES.items()))


def check(keymap: Mapping[str, str], where: object) -> None:
    """Raise BadConfig for a name that no action has, or a key taken from an action of the same part.

    `where` is the file the keymap is in.
    """
    known: Mapping[str, tuple[str, str]] = _NAMES if keymap.keys() <= _NAMES.keys() else actions()
    for name, keys in keymap.items():
        shown = f"{visible(str(where))}: keymap.{visible(name, limit=100)}"
        if name not in known:
            near = get_close_matches(name, known, 1)
            remedy = f"did you mean {near[0]}? " if near else ""
            raise BadConfig(f"{shown} is no action: {remedy}`esx config --keys` lists them")
        part = name.rpartition(".")[0]
        for other, (others, _what) in known.items():
            taken = set(keys.split(",")) & set(others.split(","))
            if taken and other != name and other.rpartition(".")[0] == part and other not in keymap:
                raise BadConfig(f"{shown} takes the key {min(taken)} from {other}: give that another key as well")
