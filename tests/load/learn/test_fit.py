"""Learning a store's traffic: what a history was made with is found again, from a part of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import pytest_asyncio

from esx import NO_STREAM, EventStore, InvalidQuery, NewEvent
from esx.load.learn.fit import OTHERS, UNNAMED, fit
from esx.load.learn.profile import CategoryTraffic, TrafficProfile, profile_text, read_profile
from esx.store.traffic.sample import read_traffic
from tests.layouts.foreign.fixtures import load_into
from tests.load.learn.traffic import BEGINS, HOURS, KINDS, SPREAD, Kind, fill_history
from tests.support.connections import connected

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from tests.conftest import Servers

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture
async def history_dsn(servers: Servers) -> str:
    return await servers.kept(18, "traffic", fill_history)


async def learned(dsn: str, since: datetime | None, *, slices: int, length: int) -> TrafficProfile:
    async with EventStore.connect(dsn, read_only=True) as store:
        sample = await store._read(read_traffic, since, slices=slices, length=length)
        assert sample is not None
        return fit(sample, store.address)


def mean(pairs: object) -> float:
    return sum(number * share for number, share in pairs)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("slices", "length"), [(80, 2000), (60, 1000)], ids=["all that there is", "two fifths of the events"]
)
async def test_what_a_history_was_made_with_is_found_within_a_tenth(
    history_dsn: str, slices: int, length: int, tmp_path: Path
) -> None:
    profile = await learned(history_dsn, BEGINS, slices=slices, length=length)
    path = tmp_path / "shop.toml"
    path.write_text(profile_text(profile))
    profile = read_profile(path)  # the file has it all
    assert profile.events_read <= slices * length * 1.25 + 20_000 + 5_000
    close = pytest.approx
    assert profile.arrivals.part_seconds == 3600
    assert [*profile.arrivals.appends[: len(HOURS)]] == close(HOURS, rel=0.1)
    assert profile.arrivals.busiest == close(max(HOURS) / 3600, rel=0.1)
    assert profile.arrivals.burst_seconds == 1
    assert profile.arrivals.burst_spread == close(SPREAD, rel=0.1)
    assert [each.name for each in profile.categories] == [kind.name for kind in KINDS]
    for found, kind in zip(profile.categories, KINDS, strict=True):
        check(found, kind)


def check(found: CategoryTraffic, kind: Kind) -> None:
    close = pytest.approx
    assert found.share == close(kind.share, rel=0.1)
    assert found.births == close(kind.births, rel=0.1, abs=0.001)
    assert found.heat == ("recency" if kind.recency else "popularity")
    assert found.zipf == close(kind.zipf, rel=0.1)
    assert found.streams == close(kind.streams, rel=0.1)
    weights = [rank**-kind.zipf for rank in range(1, kind.streams + 1)]
    assert found.hottest == close(kind.hottest or weights[0] / sum(weights), rel=0.1)
    assert dict(found.events_per_append) == close(kind.events_per_append, rel=0.1)
    assert {each.name: each.share for each in found.types} == close(
        {name: share for name, (share, _, _) in kind.types.items()}, rel=0.1
    )
    for each in found.types:
        _, smallest, largest = kind.types[each.name]
        assert each.bytes[0] == close(smallest, rel=0.1)
        assert each.bytes[5] == close((smallest + largest) / 2, rel=0.1)
        assert each.bytes[-1] == close(largest, rel=0.1)


async def test_only_what_is_asked_for_is_learned(history_dsn: str) -> None:
    since = BEGINS + timedelta(hours=10)
    profile = await learned(history_dsn, since, slices=80, length=2000)
    assert profile.since == since
    assert [*profile.arrivals.appends[: len(HOURS) - 10]] == pytest.approx(HOURS[10:], rel=0.1)
    async with EventStore.connect(history_dsn, read_only=True) as store:
        assert await store.traffic(BEGINS + timedelta(days=30)) is None


async def test_appends_are_told_by_their_transactions(dsn: str, store: EventStore, sql: asyncpg.Connection) -> None:
    for number in range(40):
        await store.append(f"a-{number}", [NewEvent("Made"), NewEvent("Named")], expected=NO_STREAM)
        await store.append(f"b-{number % 4}", [NewEvent("Moved")])
    # All at one time: then the transactions tell.
    await sql.execute("ALTER TABLE events DISABLE TRIGGER USER; UPDATE events SET created_at = '2026-08-07'")
    profile = await learned(dsn, None, slices=10, length=100)
    shares = {each.name: dict(each.events_per_append) for each in profile.categories}
    # The update is one transaction of all events, each with the same time.
    assert shares["a"] == {2: 1.0}
    await sql.execute("UPDATE events SET created_at = '2026-08-07'::timestamptz + global_seq * interval '1 s'")
    profile = await learned(dsn, None, slices=10, length=100)
    assert {each.name: dict(each.events_per_append) for each in profile.categories}["a"] == {1: 1.0}


async def test_two_transactions_of_one_time_are_two_appends(dsn18: str, sql18: asyncpg.Connection) -> None:
    for number in range(40):
        await sql18.execute(
            "INSERT INTO events (stream_id, stream_seq, event_type, data, created_at) "
            "VALUES ('a-1', $1::int, 'T', '{}', '2026-08-07'::timestamptz + $1::int / 2 * interval '1 s')",
            number,
        )
    [one] = (await learned(dsn18, None, slices=10, length=100)).categories
    assert dict(one.events_per_append) == {1: 1.0}


async def test_births_and_kinds_of_small_stores(store18: EventStore, dsn18: str) -> None:
    assert await store18.traffic() is None
    await store18.append("a-1", [NewEvent("Made")])
    profile = await learned(dsn18, None, slices=10, length=100)
    [one] = profile.categories
    assert (one.name, one.share, one.births, one.streams) == ("a", 1.0, 1.0, 1)
    for number in range(300):
        for name in (f"{number}-1", str(uuid4()), f"odd{number}-1", f"odd{number}"):
            await store18.append(name, [NewEvent("X" * 2000)])
    profile = await learned(dsn18, None, slices=10, length=100)
    assert [each.name for each in profile.categories] == [UNNAMED, OTHERS]


async def test_times_that_do_not_rise_are_said(dsn18: str, store18: EventStore, sql18: asyncpg.Connection) -> None:
    await sql18.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data, created_at) "
        "SELECT 'a-' || n % 7, n / 7, 'T', '{}', now() - (n % 2000) * interval '1 min' FROM generate_series(0, 9999) n"
    )
    profile = await learned(dsn18, None, slices=40, length=100)
    assert "does not rise" in profile.inferred["appends"]
    assert len(profile.arrivals.appends) == 1


async def test_hostile_histories(dsn18: str, store18: EventStore, sql18: asyncpg.Connection, tmp_path: Path) -> None:
    await sql18.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data, created_at) VALUES "
        "('--', 0, E'a\\x1b[2J\\\"\\n]]', '{}', 'infinity'), (E'\"\"\"\\n[x]-1', 5, 'T', '1', '-infinity'), "
        "('x-1', 0, repeat('y', 5000), 'null', '0044-03-15 BC'), ('x-2', 0, 'z', '[]', '2026-08-07'), "
        "('x-3', 0, 'z', '[]', '20000-01-01')"
    )
    await sql18.execute("SELECT setval('events_global_seq_seq', 9e15::bigint)")
    await sql18.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data, created_at) "
        "VALUES ('x-2', 1, 'z', '[]', '2026-08-08')"
    )
    profile = await learned(dsn18, None, slices=40, length=100)
    assert "jump far" in profile.inferred["appends"]
    path = tmp_path / "hostile.toml"
    text = profile_text(profile)
    assert "\x1b" not in text
    path.write_text(text)
    assert read_profile(path).categories


@pytest.mark.parametrize("kind", ["messagedb", "rails_event_store", "marten"])
async def test_stores_of_other_tools_are_learned_too(empty_dsn18: str, kind: str) -> None:
    await load_into(empty_dsn18, kind)
    profile = await learned(empty_dsn18, None, slices=10, length=50)
    assert profile.events > 0
    assert sum(each.share for each in profile.categories) == pytest.approx(1.0)
    if kind == "messagedb":
        assert {"cart", "account", "payment"} <= {each.name for each in profile.categories}
    if kind == "marten":
        assert [each.name for each in profile.categories] == [UNNAMED]


async def test_stores_without_an_order_or_without_times_are_refused(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as sql:
        await sql.execute(
            "CREATE TABLE events (global_seq bigint PRIMARY KEY, stream_id text, stream_seq bigint, event_type text, "
            "data jsonb, metadata jsonb, created_at text, UNIQUE (stream_id, stream_seq))"
        )
    async with EventStore.connect(empty_dsn18, read_only=True) as store:
        with pytest.raises(InvalidQuery, match="holds no times"):
            await store.traffic()
