"""The filter of a list of events as one line of text: ``Order* $.amount > 100``. Plain code, no screen.

It is the language of `esx.filter_language`. In a list of events a word without a key is a type here, and a JSONPath
takes the rest; of the feed a word without a key is a stream.
"""

from dataclasses import replace
from datetime import datetime
from functools import partial

from esx.filter_language import USUAL, Dialect
from esx.filter_language import filter_text as text_of
from esx.filter_language import parse_filter as parse
from esx.filters import Filter
from esx.positions import parse_moment

PLACEHOLDER = "type glob, JSONPath, or both:  Order*  $.amount > 100"
HINT = "Order* $.amount > 100 · since:-2h user:ann"
OF_STREAMS = USUAL
"""The dialect in which a word without a key is a stream."""
STREAMS_PLACEHOLDER = "orders-* type:Order*Placed $.total > 100"
IN_LIST = Dialect(bare="type", free_path=True)
"""The dialect in which a word without a key is a type."""


def parse_filter(text: str) -> Filter:
    """Return the filter that `text` means: a glob of types, then a JSONPath; either may be left out.

    Raises ValueError, in one line, for text that is no filter.
    """
    return parse(text, IN_LIST)


def parse_stream_filter(text: str, *, now: datetime | None = None) -> Filter:
    """Return the filter that `text` means where a word without a key is a stream; ``-2h`` is before `now`.

    Raises ValueError, in one line.
    """
    return parse(text, replace(OF_STREAMS, parse_time=partial(parse_moment, now=now)))


def filter_text(chosen: Filter) -> str:
    """Return the filter as a line that `parse_filter` reads back."""
    return text_of(replace(chosen, any_case=False), IN_LIST)


def stream_filter_text(chosen: Filter) -> str:
    """Return the filter as a line that `parse_stream_filter` reads back."""
    return text_of(replace(chosen, any_case=False), OF_STREAMS)
