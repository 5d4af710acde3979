"""Which types of events collided in a load test, from the conflicts that were recorded, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from esx.errors import EsxError
from esx.eventstore import EventStore
from esx.filters import Filter
from esx.load.model import PairCounts
from esx.store.conflicts.conflict import ConflictPair

TITLES = ("lost", "won", "conflicts", "share", "streams", "most on")
"""The titles of the table."""
_MOST = 50


async def collisions(store: EventStore, prefix: str) -> tuple[tuple[PairCounts, ...], str | None]:
    """Return the pairs that collided on streams of that prefix; if they cannot be read, none, and why."""
    try:
        found = await store.conflicts(Filter(stream=f"{prefix}*"))
    except EsxError as error:
        return (), f"they cannot be read: {error}"
    return tuple(
        PairCounts(pair.lost, pair.won, pair.conflicts, pair.stream_count, *_most_on(pair, prefix))
        for pair in found.pairs[:_MOST]
    ), None


def _most_on(pair: ConflictPair, prefix: str) -> tuple[str, int]:
    if not pair.streams:
        return "", 0
    stream_id, count = pair.streams[0]
    return f"stream {stream_id.removeprefix(prefix)}", count


def collision_rows(pairs: Sequence[PairCounts], most: int) -> list[list[str]]:
    """Return the rows of the table, at most so many, in the order of `TITLES`."""
    total = sum(pair.conflicts for pair in pairs) or 1
    return [
        [
            pair.lost,
            pair.won or "nothing",
            f"{pair.conflicts:,}",
            f"{pair.conflicts / total:.0%}",
            f"{pair.streams:,}",
            f"{pair.most_on} ({pair.most / max(pair.conflicts, 1):.0%})",
        ]
        for pair in pairs[:most]
    ]
