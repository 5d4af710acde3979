"""The filter of a list of events as one line of text: ``Order* $.amount > 100``. Plain code, no screen."""

import re

from esx.filters import Filter

PLACEHOLDER = "type glob, JSONPath, or both:  Order*  $.amount > 100"
HINT = 'a type, or a path, or both: Order* $.amount > 100 · $metadata.user == "ann"'

_WORD = re.compile(r'(?:type:\s*)?("(?:[^"\\]|\\.)*"|\S+)\s*')
_PATH = re.compile(r"[$(!]|(?:exists\s*\(|(?:strict|lax)\s)")


def parse_filter(text: str) -> Filter:
    """Return the filter that `text` means: a glob of types, then a JSONPath; either may be left out.

    A word that does not begin like a path is the glob, in quotes if it has spaces; ``type:`` and ``where:`` before them
    are optional. Raises ValueError, in one line, for text that is neither.
    """
    event_type = where = None
    rest = text.strip()
    while rest:
        if rest.startswith("where:"):
            where, rest = rest.removeprefix("where:").strip(), ""
            if not where:
                raise ValueError("where: needs a JSONPath, such as $.amount > 100")
        elif _PATH.match(rest):
            where, rest = rest, ""
        elif event_type is None and (word := _WORD.match(rest)):
            event_type = word[1]
            if event_type.startswith('"') and event_type.endswith('"') and len(event_type) > 1:
                event_type = re.sub(r'\\(["\\])', r"\1", event_type[1:-1])
            rest = rest[word.end() :]
        else:
            shown = rest if len(rest) <= 60 else rest[:59] + "…"
            raise ValueError(f"{shown!r} is not a JSONPath: it begins with $, as $.amount > 100 does")
    return Filter(event_type=event_type, where=where)


def filter_text(chosen: Filter) -> str:
    """Return the filter as a line that `parse_filter` reads back."""
    parts = []
    if chosen.event_type is not None:
        plain = re.fullmatch(r"[^\s\"]+", chosen.event_type)
        quoted = '"' + re.sub(r'(["\\])', r"\\\1", chosen.event_type) + '"'
        parts.append("type:" + (chosen.event_type if plain else quoted))
    if chosen.where is not None:
        parts.append(f"where:{chosen.where}")
    return " ".join(parts)


def complete_type(text: str, types: list[str]) -> str | None:
    """Return `text` with its type completed, None where it does not end in the beginning of a type."""
    start = re.match(r'(?:type:)?"?', text)
    assert start is not None
    begun = text[start.end() :]
    if not begun or _PATH.match(begun):
        return None
    in_quotes = start[0].endswith('"')
    for name in types:
        if " " in name and not in_quotes:
            continue
        if name.lower().startswith(begun.lower()) and name != begun:
            return text[: start.end()] + name + ('"' if in_quotes else "")
    return None
