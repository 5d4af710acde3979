"""The filter of events as a line of text."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esx.errors import InvalidQuery
from esx.filters import Filter
from esx.glob import glob_to_regex
from esx.tui.panels.filter_text import filter_text, parse_filter, parse_stream_filter, stream_filter_text


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", Filter()),
        ("Order*", Filter(event_type="Order*")),
        ("$.amount > 100", Filter(where="$.amount > 100")),
        ("Order* $.amount > 100", Filter(event_type="Order*", where="$.amount > 100")),
        ("type:Order* where:$.amount > 100", Filter(event_type="Order*", where="$.amount > 100")),
        ('"Order placed" exists($.a)', Filter(event_type="Order placed", where="exists($.a)")),
        ("where: strict $.a", Filter(where="strict $.a")),
        ("!exists($metadata.user)", Filter(where="!exists($metadata.user)")),
        ('type:"$x"', Filter(event_type="$x")),
    ],
)
def test_forms(text: str, chosen: Filter) -> None:
    assert parse_filter(text) == as_typed(chosen)


def as_typed(chosen: Filter) -> Filter:
    """What is typed without capitals means any case."""
    return replace(chosen, any_case=chosen.event_type is not None)


@pytest.mark.parametrize(
    ("text", "named"), [("Order* amount > 100", "'amount' is not a JSONPath"), ("where:", "JSONPath")]
)
def test_what_is_none_is_named(text: str, named: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_filter(text)
    assert named in str(refused.value)


# What is typed has no spaces at its ends.
TEXT = st.text(min_size=1).filter(lambda text: text == text.strip())


def is_glob(text: str) -> bool:
    try:
        glob_to_regex(text)
    except InvalidQuery:
        return False
    return True


@given(st.none() | TEXT.filter(is_glob), st.none() | TEXT)
def test_a_filter_is_read_back_as_it_was(event_type: str | None, where: str | None) -> None:
    chosen = Filter(event_type=event_type, where=where)
    assert parse_filter(filter_text(chosen)) == as_typed(chosen)
    assert parse_stream_filter(stream_filter_text(chosen)) == as_typed(chosen)
