"""Writing the rows of a view to a file, as NDJSON."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from esx.store.views import EventsView, EventView, FeedView, StreamsView, TrailView

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esx.store import EventStore
    from esx.store.views import View

_PIECE = 500


async def pieces_of(store: EventStore, view: View) -> AsyncIterator[tuple[bytes, int]]:
    """Yield the rows of `view`, all of them, as whole lines of NDJSON, and how many rows each piece has."""
    if isinstance(view, FeedView):
        export = await store.export(after=view.after, where=view.where)
        async for piece in export:
            yield piece, piece.count(b"\n")
        return
    lines: list[str] = []
    async for line in _lines(store, view):
        if line:
            lines.append(line)
        if len(lines) >= _PIECE or not line:
            yield _joined(lines), len(lines)
            lines.clear()
    yield _joined(lines), len(lines)


def _joined(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


async def _lines(store: EventStore, view: View) -> AsyncIterator[str]:
    """Yield a line a row, and an empty text where something was looked at in vain."""
    if isinstance(view, StreamsView):
        async for stream in store.streams(
            prefix=view.prefix, match=view.match, contains=view.contains, recent=view.recent
        ):
            yield stream.to_json()
    elif isinstance(view, EventsView) and (view.where or view.since is not None or view.until is not None):
        plan = await store.plan_search(view.where, stream=view.stream_id, since=view.since, until=view.until)
        async for part in store.search(plan, backwards=view.backwards):
            for event in part.events:
                yield event.to_json()
            yield ""
    elif isinstance(view, EventsView):
        if view.stream_id is None:
            events = store.read_all(backwards=view.backwards)
        else:
            events = store.read(view.stream_id, backwards=view.backwards)
        async for event in events:
            yield event.to_json()
    else:
        assert isinstance(view, EventView | TrailView)
        for number in (view.global_seq,) if isinstance(view, EventView) else view.members:
            found = await store.event(number)
            if found is not None:
                yield found.to_json()


def whole(view: View) -> View:
    """Return `view` from its start, wherever on it the screen is."""
    return replace(view, start=None) if isinstance(view, EventsView) else view


def file_name(view: View) -> str:
    """Return a name for the file of a view, of plain characters only."""
    if isinstance(view, EventsView):
        name = "all" if view.stream_id is None else view.stream_id
    elif isinstance(view, EventView | TrailView):
        name = f"{'event' if isinstance(view, EventView) else 'trail'}-{view.global_seq}"
    else:
        name = "streams" if isinstance(view, StreamsView) else "feed"
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name[:200]).strip('._-')[:60] or 'stream'}.ndjson"
