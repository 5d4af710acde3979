"""How long `esx load learn` takes, and what it reads: ``python -m tests.bench.learn [EVENTS]``, else 10 million."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from esx import EventStore
from esx.load.learn.fit import fit
from tests.bench.common import database, server
from tests.support.connections import connected

_FILL = """
    INSERT INTO events (stream_id, stream_seq, event_type, data, created_at)
    SELECT 'account-' || n % 50000, n / 50000, CASE n % 3 WHEN 0 THEN 'Withdrawn' ELSE 'Deposited' END,
           jsonb_build_object('amount', n % 1000, 'pad', repeat('x', (50 + n % 300)::int)),
           now() - ($2::bigint - n) * interval '60 ms'
    FROM generate_series($1::bigint, $3::bigint) n
"""
_READ = """
    SELECT coalesce(sum(idx_tup_fetch + seq_tup_read), 0)::bigint FROM pg_stat_user_tables WHERE relname = 'events'
"""
_BATCH = 500_000


async def main(events: int) -> None:
    """Fill a store, learn from it a few times, and print how long that took and how many rows were read."""
    with server() as running:
        dsn = await database(running, "learned")
        async with connected(dsn) as sql:
            await sql.execute("ALTER TABLE events DISABLE TRIGGER USER; SET synchronous_commit = off")
            for begin in range(0, events, _BATCH):
                await sql.execute(_FILL, begin, events, min(begin + _BATCH, events) - 1, timeout=3600)
            await sql.execute("ALTER TABLE events ENABLE TRIGGER USER")
            await sql.execute("ANALYZE events", timeout=3600)
            size = await sql.fetchval("SELECT pg_size_pretty(pg_total_relation_size('events'))")
            print(f"{events:,} events, {size}")
            times = []
            for _ in range(3):
                before = await sql.fetchval(_READ)
                began = time.perf_counter()
                async with EventStore.connect(dsn, read_only=True) as store:
                    sample = await store.traffic()
                assert sample is not None
                profile = fit(sample, "bench")
                times.append(time.perf_counter() - began)
                await asyncio.sleep(1.5)  # until the session's counters are there
                await sql.execute("SELECT pg_stat_clear_snapshot()")
                read = await sql.fetchval(_READ) - before
                [category] = profile.categories
                print(
                    f"{times[-1]:.1f} s, {profile.events_read:,} rows ({profile.events_read / events:.2%}), "
                    f"{read:,} fetched by PostgreSQL ({read / events:.2%}); {profile.arrivals.busiest:.1f} appends/s, "
                    f"{category.streams:,} streams"
                )
            print(f"median {statistics.median(times):.1f} s")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000))
