"""Event types with the shapes of their data, and saved shapes to compare with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from esx.fold.shape import JsonShape, PathShape, Saved, Sighting, drift, saved_of, shape_of
from esx.store.overview.types import EventMoment, TypeSummary, TypeSurvey
from esx.text import encodable, iso_utc, visible

_VERSION = 1


@dataclass(frozen=True, slots=True)
class TypeShape:
    """An event type, and the shape of the data of its events."""

    summary: TypeSummary
    shape: JsonShape

    @property
    def changes(self) -> list[Sighting]:
        """Where paths came or went, one each, the last first."""
        found = [at for path in self.shape.paths for at in (path.appeared, path.vanished) if at is not None]
        return sorted(found, key=lambda at: -at.global_seq)

    @property
    def changed_at(self) -> Sighting | None:
        """Where the shape changed last; None where no path came or went."""
        return next(iter(self.changes), None)

    def to_json(self) -> str:
        """Return it as one line of NDJSON. `events` is null where only `at_least` is known, `rate` is a second's."""
        one, shape = self.summary, self.shape
        fields = {
            "event_type": one.event_type,
            "events": one.events.count if one.events.known else None,
            "exact": one.events.exact,
            "at_least": one.events.low,
            "rate": None if one.rate is None else round(one.rate, 6),
            "first": _seen(one.first),
            "last": _seen(one.last),
            "ends_exact": one.exact,
            "categories": list(one.categories),
            "samples": shape.samples,
            "unread": shape.unread,
            "changed": len(self.changes),
            "changed_at": _seen(self.changed_at),
            "paths": [_path(path) for path in shape.paths],
        }
        return encodable(json.dumps(fields, ensure_ascii=False))


def _seen(seen: EventMoment | Sighting | None) -> dict[str, Any] | None:
    if seen is None:
        return None
    at = None if seen.created_at is None else iso_utc(seen.created_at)
    return {"global_seq": seen.global_seq, "created_at": at}


def _path(path: PathShape) -> dict[str, Any]:
    return {
        "path": path.path,
        "types": dict(path.types),
        "present": path.present,
        "example": path.example,
        "appeared": _seen(path.appeared),
        "vanished": _seen(path.vanished),
    }


def type_shapes(survey: TypeSurvey) -> list[TypeShape]:
    """Return the types of a survey with their shapes."""
    return [
        TypeShape(
            one,
            shape_of(
                [
                    Sighting(event.global_seq, event.created_at, event.data_json, event.stream_id)
                    for event in survey.sample.get(one.event_type, ())
                ],
                of_types=len(survey.types),
            ),
        )
        for one in survey.types
    ]


def changed_first(types: Sequence[TypeShape]) -> list[TypeShape]:
    """Return the types with those first whose shapes changed, the last change first; the others as they were."""
    return sorted(types, key=lambda one: -1 if one.changed_at is None else -one.changed_at.global_seq - 2)


def saved_text(types: Sequence[TypeShape], *, complete: bool) -> str:
    """Return the shapes as the text of a file, in an order that does not change by itself."""
    saved = {
        one.summary.event_type: {
            path: {"types": sorted(each.types), "always": each.always} for path, each in saved_of(one.shape).items()
        }
        for one in types
    }
    text = json.dumps(
        {"esx_types": _VERSION, "complete": complete, "types": saved}, ensure_ascii=False, indent=1, sort_keys=True
    )
    return encodable(text) + "\n"


@dataclass(frozen=True, slots=True)
class SavedShapes:
    """The shapes of a file. `complete` says that it has all types that there were."""

    types: dict[str, dict[str, Saved]]
    complete: bool

    def drift(self, types: Sequence[TypeShape], *, complete: bool) -> list[tuple[str, str]]:
        """Return each difference, with the type's name and as a line; `complete` says that `types` are all."""
        found: list[tuple[str, str]] = []
        for one in types:
            name = one.summary.event_type
            saved = self.types.get(name)
            if saved is not None:
                found += [(name, line) for line in drift(visible(name, limit=80), saved, one.shape)]
            elif self.complete:
                found.append((name, f"{visible(name, limit=80)} is a new type"))
        there = {one.summary.event_type for one in types}
        if complete:
            found += [(name, f"{visible(name, limit=80)} is gone") for name in self.types if name not in there]
        return found


def read_saved(text: str) -> SavedShapes:
    """Return the shapes of a file. Raises ValueError, whose message goes on after the file's name."""
    try:
        given = json.loads(text)
        if given["esx_types"] != _VERSION:
            raise ValueError("was saved by a newer esx: use that, or save it again")
        types = {
            str(name): {str(path): _saved(each) for path, each in paths.items()}
            for name, paths in given["types"].items()
        }
        return SavedShapes(types, bool(given["complete"]))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("has no shapes that esx types --save has written: save it again") from None


def _saved(given: dict[str, Any]) -> Saved:
    return Saved(frozenset(map(str, given["types"])), bool(given["always"]))
