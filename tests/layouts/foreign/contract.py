"""What holds for every store of another tool that esx reads: the same contents as its own tool shows.

Each check asks the store's layout what it can do, and compares with the facts of the fixture.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from esx import Event, EventStore, InvalidQuery, OrderUnknown
from esx.filters import Filter
from esx.layouts.layout import Layout
from esx.model import UNNUMBERED
from esx.positions import Position

Facts = dict[str, Any]
_OF_EXPORTS = ("first", "correlation_id", "causation_id")
"""What an export says of an event beside its columns, for an import into esx's own table."""


async def check_all(store: EventStore, layout: Layout, facts: Facts) -> None:
    """Check everything that the layout can do."""
    await check_streams(store, layout, facts)
    await check_categories(store, layout, facts)
    await check_named_events(store, facts)
    await check_health(store, facts)
    if layout.numbered:
        events = await check_events(store, facts)
        await check_recent(store, facts)
        if layout.disordered is None:
            await check_feed(store, events)
        await check_times(store, events)
        await check_trail(store, facts)
    else:
        await check_refusals(store)


async def check_events(store: EventStore, facts: Facts) -> list[Event]:
    """All events in both directions, and pages of them."""
    events = [event async for event in store.read_all()]
    assert len(events) == facts["events"]
    assert (events[0].global_seq, events[-1].global_seq) == (facts["global"]["first"], facts["global"]["last"])
    assert [event async for event in store.read_all(backwards=True)] == events[::-1]
    assert Counter(event.event_type for event in events) == facts["types"]
    page = await store.read_all_page(position=events[9].global_seq, limit=20)
    assert page == events[10:30]
    assert await store.read_all_page(position=events[30].global_seq, limit=20, backwards=True) == events[29:9:-1]
    previews = await store.preview_all_page(limit=len(events) + 1)
    assert [(preview.global_seq, preview.stream_id) for preview in previews] == [
        (event.global_seq, event.stream_id) for event in events
    ]
    return events


async def check_named_events(store: EventStore, facts: Facts) -> None:
    """Single events, with every column."""
    for named in facts["named_events"]:
        if named["global"] is None:
            [event] = await store.read_page(named["stream"], start=named["version"], limit=1)
            assert event.global_seq == UNNUMBERED
        else:
            found = await store.event(named["global"])
            assert found is not None
            event = found
        assert event.stream_id == (named["stream"] or "")
        version = UNNUMBERED if named["version"] is None else named["version"]
        assert (event.stream_seq, event.event_type) == (version, named["type"])
        if isinstance(named["data"], dict) and "__characters__" in named["data"]:
            assert len(str(event.data_json)) == pytest.approx(named["data"]["__characters__"], rel=0.01)
        else:
            assert event.data == named["data"]
        assert event.metadata == named["metadata"]
        assert event.created_at == (None if named["at"] is None else datetime.fromisoformat(named["at"]))
        assert named["event_id"] is None or str(event.event_id) == named["event_id"]


async def check_streams(store: EventStore, layout: Layout, facts: Facts) -> None:
    """The list of streams by name and by prefix, and each named stream."""
    listed = [stream async for stream in store.streams()]
    streams = {stream.stream_id: stream for stream in listed}
    assert len(listed) == len(streams) == facts["streams"]
    back = await store.streams_page(limit=len(listed) + 1, backwards=True)
    assert [stream.stream_id for stream in back.streams] == [*streams][::-1]
    if layout.keys is None or layout.name_table is not None:
        assert [*streams] == sorted(streams, key=str.encode)
    for name, known in facts["named_streams"].items():
        read = [event async for event in store.read(name)]
        assert {event.stream_id for event in read} == {name}
        assert len(read) == known["events"]
        assert (read[0].stream_seq, read[-1].stream_seq) == (known["first_version"], known["last_version"])
        assert [event async for event in store.read(name, backwards=True)] == read[::-1]
        assert await store.read_page(name, start=known["last_version"]) == read[-1:]
        assert await store.version(name) == streams[name].version == known["last_version"]
        assert streams[name].last_event_type == known["last_type"]
        plan = await store.plan_search(Filter(event_type=known["last_type"].replace("\\", r"\\")), stream=name)
        found = [event async for part in store.search(plan) for event in part.events]
        assert found == [event for event in read if event.event_type == known["last_type"]]
    first = min(facts["named_streams"], default="none")
    for prefix in (first[:4], first[:-2]):
        begun = [stream.stream_id async for stream in store.streams(prefix=prefix)]
        assert begun == [name for name in streams if name.startswith(prefix)]
        assert (await store.count_streams(prefix=prefix)).count == len(begun)


async def check_categories(store: EventStore, layout: Layout, facts: Facts) -> None:
    """The categories are those of the streams, where ids have them."""
    if not layout.has_categories:
        with pytest.raises(InvalidQuery, match="no categories"):
            await store.categories_page()
        return
    names = [stream.stream_id async for stream in store.streams()]
    found = {category.category: category.streams.count async for category in store.categories()}
    if layout.category is not None:
        known = {name: category["streams"] for name, category in facts["categories"].items() if category["streams"]}
        assert found == {"" if name == "None" else name: streams for name, streams in known.items()}
        assert (await store.categories_page()).looked is None
        listed = {
            name: [stream.stream_id async for stream in store.streams(category=name)] for name in (*found, "nobody")
        }
        assert {name: len(streams) for name, streams in listed.items()} == {**found, "nobody": 0}
        assert sorted(each for streams in listed.values() for each in streams) == sorted(names)
        back = await store.categories_page(limit=1, backwards=True)
        onward = await store.categories_page(after=back.next_after, limit=1, backwards=True)
        assert [page.categories[0].category for page in (back, onward)] == sorted(found)[-1:-3:-1]
        last = await store.streams_page(category=sorted(found)[-1], limit=1, backwards=True)
        assert [stream.stream_id for stream in last.streams] == listed[sorted(found)[-1]][-1:]
        return
    assert found == Counter(name.partition(layout.separator)[0] for name in names)
    back = await store.categories_page(limit=2, backwards=True)
    assert [category.category for category in back.categories] == [*found][:-3:-1]


