"""What filters of a store can name: its types, categories, and the paths in its data; and completing a filter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from esx.errors import InvalidQuery
from esx.filter_language import KEYS, USUAL, Dialect, quote
from esx.filters import Filter
from esx.fold.shape import Sighting, shape_of
from esx.model import Event
from esx.store.overview.types import TypeSurvey
from esx.text import either, visible

_PATH = re.compile(r"\$[^\s&|()!<>=,'+/]*$")
_TERM = re.compile(r'(?:^|\s)(?:([A-Za-z]+):)?(")?((?(2)[^"]*|[^\s"]*))$')
_TYPE = re.compile(r'(?:^|\s)type:(?:"([^"]+)"|(\S+))')
_FIRST = re.compile(r'\s*(?:"([^"]+)"|([^\s":$]+))(?=\s)')

_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a sample of a store's events has: `types`, the most common first, and `streams`, as globs of categories.

    `data` and `metadata` are JSONPaths of members, by the type of the event.
    """

    types: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    data: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    metadata: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def vocabulary_of(survey: TypeSurvey, separator: str) -> Vocabulary:
    """Return the words of a survey. It parses the data of its sample, which takes a moment."""
    types = [one.event_type for one in survey.types]
    categories = dict.fromkeys(name for one in survey.types for name in one.categories)
    return Vocabulary(
        tuple(types),
        tuple(f"{name}{separator}*" for name in categories if name),
        {name: tuple(_paths(survey.sample.get(name, ()), metadata=False)) for name in types},
        {name: tuple(_paths(survey.sample.get(name, ()), metadata=True)) for name in types},
    )


def _paths(events: Iterable[Event], *, metadata: bool) -> Iterator[str]:
    texts = [(event, event.metadata_json if metadata else event.data_json) for event in events]
    shape = shape_of([Sighting(event.global_seq, event.created_at, text) for event, text in texts if text is not None])
    for path in shape.paths:
        yield f"$metadata{path.path[1:]}" if metadata else path.path


def complete(text: str, known: Vocabulary, dialect: Dialect = USUAL) -> str | None:
    """Return a filter with its last word completed, None where nothing that is known begins so."""
    path = _PATH.search(text)
    if path is not None:
        return _begun(text[: path.start()], path[0], _paths_for(text[: path.start()], known, dialect))
    term = _TERM.search(text)
    if term is None or not (term[1] or term[3]):
        return None
    key, quoted, begun = term[1], term[2] or "", term[3]
    names = {"type": known.types, "stream": known.streams}.get(key or dialect.bare, ())
    if key is None and not quoted:
        names = (*names, *(f"{each}:" for each in KEYS))
    fitting = (name for name in names if quoted or not re.search(r"[\s'\"]", name))
    found = _begun(text[: term.start(3)], begun, (name for name in fitting if '"' not in name))
    return None if found is None else found + quoted


def _begun(before: str, begun: str, names: Iterable[str]) -> str | None:
    """Return the first name that begins so, in any case, behind what stands before it; a hostile one is no help."""
    for name in names:
        if name.lower().startswith(begun.lower()) and name != begun and len(name) <= _LONGEST and visible(name) == name:
            return before + name
    return None


def _paths_for(before: str, known: Vocabulary, dialect: Dialect) -> list[str]:
    """Return the paths of the types that the text before names, of all types where it names none."""
    named = _TYPE.search(before) or (_FIRST.match(before) if dialect.bare == "type" else None)
    types: Iterable[str] = known.types
    if named is not None:
        types = _matching(named[1] or named[2], known.types) or known.types
    paths = [path for name in types for path in (*known.data.get(name, ()), *known.metadata.get(name, ()))]
    # A member of $metadata only once that has been begun.
    return sorted(dict.fromkeys(paths), key=lambda path: path.startswith("$metadata"))


def _matching(glob: str, types: Iterable[str]) -> list[str]:
    try:
        pattern = Filter(event_type=glob, any_case=True).type_pattern
    except InvalidQuery:
        return []
    return [] if pattern is None else [name for name in types if re.search(pattern.regex, name, re.DOTALL)]


def types_like(chosen: Filter, types: Iterable[str]) -> str:
    """Return what to say of a filter that nothing passes: where none of `types` matches it, those like it.

    Where it names a stream and no type, but `types` are so, a type may have been meant.
    """
    pattern, known = chosen.type_pattern, list(types)
    if pattern is None and chosen.stream is not None and _matching(chosen.stream, known) and chosen.stream.strip("*?"):
        shown = visible(quote(chosen.stream), limit=80)
        return f"; {shown} without a key is a stream: did you mean type:{shown}?"
    # Globs mean the same in Python's regular expressions.
    if pattern is None or not known or any(re.search(pattern.regex, name, re.DOTALL) for name in known):
        return ""
    plain = re.sub(r"[*?\\\[\]]", "", chosen.event_type or "").lower()
    lower = {name.lower(): name for name in known}
    # Some tools write a type with its namespace, and people do not.
    ends = [name for name in lower if plain and re.search(rf"[.:/\\]{re.escape(plain)}$", name)]
    near = [lower[name] for name in (ends[:3] or get_close_matches(plain, lower))]
    hint = f": did you mean {either(visible(name, limit=80) for name in near)}?" if near else ""
    return f"; no type that is known is {visible(chosen.event_type or '', limit=80)}{hint}"
