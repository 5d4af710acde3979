"""What the real tools write, esx shows as the tools themselves do."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from esx import Event, EventStore, OrderUnknown
from esx.layouts.detection import detect_layout
from esx.layouts.foreign.recognition import read_tables, recognise
from esx.model import UNNUMBERED
from tests.layouts.foreign.real.tools import TOOLS, Tool
from tests.layouts.foreign.real.writers.story import STORY
from tests.support.connections import connected

_EACH = [
    pytest.param(
        tool,
        marks=[pytest.mark.skipif(tool.absent is not None, reason=str(tool.absent)), pytest.mark.writers],
        id=tool.kind,
    )
    for tool in TOOLS
]
_TOLD = sum(len(step.events) for step in STORY if not step.stale)


@pytest.mark.slow
@pytest.mark.parametrize("tool", _EACH)
async def test_what_a_tool_wrote_is_read_as_the_tool_reads_it(tool: Tool, empty_dsn18: str) -> None:
    said = await tool.write(empty_dsn18)
    written = said["events"]
    assert said["refused"] == 1
    assert len(written) >= _TOLD
    async with connected(empty_dsn18) as connection:
        [found] = recognise(await read_tables(connection))
        assert found.kind.name == tool.kind
        assert found.table.rows is None  # PostgreSQL has not counted them yet
        layout = await detect_layout(connection)
    async with EventStore.connect(empty_dsn18) as store:
        versions: dict[str, list[int]] = {}
        for event in written:
            versions.setdefault(event["stream"], []).append(event["version"])
        listed = {stream.stream_id: stream.version async for stream in store.streams()}
        assert listed == ({} if tool.tags else {name: numbers[-1] for name, numbers in versions.items()})
        for name, numbers in versions.items():
            own = [event async for event in store.read(name)]
            assert [event.stream_seq for event in own] == numbers
            _check(own, [event for event in written if event["stream"] == name])
        if layout.numbered:
            everything = [event async for event in store.read_all()]
            nowhere = {"stream": "", "version": UNNUMBERED}
            _check(everything, [{**event, **nowhere} for event in written] if tool.tags else written)
            if layout.disordered is None:
                feed = await store.feed()
                assert [event async for batch in feed.to_safe_position() for event in batch.events] == everything
            else:
                with pytest.raises(OrderUnknown):
                    await store.feed()
        others = await store.other_consumers()
        assert {each.name: each.position for each in others.consumers} == said.get("consumers", {})
        assert others.notes == ()


def _check(read: list[Event], written: list[dict[str, Any]]) -> None:
    """Compare what esx read with what the tool says, which may lack what the tool does not tell."""
    for event, said in zip(read, written, strict=True):
        assert (event.stream_id, event.stream_seq, event.event_type) == (said["stream"], said["version"], said["type"])
        assert (event.data, event.metadata) == (said["data"], said["metadata"])
        assert said.get("global") in (None, event.global_seq)
        assert said.get("id") in (None, str(event.event_id))
        if "at" in said:
            assert event.created_at is not None
            # JavaScript has milliseconds, and cuts what is below.
            assert timedelta() <= event.created_at - datetime.fromisoformat(said["at"]) < timedelta(milliseconds=1)
