"""Each page of another tool's store is read by the indexes of that store, at any size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from esx.layouts.detection import detect_layout
from esx.layouts.operators import rewriter
from tests.layouts.foreign.larger import LARGER, load_larger
from tests.store.read.test_plans import Explained, OnConnection

pytestmark = pytest.mark.slow

PAGE = 50
EVENTS = dict.fromkeys(LARGER, 60_000) | {"rails_event_store": 100_000}
"""How many are enough for the plans of more."""


class Rewritten(Explained):
    """Sends queries as a session of the store does."""

    rewrite: Callable[[str], str] | None = None

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        return await super().fetch(query if self.rewrite is None else self.rewrite(query), *arguments)


@pytest.mark.parametrize("name", LARGER)
async def test_pages_touch_a_bounded_number_of_rows(name: str, empty_dsn18: str) -> None:
    stream, prefix = LARGER[name].stream, LARGER[name].prefix
    middle = EVENTS[name] // 2
    connection = await asyncpg.connect(empty_dsn18)
    await load_larger(connection, name, EVENTS[name])
    layout = await detect_layout(connection, LARGER[name].table)
    c = Rewritten(connection)
    c.rewrite = rewriter(layout.custom_columns)
    store = OnConnection(c, layout)
    pages: dict[str, tuple[Callable[[], Awaitable[Any]], int]] = {
        "all events": (lambda: store.preview_all_page(position=middle, limit=PAGE), PAGE),
        "all events, backwards": (lambda: store.preview_all_page(position=middle, limit=PAGE, backwards=True), PAGE),
        "a stream": (lambda: store.preview_page(stream, limit=PAGE), PAGE),
        "a stream, backwards": (lambda: store.read_page(stream, limit=PAGE, backwards=True), PAGE),
        "one event": (lambda: store.event(middle), 1),
        "streams by name": (lambda: store.streams_page(limit=PAGE), 8 * PAGE),
        "streams by prefix": (lambda: store.streams_page(prefix=prefix, limit=10), 8 * 10 + 20),
        "streams by activity": (lambda: store.streams_page(recent=True, limit=PAGE), 6_000),
        "a stream at a glance": (lambda: store.summary(stream), 3),
    }
    for page, (read, most) in pages.items():
        c.anew()
        assert await read(), page
        # By custom plans and by generic ones.
        assert c.touched <= 2 * most * LARGER[name].tables + 10, page
        assert "Seq Scan" not in c.scans, page
    # The first of those streams is far from the first of all.
    found = (await store.streams_page(prefix=prefix, limit=10)).streams
    assert len(found) == 10
    assert all(each.stream_id.startswith(prefix) for each in found)
    await connection.close()
