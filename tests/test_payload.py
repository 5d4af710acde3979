"""Payloads that a store keeps as bytes: many at once mean the same as one by one."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from esx.layouts.foreign.eventsourcing import moments_of, one_moment
from esx.payload import Undecoded, json_of, jsons_of

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
_JSON = st.builds(
    lambda value, ascii_only, space: json.dumps(value, ensure_ascii=ascii_only, indent=space).encode(
        errors="surrogatepass"
    ),
    _VALUES,
    st.booleans(),
    st.sampled_from([None, 1]),
)
_NEARLY = st.builds(lambda text, at, put: text[:at] + put + text[at + 1 :], _JSON, st.integers(0, 9), st.binary())
_USUAL = b'{"timestamp":{"_type_":"datetime_iso","_data_":"2026-11-28T20:41:50.966656+00:00"},"a":"1"}'


@given(st.lists(st.none() | st.binary() | _JSON | _NEARLY))
@example([b"[" * 5000 + b"]" * 5000, b'"\\ud800"', b"1e400"])
@example([b'"a\0"'])
@example([b"\xff"])
@example([b"NaN"])
def test_many_payloads_are_read_as_each_of_them(values: list[bytes | None]) -> None:
    found = list(jsons_of(values))
    assert found == [json_of(value) for value in values]
    for value, text in zip(values, found, strict=True):
        assert text is None or isinstance(text, Undecoded) == isinstance(json_of(value), Undecoded)
        if isinstance(text, Undecoded):
            assert text.raw == value


def test_what_is_json_already_stays() -> None:
    assert list(jsons_of(["1", None, "{"])) == ["1", None, "{"]


@given(st.lists(st.builds(lambda at, put: _USUAL[:at] + put + _USUAL[at + 1 :], st.integers(0, 90), st.binary())))
@example([_USUAL, _USUAL.replace(b"2026-11", b"2026-99")])
@example([_USUAL.replace(b"2026-11-28T20:41:50.966656", b"2026-W01-1T20:41:50.966656")])
@example([_USUAL.replace(b"+00:00", b"+01:00")])
def test_many_times_are_read_as_each_of_them(states: list[bytes]) -> None:
    assert list(moments_of([*states, None])) == [*map(one_moment, states), None]
    assert list(moments_of(states)) == list(map(one_moment, states))
    assert list(moments_of([_USUAL, *states])) == list(map(one_moment, [_USUAL, *states]))


@pytest.mark.parametrize("states", [[], [None], [_USUAL] * 3])
def test_times_of_few(states: list[bytes | None]) -> None:
    assert list(moments_of(states)) == [None if state is None else one_moment(state) for state in states]
