"""`esx read` with filters, positions and times."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest

from esx.store.bulk.copy import ImportedEvent
from tests.cli.support import Running, esx, ndjson, one_line_error

if TYPE_CHECKING:
    from esx.eventstore import EventStore

pytestmark = pytest.mark.slow

START = datetime(2026, 8, 7, 12, tzinfo=UTC)


async def fill(store: EventStore) -> None:
    """Thirty events, a minute apart, of three streams."""
    types = ["Opened", "Deposited", "Withdrawn"]
    await store.import_events(
        ImportedEvent(
            f"account-{n % 3}",
            n // 3,
            types[min(n // 3, 1) + n % 2] if n >= 3 else types[0],
            f'{{"amount": {n}}}',
            '{"user": "ann"}' if n % 2 else None,
            START + timedelta(minutes=n),
            uuid4(),
        )
        for n in range(30)
    )


async def test_filters_positions_and_times(dsn18: str, store18: EventStore) -> None:
    await fill(store18)

    def numbers(*arguments: str, **extra: str) -> list[int]:
        done = esx("read", *arguments, "--json", "-d", dsn18, **extra)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return [event["global_seq"] for event in ndjson(done.stdout)]

    assert numbers("$all", "--type", "Open*") == [1, 2, 3]
    assert numbers("$all", "--type", "Withdrawn", "--where", "$.amount > 20") == [22, 24, 26, 28, 30]
    assert numbers("$all", "--where", '$metadata.user == "ann"', "--limit", "2", "--backwards") == [30, 28]
    assert numbers("account-1", "--where", "$.amount > 20", "--from", "9") == [29]
    assert numbers("$all", "--at", "2026-08-07T12:27Z") == [28, 29, 30]
    assert numbers("$all", "--at", "28", "--limit", "1") == [28]
    assert numbers("$all", "--stream", "*-[01]", "--at", "27") == [28, 29]
    assert numbers("account-1", "--at", "#22") == [23, 26, 29]
    assert numbers("account-1", "--at", "#22", "--backwards", "--limit", "2") == [23, 20]
    assert numbers("$all", "--since", "2026-08-07T12:27Z", "--until", "2026-08-07T12:29Z") == [28, 29]
    assert numbers("account-0", "--until", "2026-08-07T12:05Z") == [1, 4]
    assert numbers("$all", "--since", "2026-08-07 14:27", TZ="Europe/Vienna") == [28, 29, 30]
    done = esx("read", "$all", "--since", "-1m", "--until", "now", "-d", dsn18)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no event passes\n")


async def test_a_diff_of_chosen_events_is_with_the_one_before_in_the_stream(dsn18: str, store18: EventStore) -> None:
    await fill(store18)
    done = esx("read", "account-0", "--where", "$.amount == 3 || $.amount == 9", "--diff", "--json", "-d", dsn18)
    assert [(event["stream_seq"], event["diff"][0]["old"]) for event in ndjson(done.stdout)] == [(1, 0), (3, 6)]


async def test_what_makes_no_sense_is_refused_in_one_line(dsn18: str, store18: EventStore) -> None:
    await fill(store18)
    for arguments, code, reason in (
        (["--since", "soon"], 2, "'soon' is not a time: use 2026-08-07 14:00"),
        (["--at", "2026-02-30"], 2, "does not exist"),
        (["--at", "5", "--since", "-1h"], 2, "give one of them"),
        (["--since", "-1h", "--until", "-2h"], 2, "--since is not before --until"),
        (["--where", "$.a >"], 2, "'$.a >' is not a JSONPath"),
        (["--type", "[a"], 2, "[ without its ]"),
        (["--from", "9" * 20], 2, "a number is too large"),
    ):
        assert reason in one_line_error(esx("read", "$all", *arguments, "-d", dsn18), code)
    assert "no events" in one_line_error(esx("read", "nobody", "--at", "3", "-d", dsn18), 1)
    done = esx("read", "account-1", "--at", "-1h", "-d", dsn18)
    assert (done.returncode, done.stdout) == (0, "")
    assert "the last event is before that position" in done.stderr
    done = esx("read", "account-1", "--type", "None", "-d", dsn18)
    assert "no event passes" in done.stderr


async def test_the_cost_of_a_large_search_is_told_and_ctrl_c_ends_it(dsn18: str, store18: EventStore) -> None:
    await fill(store18)
    connection = await asyncpg.connect(dsn18)
    try:
        # More events than are counted, and a leap in their numbers: there may be millions in between.
        await connection.execute(
            "INSERT INTO events (stream_id, stream_seq, event_type, data) "
            "SELECT 'many', n, 'T', '{}' FROM generate_series(0, 10999) n"
        )
        await connection.execute("UPDATE events SET global_seq = 1000000000 WHERE global_seq = 30")
        done = esx("read", "$all", "--where", "$.amount > 27", "--json", "-d", dsn18)
        assert [event["global_seq"] for event in ndjson(done.stdout)] == [29, 1_000_000_000]
        cost, advice = done.stderr.splitlines()
        assert cost.startswith("this looks at up to 5,000,000 events: less than a minute, longer if ")
        assert advice.endswith("CREATE INDEX CONCURRENTLY ON events (global_seq) WHERE data @@ '($.\"amount\" > 27)'")
        async with connection.transaction():
            await connection.execute("LOCK TABLE events")
            running = await Running.start("read", "$all", "--type", "Opened", "-d", dsn18)
            async with asyncio.timeout(120):
                while not await store_waits(dsn18):
                    assert running.process.returncode is None
            assert await running.end(signal.SIGINT) == 130
    finally:
        await connection.close()


async def store_waits(dsn: str) -> bool:
    watcher = await asyncpg.connect(dsn)
    try:
        found = await watcher.fetchval(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name = 'esx'"
        )
        return bool(found)
    finally:
        await watcher.close()