async def check_recent(store: EventStore, facts: Facts) -> None:
    """The streams by their last event."""
    recent = [stream async for stream in store.streams(recent=True)]
    named = [stream.last_global_seq async for stream in store.streams()]
    assert [stream.last_global_seq for stream in recent] == sorted(named, reverse=True)
    assert len(recent) == facts["streams"]


async def check_feed(store: EventStore, events: list[Event]) -> None:
    """The feed from start to end and on, and the export up to the same position."""
    exported = b"".join([piece async for piece in await store.export()]).decode()
    assert [_line(line) for line in exported.split("\n")[:-1]] == [_line(event.to_json()) for event in events]
    batches = [batch async for batch in (await store.feed()).to_safe_position()]
    last = [batch.events[-1] for batch in batches]
    assert [event for batch in batches for event in batch.events] == events
    # Events are made when they are asked for: before and after all of a batch were, in whatever way.
    assert [batch.events[-1] for batch in batches] == [batch.events[-1:][0] for batch in batches] == last
    assert batches[0].events[2:5] == events[2:5]
    assert batches[-1].events == events[-len(batches[-1].events) :]
    # Two feeds that want the same read the end of the order once.
    async with asyncio.timeout(120):
        for feed in (await store.feed(), await store.feed()):
            async for batch in feed.follow():
                if batch.position == events[-1].global_seq:
                    break


async def check_times(store: EventStore, events: list[Event]) -> None:
    """A time is found by the events' own clock, where they have one."""
    moment = events[len(events) // 2].created_at
    if moment is None:
        with pytest.raises(InvalidQuery, match="no times "):
            await store.locate(Position(moment=datetime.now(UTC)))
        return
    place = await store.locate(Position(moment=moment))
    assert place.first == min(event.global_seq for event in events if event.created_at and event.created_at >= moment)


async def check_trail(store: EventStore, facts: Facts) -> None:
    """The ids by which events are connected, and all events of a trail, from its id and from any of them."""
    for named in facts["named_events"]:
        trail = await store.trail(named["global"])
        [cause] = [node.event.cause for node in trail.nodes if node.event.global_seq == named["global"]]
        assert named["correlation_id"] in (None, trail.correlation)
        assert cause == named["causation_id"]
        for event in (node.event for node in trail.nodes):  # it shows their data as a list does
            [listed] = await store.preview_all_page(position=event.global_seq + 1, limit=1, backwards=True)
            assert (listed.global_seq, listed.data_start, listed.data_bytes) == (
                event.global_seq,
                event.preview,
                event.data_bytes,
            )
    if "trail" in facts:
        trail = await store.trail(facts["trail"]["correlation_id"])
        assert trail.correlation == facts["trail"]["correlation_id"]
        assert len(trail.nodes) == facts["trail"]["events"]
        assert len({node.event.stream_id for node in trail.nodes}) == facts["trail"]["streams"]
        assert (await store.trail(trail.nodes[-1].event.global_seq)).nodes == trail.nodes


async def check_health(store: EventStore, facts: Facts) -> None:
    """Health and doctor speak of the store that is there."""
    health = await store.health()
    assert health.events.count == facts["events"]
    assert health.numbered == (facts["global"] is not None)
    if facts["global"] is not None:
        assert health.head == health.last == facts["global"]["last"]
    assert health.writers == ()
    findings = await store.doctor()
    # The servers of the tests run without fsync, and the transactions of a fixture are those of another server.
    wrong = {finding.check for finding in findings if finding.severity.wrong} - {"transaction-ids"}
    kept = [value for row in facts.get("checkpoints", ()) for value in row if isinstance(value, int)]
    beyond = facts["global"] is not None and any(value > facts["global"]["last"] for value in kept)
    assert wrong == ({"fsync", "consumers"} if beyond else {"fsync"})
    assert all(finding.made for finding in findings)
    assert findings[0].message.endswith("which esx only reads")
    assert "esx init" not in str([finding.remedy for finding in findings])


async def check_refusals(store: EventStore) -> None:
    """Without a global order, what needs one says so."""
    for refused in (
        store.read_all_page(),
        store.streams_page(recent=True),
        store.feed(),
        store.event(1),
        store.events([1]),
        store.trail(1),
        store.trail("id"),
        store.export(),
        store.plan_search(Filter(event_type="T")),
        store.locate(Position(moment=datetime.now(UTC))),
        store.locate(Position(global_seq=1), stream="s"),
    ):
        with pytest.raises(OrderUnknown, match="no global order: choose a stream"):
            await refused


def _line(text: str) -> list[tuple[str, Any]]:
    """Return the members of a line in their order, numbers with all their digits."""
    members = json.loads(text, parse_float=str, parse_int=str)
    return [(name, value) for name, value in members.items() if name not in _OF_EXPORTS]
