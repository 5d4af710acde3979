"""The JSONPaths that say which values are masked: a part of PostgreSQL's language, evaluated here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from esx.errors import InvalidQuery

_STEP = re.compile(
    r"""\s*(?: (?P<deep>\.\*\*\.?|\.\.)(?=[\w"*\[$]|$) | \.\s*(?: (?P<any>\*) | (?P<name>[^\W\d]\w*)
        | (?P<quoted>"(?:[^"\\]|\\.)*") ) | \[\s*(?: (?P<each>\*) | (?P<index>\d{1,9}) )\s*\] )""",
    re.VERBOSE,
)
_FIRST = re.compile(r"""(?P<any>\*)|(?P<name>[^\W\d]\w*)|(?P<quoted>"(?:[^"\\]|\\.)*")""")
_FORMS = "$.email, $.card.*, $.items[*].name, $.**.phone or $metadata.user"
_MOST = 100

Holder = dict[str, Any] | list[Any]
Place = tuple[Holder, Any]
"""Where a value is: in what, and under which name or index."""


class PathStep(NamedTuple):
    """A step: a member by name, an element by index, any member, any element, or any depth."""

    kind: str
    key: str | int = ""


class MaskPath(NamedTuple):
    """A path into data, or into metadata; `text` is as it was given."""

    text: str
    column: str
    steps: tuple[PathStep, ...]


def parse_path(text: str) -> MaskPath:
    """Return the path that a text is. Raises InvalidQuery, with the forms that there are."""
    plain = text.strip()
    column = "metadata" if plain.startswith("$metadata") else "data"
    at = len("$metadata") if column == "metadata" else 1
    if not plain.startswith("$") or len(text) > 1000:
        raise _unknown(text)
    steps: list[PathStep] = []
    while at < len(plain):
        found = _STEP.match(plain, at)
        if found is None or len(steps) >= _MOST:
            raise _unknown(text)
        at = found.end()
        if found["deep"] is None:
            steps.append(_step(found, text))
            continue
        steps.append(PathStep("deep"))
        # After two dots, or .**. , the name follows at once.
        following = _FIRST.match(plain, at)
        if following is not None:
            at = following.end()
            steps.append(_step(following, text))
    if not steps:
        raise InvalidQuery(f"{text!r} would mask all of {column}: say which values, as {_FORMS}")
    return MaskPath(plain, column, tuple(steps))


def _step(found: re.Match[str], text: str) -> PathStep:
    groups = found.groupdict()
    if groups["name"] is not None:
        return PathStep("name", groups["name"])
    if groups["quoted"] is not None:
        try:
            return PathStep("name", json.loads(groups["quoted"]))
        except ValueError:
            raise _unknown(text) from None
    if groups["any"] is not None:
        return PathStep("any")
    return PathStep("each") if groups.get("each") is not None else PathStep("index", int(groups["index"]))


def _unknown(text: str) -> InvalidQuery:
    shown = text if len(text) <= 100 else text[:99] + "…"
    return InvalidQuery(f"{shown!r} is no path that can be masked: use names, * and [*], as {_FORMS}")


def find(root: Holder, steps: tuple[PathStep, ...]) -> Iterator[Place]:
    """Yield the places that a path leads to, from the root's member ``""`` on, each once, at any depth.

    As in PostgreSQL's lax mode, a member of an array is that of each of its elements.
    """
    places: list[Place] = [(root, "")]
    for step in steps:
        places = list(_after(places, step))
    seen = set()
    for holder, key in places:
        if (id(holder), key) not in seen:
            seen.add((id(holder), key))
            yield holder, key


def _after(places: list[Place], step: PathStep) -> Iterator[Place]:
    for place in places:
        value = place[0][place[1]]
        if step.kind == "deep":
            yield from [place, *below(value)]
        elif isinstance(value, dict):
            yield from _of_object(value, step)
            if step.kind in ("each", "index") and step.key in ("", 0):
                yield place
        elif isinstance(value, list):
            if step.kind == "index":
                yield from [(value, step.key)] if int(step.key) < len(value) else []
            elif step.kind == "each":
                yield from ((value, index) for index in range(len(value)))
            else:
                for element in value:
                    if isinstance(element, dict):
                        yield from _of_object(element, step)
        elif step.kind in ("each", "index") and step.key in ("", 0):
            yield place


def _of_object(value: dict[str, Any], step: PathStep) -> Iterator[Place]:
    if step.kind == "any":
        yield from ((value, name) for name in value)
    elif step.kind == "name" and step.key in value:
        yield value, step.key


def below(value: Any) -> Iterator[Place]:
    """Yield the place of each member and element of a value, at any depth."""
    todo = [value]
    while todo:
        holder = todo.pop()
        if isinstance(holder, dict):
            places: list[Place] = [(holder, name) for name in holder]
        elif isinstance(holder, list):
            places = [(holder, index) for index in range(len(holder))]
        else:
            continue
        yield from places
        todo += [each[0][each[1]] for each in places]
