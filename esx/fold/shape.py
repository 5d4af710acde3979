"""The shape of JSON, from samples: its paths, their JSON types, how often each is present, and what has changed.

A path is a JSONPath, with ``[*]`` for the elements of a list. An object with many different members, such as one whose
keys are ids, is a map: its members are one path, ``.*``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import comb
from typing import Any, NamedTuple

from esx.fold.brief import brief
from esx.fold.value import Number, dump, jsonpath, parse
from esx.payload import Undecoded
from esx.text import visible

_DEEPEST = 12
_PATHS = 400
"""How many paths are told apart; what is beyond is left out."""
_MAP = 24
"""An object with more members than this, of which each is rare, is a map."""
_RARE = 0.25
_CHANCE = 0.01
"""Changes are reported so that in one of a hundred surveys some of them came by chance."""
_WITNESSES = 3
"""In how many streams a path has to be, if no stream has changed itself: members can belong to a stream."""
_EXAMPLE = 60

Path = tuple[str, ...]


class Sighting(NamedTuple):
    """A sample: the place and the time of an event, its data as JSON, and its stream."""

    global_seq: int
    created_at: datetime | None
    data: str
    stream: str = ""


@dataclass(frozen=True, slots=True)
class PathShape:
    """What is known of a path: in how many samples it is, its JSON types with their counts, and an example.

    `appeared` is the first sample that has it, if those before lack it by more than chance, `vanished` the last one if
    those after lack it. Chance is what puts the samples that have it into any order: one that is rare is often last.
    """

    path: str
    present: int
    types: Mapping[str, int]
    example: str
    appeared: Sighting | None = None
    vanished: Sighting | None = None


@dataclass(frozen=True, slots=True)
class JsonShape:
    """The shape of `samples` samples. `unread` counts those that are no JSON; `cut` says that paths were left out."""

    samples: int
    paths: tuple[PathShape, ...] = ()
    unread: int = 0
    cut: bool = False


@dataclass(slots=True)
class _Found:
    places: list[int] = field(default_factory=list)
    types: Counter[str] = field(default_factory=Counter)
    example: str = ""


def shape_of(samples: Sequence[Sighting], *, of_types: int = 1) -> JsonShape:
    """Return the shape of samples, which are in the order of their events.

    `of_types` is of how many types shapes are made: the more, the less chance may a change have had.
    """
    values: list[tuple[Sighting, Any]] = []
    unread = 0
    for sample in samples:
        if isinstance(sample.data, Undecoded):
            unread += 1
            continue
        try:
            values.append((sample, parse(sample.data)))
        except ValueError:
            unread += 1
    maps = _maps(value for _, value in values)
    found: dict[Path, _Found] = {}
    cut = False
    for place, (_, value) in enumerate(values):
        for path, part in _walk(value, maps):
            own = found.get(path)
            if own is None:
                if len(found) >= _PATHS:
                    cut = True
                    continue
                own = found[path] = _Found(example=_example(part))
            if not own.places or own.places[-1] != place:
                own.places.append(place)
            own.types[json_type(part)] += 1
    seen = [sample for sample, _ in values]
    partly = sum(len(own.places) < len(seen) for own in found.values())
    chance = _CHANCE / (2 * max(partly, 1) * max(of_types, 1))
    paths = [_path_shape(path, own, seen, chance) for path, own in sorted(found.items()) if path]
    return JsonShape(len(values), tuple(paths), unread, cut)


def _path_shape(path: Path, found: _Found, samples: Sequence[Sighting], chance: float) -> PathShape:
    first, last, present = found.places[0], found.places[-1], len(found.places)
    having = {samples[place].stream for place in found.places}

    def told(without: int, those: Sequence[Sighting]) -> bool:
        alone = len(having) < _WITNESSES and having.isdisjoint(sample.stream for sample in those)
        return not alone and _telling(without, present, len(samples), chance)

    appeared = samples[first] if told(first, samples[:first]) else None
    vanished = samples[last] if told(len(samples) - 1 - last, samples[last + 1 :]) else None
    return PathShape(_text(path), present, dict(found.types.most_common()), found.example, appeared, vanished)


def _telling(without: int, present: int, samples: int, chance: float) -> bool:
    """Return whether the first, or last, samples lack a path by more than chance.

    There are as many orders as ways to choose the `present` ones among all: these leave so many at one end without it.
    """
    return without > 0 and comb(samples - without, present) < chance * comb(samples, present)


def json_type(value: Any) -> str:
    """Return the name of a value's JSON type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, Number):
        return "number"
    if isinstance(value, dict):
        return "object"
    return "array" if isinstance(value, list) else "string"


