"""What a user of the load test does, without Locust: policies after a conflict, bounds, warm-up, open loop, draws."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import asyncpg
import pytest

from esx.load.model import LoadOptions
from esx.load.verdict import conclude, examine
from esx.loadtest.draws import Heat, Payloads, Schedule, source
from esx.loadtest.outcomes import CONFLICT, ERROR, RESPONSE, SUCCESS, TIME_TO_SUCCESS, UNKNOWN
from tests.support.writers import workshop, write

_HOT = LoadOptions(users=6, streams=1, max_appends=60, max_tries=10_000)


@pytest.mark.parametrize(
    "options",
    [
        _HOT,
        replace(_HOT, on_conflict="retry"),
        replace(_HOT, on_conflict="backoff"),
        replace(_HOT, on_conflict="queue", events_per_append=3),
        replace(_HOT, on_conflict="single-writer"),
        replace(_HOT, strategy="row-lock"),
        replace(_HOT, expected="any"),
        replace(_HOT, expected="any", strategy="row-lock"),
        replace(_HOT, expected="none", streams=200),
    ],
    ids=lambda options: f"{options.expected}-{options.strategy}-{options.on_conflict}",
)
async def test_every_policy_stores_what_it_is_allowed_and_no_more(dsn18: str, options: LoadOptions) -> None:
    async with workshop(dsn18, options) as shop:
        times = await write(shop)
        assert len(times[SUCCESS]) == 60, "the bound is exact, and reached"
        assert times[ERROR] == times[UNKNOWN] == []
        verdict = conclude(await examine(shop.store, shop.run, shop.close()))
        assert verdict.passed, verdict.evidence
        assert verdict.stored == 60 * options.events_per_append
        if options.strategy == "row-lock" or options.expected == "any":
            assert times[CONFLICT] == []
        elif options.streams == 1:
            assert times[CONFLICT], "six writers on one stream must meet"
        assert len(times[TIME_TO_SUCCESS]) == 60
        if options.on_conflict == "give-up":
            assert len(times[RESPONSE]) == 60 + len(times[CONFLICT]), "each conflict ended a command"
        else:
            assert len(times[RESPONSE]) == 60, "no command was given up"


async def test_single_writers_meet_once_and_then_take_turns(dsn18: str) -> None:
    async with workshop(dsn18, replace(_HOT, on_conflict="single-writer")) as shop:
        times = await write(shop)
        assert 1 <= len(times[CONFLICT]) <= 2 * _HOT.users, "only those that began before there was a line"
        assert not shop.lines, "nobody is left in line"


async def test_single_writers_of_two_processes_still_meet(dsn18: str) -> None:
    options = replace(_HOT, on_conflict="single-writer")
    async with workshop(dsn18, options) as one, workshop(dsn18, options) as other:
        both = await asyncio.gather(write(one), write(other))
        assert sum(len(times[SUCCESS]) for times in both) == 120
        assert sum(len(times[CONFLICT]) for times in both) > 5
        ledger = one.close()
        ledger.add(other.close())
        verdict = conclude(await examine(one.store, one.run, ledger))
        assert verdict.passed, verdict.evidence


async def test_tries_are_bounded(dsn18: str) -> None:
    options = replace(_HOT, users=8, on_conflict="retry", max_tries=2)
    async with workshop(dsn18, options) as shop:
        times = await write(shop)
        given_up = len(times[RESPONSE]) - len(times[SUCCESS])
        assert given_up > 0
        assert len(times[CONFLICT]) >= 2 * given_up


async def test_what_begins_in_the_warm_up_is_stored_but_not_counted(dsn18: str) -> None:
    async with workshop(dsn18, replace(_HOT, streams=20, warm_up=3600, max_appends=10**6)) as shop:

        def ends() -> bool:
            if shop.outcomes.warm_up[0] > 5:
                shop.counted_from = 0  # the warm-up is over
            return any(record.successes > 5 for record in shop.ledger.streams.values())

        times = await write(shop, ends)
        early, conflicts, *_ = shop.outcomes.warm_up
        assert early > 5
        assert len(times[SUCCESS]) > 5
        ledger = shop.close()
        verdict = conclude(await examine(shop.store, shop.run, ledger))
        assert verdict.passed, verdict.evidence
        assert verdict.stored == early + len(times[SUCCESS])
        assert sum(record.successes for record in ledger.streams.values()) == len(times[SUCCESS])
        assert sum(record.conflicts for record in ledger.streams.values()) == len(times[CONFLICT])
        assert conflicts >= 0


async def test_conflicts_are_those_that_the_database_saw(dsn18: str) -> None:
    """A trigger per statement fires for lost races too, and a sequence is not rolled back: it counts every attempt."""
    async with workshop(dsn18, replace(_HOT, streams=3, on_conflict="retry", events_per_append=2)) as shop:
        connection = await asyncpg.connect(dsn18)
        await connection.execute(
            """
            CREATE SEQUENCE attempts;
            CREATE FUNCTION count_attempt() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM nextval('attempts'); RETURN NULL; END $$;
            CREATE TRIGGER attempt BEFORE INSERT ON events EXECUTE FUNCTION count_attempt();
            """
        )
        times = await write(shop)
        attempts = await connection.fetchval("SELECT last_value FROM attempts")
        stored = await connection.fetchval("SELECT count(*) FROM events")
        await connection.close()
        assert len(times[CONFLICT]) > 0
        assert len(times[CONFLICT]) == attempts - stored // 2
        assert len(times[SUCCESS]) == stored // 2


@pytest.mark.slow
async def test_open_loop_counts_from_when_a_command_was_due(dsn18: str) -> None:
    """While the table is locked the two users wait in two appends, but every command due meanwhile is late."""
    options = LoadOptions(users=2, rate=200, streams=50, seed=1, max_appends=160)
    async with workshop(dsn18, options) as shop:
        connection = await asyncpg.connect(dsn18)

        async def block() -> None:
            async with connection.transaction():
                await connection.execute("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE")
                while shop.in_flight < 2:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.5)

        times, _ = await asyncio.gather(write(shop), block())
        await connection.close()
        # What was due in the first half of that time waited for the second.
        service = [took for took in times[SUCCESS] if took > 250_000_000]
        response = [took for took in times[RESPONSE] if took > 250_000_000]
        assert len(service) >= 1
        assert len(response) >= 40
        assert len(response) > 4 * len(service), "a closed loop would have seen only those"


async def test_a_seed_makes_two_runs_draw_the_same(dsn18: str) -> None:
    options = LoadOptions(users=1, streams=30, zipf=1.0, payload_bytes=300, seed=4, max_appends=40)
    drawn = []
    for run, seed in (("a", 4), ("b", 4), ("c", 5)):
        async with workshop(dsn18, replace(options, seed=seed), run) as shop:
            await write(shop)
            events = [event async for event in shop.store.read_all() if event.stream_id.startswith(f"load-{run}-")]
            drawn.append([(event.stream_id.rpartition("-")[2], event.data) for event in events])
            assert {json.loads(event.metadata_json or "")["run_id"] for event in events} == {run}
            assert all(len(json.dumps(event.data, separators=(",", ":"))) == 300 for event in events)
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_heat() -> None:
    def picked(options: LoadOptions) -> Counter[int]:
        pick = Heat(options).picker(random.Random(3).random)
        return Counter(pick() for _ in range(20_000))

    even = picked(LoadOptions(streams=10))
    assert set(even) == set(range(10))
    assert max(even.values()) < 1.2 * min(even.values())
    hot = picked(LoadOptions(streams=10, hot_streams=2, hot_share=0.8))
    assert (hot[0] + hot[1]) / 20_000 == pytest.approx(0.8, abs=0.02)
    assert set(hot) == set(range(10))
    assert set(picked(LoadOptions(streams=2, hot_streams=2, hot_share=0.5))) == {0, 1}
    falling = picked(LoadOptions(streams=1000, zipf=1.0))
    assert falling[0] / falling[9] == pytest.approx(10, rel=0.3)
    assert max(falling) < 1000


def test_payloads_have_their_size_and_do_not_repeat() -> None:
    payloads = Payloads(5000, source(1, "p"))
    made = [payloads.next(number) for number in range(9, 12)]
    assert [len(each) for each in made] == [5000] * 3
    assert len({json.loads(each)["pad"] for each in made}) == 3
    assert Payloads(0, source(1)).next(7) == '{"n":7}'
    assert json.loads(Payloads(5, source(1)).next(7))["n"] == 7, "as small as it can be"


def test_a_schedule_keeps_its_rate_however_late_its_user_is() -> None:
    schedule = Schedule(100, 0, source(1, "t"))
    due = [schedule.next() for _ in range(2000)]
    assert due == sorted(due)
    assert due[-1] / 1e9 == pytest.approx(20, rel=0.1)
    gaps = [after - before for before, after in pairwise(due)]
    assert sum(gap < 5_000_000 for gap in gaps) / len(gaps) == pytest.approx(0.39, abs=0.05), "a Poisson process"
