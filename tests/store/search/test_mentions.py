"""Finding what mentions a value: in the ids of streams, in data and in metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esx.errors import InvalidQuery
from esx.filter_language import filter_text, parse_filter
from esx.filters import Filter
from esx.model import NewEvent
from tests.support.rounds import rounds

if TYPE_CHECKING:
    from esx.eventstore import EventStore

UUID = "6ba7b810-9dad-1092-80b4-00c04fd430c8"
STORED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("accounts-1092", {}, {}),
    ("carts-1", {"customer": 1092}, {}),
    ("carts-2", {"customer": "1092"}, {}),
    ("carts-3", {"of": {"customers": ["accounts-1092", 7]}}, {}),
    ("carts-4", {"note": "for 1092, at\n1092"}, {}),
    ("carts-5", {"by_customer": {"1092": True}}, {}),
    ("carts-6", {}, {"user": "customer:1092"}),
    ("carts-7", {"note": "x\n1092"}, {}),
    ("accounts-10920", {"customer": 10920}, {}),
    ("carts-8", {"customer": 21092, "total": 1092.5, "rate": 0.1092, "hex": "a1092"}, {"id": UUID}),
]
NOT_MENTIONED = {"accounts-10920", "carts-8"}


async def found(store: EventStore, text: str) -> set[str]:
    plan = await store.plan_search(parse_filter(text))
    return {event.stream_id async for part in store.search(plan) for event in part.events}


async def test_a_value_is_found_wherever_it_is_named_as_a_whole(store18: EventStore) -> None:
    for stream, data, metadata in STORED:
        await store18.append(stream, [NewEvent("T", data, metadata)])
    assert await found(store18, "mentions:1092") == {stream for stream, _, _ in STORED} - NOT_MENTIONED
    assert await found(store18, "mentions:1092 carts-*") == {f"carts-{n}" for n in range(1, 8)}
    assert await found(store18, "mentions:1092 mentions:customers") == {"carts-3"}
    assert await found(store18, f"mentions:{UUID}") == {"carts-8"}
    assert await found(store18, "mentions:9dad") == set()
    assert await found(store18, "mentions:CUSTOMERS") == set()
    assert await found(store18, 'mentions:"for 1092"') == {"carts-4"}


async def test_the_feed_and_an_export_have_it_too(store18: EventStore) -> None:
    for stream, data, metadata in STORED[:3]:
        await store18.append(stream, [NewEvent("T", data, metadata)])
    await store18.append("other-1", [NewEvent("T")])
    lines = b"".join([piece async for piece in await store18.export(where=parse_filter("mentions:1092"))])
    assert lines.count(b"\n") == 3
    with pytest.raises(InvalidQuery, match="keep no data"):
        await store18.conflicts(where=parse_filter("mentions:1092"))


TEXT = st.text(min_size=1, max_size=8).filter(lambda text: text.strip() and "\0" not in text and text.isprintable())


@settings(max_examples=rounds(25, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXT)
async def test_any_value_of_an_event_is_found_by_what_it_is(store18: EventStore, text: str) -> None:
    assert parse_filter(filter_text(Filter(mentions=(text,)))).mentions == (text,)
    stream = f"s-{hash(text)}"
    await store18.append(stream, [NewEvent("T", {"a": [{"b": text}]})])
    assert stream in await found(store18, filter_text(Filter(mentions=(text,))))