def _walk(value: Any, maps: frozenset[Path]) -> Iterator[tuple[Path, Any]]:
    """Yield the paths of a value with their parts; those of each element of a list are the same."""
    todo: list[tuple[Path, Any]] = [((), value)]
    while todo:
        path, part = todo.pop()
        yield path, part
        if len(path) >= _DEEPEST:
            continue
        if isinstance(part, dict):
            todo += [((*path, _ANY if path in maps else f".{name}"), member) for name, member in part.items()]
        elif isinstance(part, list):
            todo += [((*path, _ELEMENT), element) for element in part]


_ANY, _ELEMENT = "*", "[*]"


def _maps(values: Iterable[Any]) -> frozenset[Path]:
    """Return the paths of objects that are maps: with many members, each of them rare."""
    members: dict[Path, Counter[str]] = defaultdict(Counter)
    objects: Counter[Path] = Counter()
    for value in values:
        for path, part in _walk(value, frozenset()):
            if isinstance(part, dict):
                objects[path] += 1
                members[path].update(part.keys())
    return frozenset(
        path
        for path, names in members.items()
        if len(names) > _MAP and sum(names.values()) / len(names) < objects[path] * _RARE
    )


def _text(path: Path) -> str:
    text = "$"
    for step in path:
        if step == _ELEMENT:
            text += step
        elif step == _ANY:
            text += ".*"
        else:
            text += jsonpath((step[1:],))[1:]
    return text


def _example(value: Any) -> str:
    if isinstance(value, dict):
        return brief(dump(value), _EXAMPLE) if value else "{}"
    return visible(dump(value), limit=_EXAMPLE)


# -- comparing -------------------------------------------------------------------------------------------------


class Saved(NamedTuple):
    """A path of a saved shape: its JSON types, and whether every sample had it."""

    types: frozenset[str]
    always: bool


def drift(name: str, saved: Mapping[str, Saved], now: JsonShape) -> list[str]:
    """Return in one line each how the shape of the type `name` differs from a saved one."""
    if not now.samples:
        return []
    found: list[str] = []
    paths = {path.path: path for path in now.paths}
    for text, path in paths.items():
        then = saved.get(text)
        if then is None:
            found.append(f"{name} {text} is new: {'|'.join(path.types)}, in {path.present} of {now.samples}")
            continue
        added = sorted(set(path.types) - then.types)
        if added:
            found.append(f"{name} {text} is now also {'|'.join(added)}, it was {'|'.join(sorted(then.types))}")
        if then.always and path.present < now.samples and not _in_list(text):
            found.append(f"{name} {text} is missing in {now.samples - path.present} of {now.samples}, it was in all")
    found += [
        f"{name} {text} is gone: it was in all, and is in none of {now.samples}"
        for text, then in saved.items()
        if then.always and text not in paths and not _in_list(text)
    ]
    return found


def saved_of(shape: JsonShape) -> dict[str, Saved]:
    """Return what a shape is compared by."""
    return {path.path: Saved(frozenset(path.types), path.present == shape.samples) for path in shape.paths}


def _in_list(path: str) -> bool:
    # An empty list has no elements, which changes nothing of the shape.
    return "[*]" in path or ".*" in path
