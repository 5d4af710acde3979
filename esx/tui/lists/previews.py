"""Previews of events in a list: the values of their data, those first in which events of a type differ."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

_PAIR = re.compile(r'\s*"((?:[^"\\]|\\.)*)"\s*:\s*')
_SCALAR = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"|[^\s,{}\[\]"]+')
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]')
_NESTED = 80
"""Characters of an object or array within the data that are shown before another one."""


class Previewed(Protocol):
    """A row with the type of its event and the start of its data, both safe to show."""

    @property
    def event_type(self) -> str: ...  # noqa: D102

    @property
    def preview(self) -> str: ...  # noqa: D102


@lru_cache(maxsize=4096)
def pairs(start: str) -> tuple[tuple[str, str], ...] | None:
    """Return names and values of an object that begins with `start`; its end may be missing. None for other JSON."""
    if not start.startswith("{"):
        return None
    plain: list[tuple[str, str]] = []
    nested: list[tuple[str, str]] = []
    at = 1
    while (name := _PAIR.match(start, at)) is not None:
        at = name.end()
        if start[at : at + 1] in ("{", "["):
            end = _end_of(start, at)
            nested.append((_unquoted(name[1]), start[at:end]))
        elif (value := _SCALAR.match(start, at)) is not None:
            end = value.end()
            plain.append((_unquoted(name[1]), _unquoted(value["text"]) if value["text"] is not None else value[0]))
        else:
            # A text that is cut.
            plain.append((_unquoted(name[1]), _unquoted(start[at + 1 :])))
            break
        comma = start.find(",", end, end + 2)
        if comma < 0:
            break
        at = comma + 1
    # The last one may have all the room that is left.
    shown = [(name, value if len(value) <= _NESTED else f"{value[:_NESTED]}…") for name, value in nested[:-1]]
    return (*plain, *shown, *nested[-1:]) if plain or nested else None


def _end_of(text: str, at: int) -> int:
    """Return where the object or array that begins at `at` ends, or the end of the text."""
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text, at):
        if found[0] in "{[":
            depth += 1
        elif found[0] in "}]":
            depth -= 1
            if not depth:
                return found.end()
    return len(text)


def _unquoted(text: str) -> str:
    return text.replace('\\"', '"').replace("\\\\", "\\") if "\\" in text else text


class Previews:
    """Knows of the rows on screen which values are the same in all events of a type: these come last."""

    def __init__(self) -> None:
        self._same: dict[str, frozenset[tuple[str, str]]] = {}

    def prepare(self, rows: Sequence[Previewed]) -> None:
        """Look at the rows on screen."""
        common: dict[str, set[tuple[str, str]]] = {}
        several: set[str] = set()
        for row in rows:
            found = pairs(row.preview) or ()
            if row.event_type in common:
                several.add(row.event_type)
                common[row.event_type].intersection_update(found)
            else:
                common[row.event_type] = set(found)
        self._same = {name: frozenset(common[name]) for name in several}

    def text(self, row: Previewed) -> str:
        """Return a row's preview: ``amount 50.00 · method card``; JSON that is no object as it is."""
        found = pairs(row.preview)
        if found is None:
            return "" if row.preview == "{}" else row.preview
        same = self._same.get(row.event_type, frozenset())
        if len(same) < len(found):
            found = (*(each for each in found if each not in same), *(each for each in found if each in same))
        return " · ".join(f"{name} {value}" for name, value in found)
