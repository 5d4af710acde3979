"""The events that a segment file and a table are compared with, the same each time."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from tests.bench.segmentfile import Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# As in the published figures: 130 million events in a million streams.
PER_STREAM = 130
_BATCH = 1000


def records(count: int, streams: int, seed: int = 1) -> Iterator[Record]:
    """Yield the synthetic events: some 400 bytes each with names, ids and numbers, in streams drawn by chance."""
    draw = random.Random(seed)
    versions = [0] * streams
    began = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1e6)
    for n in range(count):
        at = draw.randrange(streams)
        version, versions[at] = versions[at], versions[at] + 1
        data = b'{"note": "%b", "amount": %d.%02d, "customer": "c-%06d"}' % (
            *(draw.randbytes(112).hex().encode(), draw.randrange(10_000), draw.randrange(100)),
            draw.randrange(1_000_000),
        )
        event_id = UUID(bytes=draw.randbytes(16), version=4).bytes
        yield Record(
            *(b"order-%07d" % at, version, b"OrderStep%d" % draw.randrange(7), data, b'{"user": "ann"}'),
            *(began + n * 1000, event_id),
        )


def streams_of(count: int) -> int:
    """Return how many streams so many events have."""
    return max(count // PER_STREAM, 20)


def batches(count: int) -> Iterator[list[Record]]:
    """Yield the same in lists."""
    batch = []
    for record in records(count, streams_of(count)):
        batch.append(record)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


async def copy_lines(count: int) -> AsyncIterator[bytes]:
    """Yield the same in COPY's text format."""
    for batch in batches(count):
        yield "".join(
            f"{r.stream.decode()}\t{r.version}\t{r.type.decode()}\t{r.data.decode()}\t{r.metadata.decode()}\t"
            f"{datetime.fromtimestamp(r.created / 1e6, UTC).isoformat()}\t{UUID(bytes=r.id)}\n"
            for r in batch
        ).encode()
