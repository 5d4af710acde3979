"""Values with every digit, the difference of two, merging, reducers, and states by version."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esx.fold.diff import MISSING, diff
from esx.fold.reducer import MERGE, Reducer, ReducerFailed, load_reducer
from esx.fold.states import States
from esx.fold.value import Number, dump, jsonpath, parse
from esx.model import Event, JsonText, NewEvent

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from esx.eventstore import EventStore

DIGITS = '{"a": 1.10, "b": 12345678901234567890123, "c": [1e400, -0, 0.000], "d": {"e": "x\\u0000\\n\\"", "f": []}}'
DEEP = 10_000

scalars = st.none() | st.booleans() | st.integers().map(lambda n: Number(str(n))) | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def change(text: str, other: str) -> list[tuple[str, str, Any, Any]]:
    return [(jsonpath(c.path), c.op, c.old, c.new) for c in diff(parse(text), parse(other))]


def event(seq: int, data: str, event_type: str = "T") -> Event:
    return Event(seq + 1, "s", seq, event_type, data, None, None, None)


def test_every_digit_survives() -> None:
    assert dump(parse(DIGITS)) == DIGITS
    long = "9" * 10_000
    assert dump(parse(long)) == long
    assert dump(int(long[:4000])) == long[:4000]


@pytest.mark.slow
@settings(deadline=None)
@given(values)
def test_dumping_and_parsing_return_the_same(value: Any) -> None:
    text = dump(value)
    assert not list(diff(parse(text), value))
    with patch("json.loads", side_effect=RecursionError):  # as of what is nested deeper than json goes
        parsed_deep = parse(text)
    assert not list(diff(parsed_deep, value))
    assert json.loads(text) == json.loads(text)


@pytest.mark.slow
def test_any_depth() -> None:
    for opening, closing in (("[", "]"), ('{"a": ', "}"), ("[0, ", "]")):
        old = opening * DEEP + "1" + closing * DEEP
        new = opening * DEEP + "2" + closing * DEEP
        assert dump(parse(old)) == old
        [found] = diff(parse(old), parse(new))
        assert (found.old, found.new, len(found.path)) == ("1", "2", DEEP)
        merged = MERGE.apply(MERGE.apply(None, event(0, old)), event(1, new))
        assert dump(merged) == new


@pytest.mark.parametrize("text", ["[1", "1]", "[1] 2", "{,", "nope", "", "NaN", '"\x01"'])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_diff_by_path() -> None:
    assert change('{"a": 1, "b": {"c": [1]}}', '{"b": {"c": [1, 2], "d": null}}') == [
        ("$.b.c[1]", "added", MISSING, "2"),
        ("$.b.d", "added", MISSING, None),
        ("$.a", "removed", "1", MISSING),
    ]
    assert change("[1, 2, 3, 4]", "[1, 3, 4]") == [("$[1]", "removed", "2", MISSING)]
    assert change("[1, 2]", "[0, 1, 2]") == [("$[0]", "added", MISSING, "0")]
    assert change('[{"n": 1}, 5]', '[{"n": 2}, 5]') == [("$[0].n", "changed", "1", "2")]
    assert change('{"x y": 1.1}', '{"x y": 1.10}') == [('$."x y"', "changed", "1.1", "1.10")]
    assert change('{"a": "1"}', '{"a": 1}') == [("$.a", "changed", "1", Number("1"))]
    assert change('{"a": null}', "{}") == [("$.a", "removed", None, MISSING)]
    assert change("1", '{"a": 1}')[0][:2] == ("$", "changed")


@pytest.mark.slow
@settings(deadline=None)
@given(values, values)
def test_a_diff_is_empty_only_for_equals(old: Any, new: Any) -> None:
    canonical = [json.dumps(json.loads(dump(side)), sort_keys=True) for side in (old, new)]
    changes = list(diff(old, new))
    assert (not changes) == (canonical[0] == canonical[1])
    for found in changes:
        assert json.loads(found.to_json()).keys() == {"path", "op", "old", "new"}


async def test_paths_are_postgresqls_own(dsn18: str) -> None:
    import asyncpg

    value = {"a": {"strict": [10, {"x \" y'\\\n": {"": {"$1": "é\u2028"}}}]}, "1": {"type": {"is": 5}}}
    connection = await asyncpg.connect(dsn18)
    try:
        await check_path(connection, value, ("a", "strict", 1, "x \" y'\\\n", "", "$1"))
        await check_path(connection, value, ("1", "type", "is"))
    finally:
        await connection.close()


async def check_path(connection: asyncpg.Connection, value: Any, path: tuple[str | int, ...]) -> None:
    expected = value
    for step in path:
        expected = expected[step]
    found = await connection.fetchval(
        "SELECT jsonb_path_query_first($1::text::jsonb, ($2::text)::jsonpath)::text", json.dumps(value), jsonpath(path)
    )
    assert json.loads(found) == expected


def test_merging_follows_rfc_7386() -> None:
    steps = [
        ('{"a": 1, "b": {"c": 1.10, "d": [1]}}', '{"a": 1, "b": {"c": 1.10, "d": [1]}}'),
        ('{"b": {"c": null, "e": {"f": null, "g": 1}}}', '{"a": 1, "b": {"d": [1], "e": {"g": 1}}}'),
        ('{"a": {"x": 1}, "b": [2]}', '{"a": {"x": 1}, "b": [2]}'),
        ("null", '{"a": {"x": 1}, "b": [2]}'),
        ("[1]", "[1]"),
        ('{"z": 1}', '{"z": 1}'),
    ]
    state: Any = None
    kept = []
    for seq, (data, expected) in enumerate(steps):
        state = MERGE.apply(state, event(seq, data))
        kept.append((state, expected))
    # States made before are as they were: they share what did not change.
    assert [dump(state) for state, _ in kept] == [expected for _, expected in kept]


def test_reducers_are_loaded_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_states.py").write_text(
        "def total(state, event):\n    return {'n': state['n'] + event.data['n']}\ntotal.initial = {'n': 0}\nodd = 3\n"
    )
    (tmp_path / "broken_states.py").write_text("import sys; sys.exit('no')\n")
    (tmp_path / "lacking_states.py").write_text("import not_there_at_all\n")
    reducer = load_reducer("my_states:total")
    assert reducer.apply(reducer.start(), event(0, '{"n": 2}')) == {"n": 2}
    for text, says in (
        ("my_states", "use module:function"),
        ("my_states:", "use module:function"),
        ("../x:y", "use module:function"),
        ("nowhere_states:f", "no module nowhere_states"),
        ("my_states:gone", "gone"),
        ("my_states:odd", "is a int"),
        ("broken_states:f", "SystemExit"),
        ("lacking_states:f", "not_there_at_all"),
    ):
        with pytest.raises(ReducerFailed, match=says):
            load_reducer(text)


def test_errors_of_a_reducer_name_it_and_the_event() -> None:
    def bad(state: Any, event: Event) -> Any:
        return 1 / 0

    with pytest.raises(ReducerFailed, match=r"reducer m:bad failed at event 8 \(s@7, Odd\): ZeroDivisionError"):
        Reducer("m:bad", bad).apply(None, event(7, "{}", "Odd"))
    with pytest.raises(ReducerFailed, match="object has no form in JSON"):
        Reducer("m:bad", bad).to_json({"x": [object()]}, event(7, "{}"))
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ReducerFailed, match="contains itself"):
        Reducer("m:bad", bad).to_json(circle, event(7, "{}"))


def test_what_reducers_return_has_a_form() -> None:
    @dataclass
    class Line:
        sku: str
        price: Decimal

    assert dump({"lines": (Line("a", Decimal("1.10")),), 1: {2}, "f": 0.5, "n": None}) == (
        '{"lines": [{"sku": "a", "price": 1.10}], "1": [2], "f": 0.5, "n": null}'
    )


async def test_states_by_version(store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T", JsonText(f'{{"n": {n}.0, "k{n % 7}": {n}}}')) for n in range(1700)])
    calls = 0

    def count(state: Any, event: Event) -> Any:
        nonlocal calls
        calls += 1
        state["last"] = event.stream_seq
        state["sum"] += event.stream_seq
        return state

    states = States(store18, "s", Reducer("m:count", count, {"sum": 0}))
    heard: list[int] = []
    for version in (1600, 1599, 3, 0, 1699, 650):
        state = await states.at(version, heard.append if not heard else None)
        assert state is not None
        assert state.version == version
        assert json.loads(state.text) == {"sum": version * (version + 1) // 2, "last": version}
        before = {"sum": version * (version - 1) // 2} | ({"last": version - 1} if version else {})
        assert json.loads(state.before) == before
    assert heard
    assert heard == sorted(set(heard)), "progress goes one way"
    calls = 0
    await states.at(1600)
    assert calls <= 500, "a kept state should be near"
    beyond = await states.at(10**9)
    assert beyond is not None
    assert beyond.version == 1699
    await store18.append("s", [NewEvent("T", {})])
    grown = await states.at(1700)
    assert grown is not None
    assert grown.version == 1700
    assert await States(store18, "none").at(5) is None
    merged = await States(store18, "s").at(1699)
    assert merged is not None
    assert '"n": 1699.0' in merged.text


async def test_the_previous_event_of_a_type(store: EventStore) -> None:
    await store.append("s", [NewEvent("Opened"), *[NewEvent(f"T{n % 2}", {"n": n}) for n in range(10)]])
    await store.append("other", [NewEvent("T1")])
    previous = await store.previous_event("s", 10)
    assert previous is not None
    assert previous.stream_seq == 9
    typed = await store.previous_event("s", 10, event_type="T1")
    assert typed is not None
    assert typed.stream_seq == 8
    assert await store.previous_event("s", 10, event_type="Opened") is not None
    assert await store.previous_event("s", 10, event_type="Opened", scan=9) is None
    assert await store.previous_event("s", 0) is None
    assert await store.previous_event("s", 0, event_type="T1") is None
