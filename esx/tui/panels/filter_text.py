"""The filter of a list of events as one line of text: ``Order* $.amount > 100``. Plain code, no screen.

It is the language of `esx.filter_language`; a word without a key is a type here, and a JSONPath takes the rest.
"""

import re
from dataclasses import replace

from esx.filter_language import Dialect
from esx.filter_language import filter_text as text_of
from esx.filter_language import parse_filter as parse
from esx.filters import Filter

PLACEHOLDER = "type glob, JSONPath, or both:  Order*  $.amount > 100"
HINT = 'a type, or a path, or both: Order* $.amount > 100 · $metadata.user == "ann" · since:-2h user:ann'

_DIALECT = Dialect(bare="type", free_path=True)
_PATH = re.compile(r"[$(!]|(?:exists\s*\(|(?:strict|lax)\s)")


def parse_filter(text: str) -> Filter:
    """Return the filter that `text` means: a glob of types, then a JSONPath; either may be left out.

    Raises ValueError, in one line, for text that is no filter.
    """
    return parse(text, _DIALECT)


def filter_text(chosen: Filter) -> str:
    """Return the filter as a line that `parse_filter` reads back."""
    return text_of(replace(chosen, any_case=False), _DIALECT)


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
