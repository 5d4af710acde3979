"""Load tests of other stores' appends: what the verdict says of them, also of appenders with a fault."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from esx import EsxError, EventStore, JsonText, NewEvent, Strategy
from esx.errors import OutcomeUnknown
from esx.expected import ANY, NO_STREAM
from esx.load.appending import open_appender
from esx.load.model import LoadOptions
from esx.load.options import validate
from esx.load.report.describe import workload
from esx.load.verdict import conclude, examine
from esx.loadtest.outcomes import CONFLICT, ERROR, SUCCESS, UNKNOWN
from esx.store.appenders.protocol import Conflict
from tests.layouts.foreign.fixtures import load_into
from tests.support.appenders import MARTEN, QUICK_APPEND, WRITE_MESSAGE
from tests.support.connections import connected
from tests.support.partitions import COLUMNS
from tests.support.writers import workshop, write

if TYPE_CHECKING:
    from pathlib import Path

    from esx.load.verdict import Verdict

_HOT = LoadOptions(users=6, streams=1, max_appends=30, max_tries=10_000)
_INSERT = """
INSERT INTO events (stream_id, stream_seq, event_type, data, metadata, event_id)
VALUES (:stream, :version + 1, :type, :data, :metadata, :event_id)
"""
_PLAIN = Strategy.CONDITIONAL


async def run(dsn: str, options: LoadOptions) -> tuple[dict[str, list[int]], Verdict]:
    """Let the users of a test work, and return their times by outcome, and the verdict."""
    async with workshop(dsn, validate(options)) as shop:
        times = await write(shop)
        return times, conclude(await examine(shop.store, shop.run, shop.close()))


def saved(tmp_path: Path, text: str) -> str:
    path = tmp_path / "append.sql"
    path.write_text(text, encoding="utf-8")
    return str(path)


_OTHERS = "SELECT md5(string_agg(m::text, '' ORDER BY m)) FROM message_store.messages m WHERE stream_name !~ '^load-'"


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        replace(_HOT, on_conflict="single-writer"),
        replace(_HOT, on_conflict="backoff", events_per_append=3),
        replace(_HOT, expected="any"),
    ],
    ids=lambda options: f"{options.expected}-{options.on_conflict}",
)
async def test_message_db_keeps_what_write_message_acknowledged(empty_dsn18: str, options: LoadOptions) -> None:
    await load_into(empty_dsn18, "messagedb")
    async with connected(empty_dsn18) as connection:
        await connection.execute(WRITE_MESSAGE)
        before = await connection.fetchval(_OTHERS)
        times, verdict = await run(empty_dsn18, replace(options, appender="messagedb"))
        assert await connection.fetchval(_OTHERS) == before is not None, "its own events are as they were"
    assert verdict.passed, verdict.evidence
    assert (len(times[SUCCESS]), verdict.stored) == (30, 30 * options.events_per_append)
    assert times[ERROR] == times[UNKNOWN] == []
    assert bool(times[CONFLICT]) == (options.expected == "exact")


async def test_marten_appends_at_any_version_and_counts_from_one(empty_dsn18: str) -> None:
    # Which arguments it has depends on Marten's version and options.
    more = "headers jsonb[], user_names varchar[], bdatas bytea[], timestamps timestamptz[])"
    async with connected(empty_dsn18) as connection:
        await connection.execute(MARTEN + QUICK_APPEND.replace("headers jsonb[])", more))
    options = replace(_HOT, appender="marten", expected="any", events_per_append=2, on_conflict="retry")
    times, verdict = await run(empty_dsn18, options)
    assert verdict.passed, verdict.evidence
    assert verdict.stored == 60
    assert "contiguous from 1" in verdict.evidence[1]
    assert times[ERROR] == times[UNKNOWN] == []


async def test_in_marten_the_unique_index_refuses_the_second_of_two_at_one_version(empty_dsn18: str) -> None:
    first = (
        "SELECT mt_quick_append_events('s', 'S', '*DEFAULT*', ARRAY[gen_random_uuid()], ARRAY['T'], ARRAY['T'], "
        "ARRAY['{}'::jsonb], NULL)"
    )
    async with connected(empty_dsn18) as other:
        await other.execute(MARTEN + QUICK_APPEND)
        async with EventStore.connect(empty_dsn18) as store:
            appender = await open_appender(store, LoadOptions(appender="marten", expected="any"))
            transaction = other.transaction()
            await transaction.start()
            assert await other.fetchval(first) == [1, 1]
            second = asyncio.create_task(appender.append("s", [NewEvent("T")], expected=ANY, strategy=_PLAIN))
            async with asyncio.timeout(120):
                while not await other.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
                    await asyncio.sleep(0.01)
            await transaction.commit()
            with pytest.raises(Conflict, match="duplicate key"):
                await second
            assert await appender.version("s") == 1


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
async def test_a_statement_appends_and_a_conflict_is_what_its_file_says(dsn18: str, tmp_path: Path, batch: int) -> None:
    for sign, end in (("sqlstate 23505", ""), ("no row", "ON CONFLICT (stream_id, stream_seq) DO NOTHING RETURNING 1")):
        file = saved(tmp_path, f"-- conflict: {sign}\n{_INSERT} {end}")
        async with workshop(dsn18, replace(_HOT, append_sql=file, events_per_append=batch), sign[:2]) as shop:
            times = await write(shop)
            verdict = conclude(await examine(shop.store, shop.run, shop.close()))
        assert verdict.passed, verdict.evidence
        assert verdict.stored == 30 * batch
        assert times[CONFLICT], "six writers on one stream must meet"
        assert times[ERROR] == []


async def test_a_conflict_reported_as_stored_is_found_as_lost_events(dsn18: str, tmp_path: Path) -> None:
    file = saved(tmp_path, f"-- conflict: none\n{_INSERT} ON CONFLICT DO NOTHING")
    times, verdict = await run(dsn18, replace(_HOT, append_sql=file))
    assert not verdict.passed
    assert len(times[SUCCESS]) == 30, "it said so"
    assert verdict.stored < 30, "six writers on one stream must meet"
    assert f"30 events acknowledged, {verdict.stored} stored: {30 - verdict.stored} lost: load-w-0" in verdict.evidence


@pytest.mark.slow
@pytest.mark.parametrize("checked", ["in the statement", "before it"])
async def test_a_version_checked_without_a_unique_index_is_found_as_stored_twice(
    empty_dsn18: str, tmp_path: Path, checked: str
) -> None:
    async with connected(empty_dsn18) as connection:
        await connection.execute(f"CREATE TABLE events ({COLUMNS}, PRIMARY KEY (global_seq))")
    text = f"-- conflict: none\n{_INSERT}"
    if checked == "in the statement":
        # The pause is between the check, of what was stored when the statement began, and the insert.
        found = "SELECT coalesce(max(stream_seq), -1) FROM events WHERE stream_id = :stream"
        select = _INSERT.replace("VALUES (", "SELECT ").rstrip().removesuffix(")")
        text = f"-- conflict: no row\n{select} FROM pg_sleep(0.005) WHERE :version = ({found}) RETURNING 1 AS one"
    times, verdict = await run(empty_dsn18, replace(_HOT, append_sql=saved(tmp_path, text)))
    assert not verdict.passed
    assert len(times[SUCCESS]) == verdict.stored == 30, "each writer was told the truth about its own event"
    assert "a version is stored twice in 1 stream: load-w-0" in verdict.evidence


async def test_a_store_without_event_ids_is_judged_by_a_view_that_has_them(empty_dsn18: str, tmp_path: Path) -> None:
    async with connected(empty_dsn18) as connection:
        await connection.execute(
            """
            CREATE TABLE history (id bigserial PRIMARY KEY, name text, data jsonb, stream text, version int,
                created timestamptz DEFAULT now(), meta jsonb, UNIQUE (stream, version));
            CREATE VIEW shown AS
            SELECT id AS global_seq, stream AS stream_id, version AS stream_seq, name AS event_type, data,
                meta AS metadata, created AS created_at, (meta ->> 'event_id')::uuid AS event_id FROM history
            """
        )
    file = saved(
        tmp_path,
        "-- conflict: sqlstate 23505\nINSERT INTO history (stream, version, name, data, meta) "
        "VALUES (:stream, :version + 1, :type, :data, :metadata || jsonb_build_object('event_id', :event_id))",
    )
    _, verdict = await run(empty_dsn18, replace(_HOT, append_sql=file, store="shown"))
    assert verdict.passed, verdict.evidence
    assert verdict.stored == 30


async def test_parameters_are_bound(dsn18: str, tmp_path: Path) -> None:
    hostile = "x'); DROP TABLE events; --"
    options = LoadOptions(append_sql=saved(tmp_path, f"-- conflict: none\n{_INSERT}"))
    async with EventStore.connect(dsn18) as store:
        appender = await open_appender(store, options)
        event = NewEvent(hostile, {"q": hostile}, JsonText('{"a": "\':stream"}'), uuid4())
        assert (await appender.append(hostile, [event], expected=NO_STREAM, strategy=_PLAIN)).version == 0
        [stored] = [each async for each in store.read(hostile)]
    assert (stored.event_type, stored.data, stored.metadata) == (hostile, {"q": hostile}, {"a": "':stream"})
    assert stored.event_id == event.event_id


async def test_of_a_batch_that_meets_a_conflict_nothing_is_stored(dsn18: str, tmp_path: Path) -> None:
    options = LoadOptions(append_sql=saved(tmp_path, f"-- conflict: sqlstate 23505\n{_INSERT}"))
    async with EventStore.connect(dsn18) as store:
        await store.append("s", [NewEvent("T") for _ in range(3)])
        appender = await open_appender(store, options)
        with pytest.raises(Conflict):
            await appender.append("s", [NewEvent("T"), NewEvent("T")], expected=1, strategy=_PLAIN)
        assert await store.version("s") == await appender.version("s") == 2
        async with connected(dsn18) as connection:  # and where the second one meets it
            await connection.execute("CREATE UNIQUE INDEX ON events (event_id)")
        again = NewEvent("T")
        await store.append("other", [again])
        with pytest.raises(Conflict):
            await appender.append("s", [NewEvent("T"), again], expected=2, strategy=_PLAIN)
        assert await appender.version("s") == 2


async def test_an_answer_that_is_lost_is_an_unknown_outcome(dsn18: str, tmp_path: Path) -> None:
    slow = _INSERT.replace(":type", "(SELECT :type FROM pg_sleep(600))")
    options = LoadOptions(append_sql=saved(tmp_path, f"-- conflict: none\n{slow}"))
    async with EventStore.connect(dsn18) as store, connected(dsn18) as other:
        appender = await open_appender(store, options)
        append = asyncio.create_task(appender.append("s", [NewEvent("T")], expected=NO_STREAM, strategy=_PLAIN))
        ended = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE wait_event = 'PgSleep' AND datname = current_database()"
        )
        async with asyncio.timeout(120):
            while not await other.fetch(ended):
                await asyncio.sleep(0.01)
        with pytest.raises(OutcomeUnknown):
            await append


async def refusal(dsn: str, options: LoadOptions) -> str:
    """Return the one line with which an appender is refused before anything begins."""
    async with EventStore.connect(dsn, store=options.where) as store:
        with pytest.raises(EsxError) as error:
            await open_appender(store, validate(options))
    assert "\n" not in str(error.value)
    return str(error.value)


async def test_what_cannot_append_or_be_judged_is_refused_before_the_start(dsn18: str, tmp_path: Path) -> None:
    def by(text: str, **how: str) -> LoadOptions:
        return LoadOptions(append_sql=saved(tmp_path, text), **how)  # type: ignore[arg-type]

    wrong = f"-- conflict: none\n{_INSERT}".replace("event_type", "kind")
    assert 'line 3: PostgreSQL does not accept it: column "kind"' in await refusal(dsn18, by(wrong))
    assert "add RETURNING" in await refusal(dsn18, by(f"-- conflict: no row\n{_INSERT}"))
    text = f"-- conflict: none\n{_INSERT} RETURNING stream_id AS version"
    assert "version is of type text: return an integer" in await refusal(dsn18, by(text))
    told = await refusal(dsn18, by(f"-- conflict: none\n{_INSERT}", expected="any"))
    assert "returns no column version" in told
    assert "has no store of Message DB" in await refusal(dsn18, LoadOptions(appender="messagedb"))
    async with connected(dsn18) as connection:
        await connection.execute(
            "CREATE VIEW nameless AS SELECT global_seq, stream_id, stream_seq, event_type, data, metadata, created_at "
            "FROM events"
        )
    told = await refusal(dsn18, by(f"-- conflict: none\n{_INSERT}", store="nameless"))
    assert "have no ids, by which the verdict knows them" in told


async def test_another_tools_store_is_refused_without_its_way_of_appending(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "messagedb")
    said = await refusal(empty_dsn18, LoadOptions())
    assert "belongs to a store of Message DB" in said
    assert "name --appender messagedb or --append-sql FILE" in said
    assert "install it" in await refusal(empty_dsn18, LoadOptions(appender="messagedb")), "without write_message"
    there = replace(LoadOptions(appender="marten", expected="any"), store="messagedb")
    assert "is a store of Message DB: --appender marten appends to its own kind alone" in await refusal(
        empty_dsn18, there
    )


@pytest.mark.slow
async def test_streams_called_by_uuids_and_functions_of_other_arguments_are_refused(empty_dsn18: str) -> None:
    marten = LoadOptions(appender="marten", expected="any")
    async with connected(empty_dsn18) as connection:
        await connection.execute(MARTEN)
        assert "mt_quick_append_events is not beside" in await refusal(empty_dsn18, marten)
        await connection.execute(QUICK_APPEND.replace("headers jsonb[]", "headers jsonb[], odd int[]"))
        assert "has the argument odd, so esx cannot call it" in await refusal(empty_dsn18, marten)
        await connection.execute(QUICK_APPEND)  # of two with this name the newer one counts
        async with EventStore.connect(empty_dsn18) as store:
            appender = await open_appender(store, marten)
            assert (await appender.append("s", [NewEvent("T")], expected=ANY, strategy=_PLAIN)).version == 1
        await connection.execute("DROP TABLE mt_events, mt_streams CASCADE")
    await load_into(empty_dsn18, "marten")
    assert "are named by UUIDs" in await refusal(empty_dsn18, marten)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (LoadOptions(appender="messagedb", append_sql="f.sql"), "exclude each other"),
        (LoadOptions(appender="messagedb", strategy="row-lock"), "--strategy row-lock is for appends by esx"),
        (LoadOptions(append_sql="f.sql", on_conflict="queue"), "use retry or backoff"),
        (LoadOptions(append_sql="f.sql", notification="off"), "--notification off is for appends by esx"),
        (LoadOptions(appender="marten"), "add --expected any"),
        (LoadOptions(appender="kurrent"), "use esx, messagedb or marten"),
    ],
)
def test_options_that_only_esx_has_are_refused_with_others(options: LoadOptions, said: str) -> None:
    with pytest.raises(EsxError) as error:
        validate(options)
    assert said in str(error.value)


async def test_any_version_is_acknowledged_as_the_statement_returns_it(dsn18: str, tmp_path: Path) -> None:
    found = _INSERT.replace("VALUES (", "SELECT ").replace(":version + 1", "1 + coalesce(max(stream_seq), -1)")
    text = f"-- conflict: sqlstate 23505\n{found.rstrip()[:-1]} FROM events WHERE stream_id = :stream"
    options = LoadOptions(append_sql=saved(tmp_path, f"{text} RETURNING stream_seq AS version"), expected="any")
    async with EventStore.connect(dsn18) as store:
        appender = await open_appender(store, options)
        for version in range(2):
            acknowledged = await appender.append("s", [NewEvent("T")], expected=ANY, strategy=_PLAIN)
            assert acknowledged.version == version


def test_a_run_is_described_with_what_appended() -> None:
    assert workload(LoadOptions()).endswith("conditional, notification doorbell")
    assert workload(LoadOptions(appender="messagedb")).endswith("appended by messagedb")
    assert workload(LoadOptions(append_sql="/home/me/append.sql")).endswith("appended by append.sql")
