"""Names for the explorer's actions, so that a config file can give them other keys."""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from textual.binding import Binding

from esx.config import BadConfig
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from textual.binding import BindingType

_NAMES: dict[str, tuple[str, str]] = {}


def named(part: str, bindings: Iterable[BindingType]) -> list[BindingType]:
    """Return `bindings` with an id each, ``part.action``, by which a keymap knows them.

    Use it for the BINDINGS of every screen and widget. Bindings of one action share a name.
    """
    made: list[BindingType] = []
    for binding in bindings:
        assert isinstance(binding, Binding)
        name = binding.id or _name(part, binding.action)
        made.append(replace(binding, id=name))
        keys, what = _NAMES.get(name, ("", ""))
        _NAMES[name] = (
            ",".join(filter(None, (keys, binding.key))) if binding.key not in keys.split(",") else keys,
            what or binding.tooltip or binding.description,
        )
    return made


def _name(part: str, action: str) -> str:
    """Return ``part.action`` with the action's arguments in words: ``app.screen-feed``, ``list.line--1``."""
    verb, _, arguments = action.rpartition(".")[2].partition("(")
    words = [word for word in re.split(r"[^\w-]+", arguments) if word]
    return f"{part}.{'-'.join([verb, *words])}"


def actions() -> dict[str, tuple[str, str]]:
    """Return every action by its name: its keys, and what it does."""
    import esx.tui

    for module in pkgutil.walk_packages(esx.tui.__path__, "esx.tui."):
        importlib.import_module(module.name)
    return dict(sorted(_NAMES.items()))


def check(keymap: Mapping[str, str], where: object) -> None:
    """Raise BadConfig for a name that no action has; `where` is the file it is in."""
    if keymap.keys() <= _NAMES.keys():
        return
    known = actions()
    for name in keymap:
        if name not in known:
            near = get_close_matches(name, known, 1)
            remedy = f"did you mean {near[0]}? " if near else ""
            raise BadConfig(
                f"{visible(str(where))}: keymap.{visible(name, limit=100)} is no action: "
                f"{remedy}`esx config --keys` lists them"
            )
