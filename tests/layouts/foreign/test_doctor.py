"""The doctor on the stores of other tools: each fault that is made in one is found, and healthy ones have none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from esx import EventStore
from esx.doctor import Finding, Thresholds
from esx.doctor.finding import Severity
from esx.doctor.other_stores import faults, read_faults
from esx.layouts.foreign.checkpoints import surroundings
from esx.layouts.foreign.recognition import heads, read_tables, recognise
from tests.layouts.foreign.fixtures import load, load_into
from tests.support.connections import connected
from tests.support.roles import new_role

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.slow
INFO, WARNING, ERROR = Severity.INFO, Severity.WARNING, Severity.ERROR


async def examine(dsn: str, **thresholds: Any) -> dict[str, list[Finding]]:
    """Return the findings by their checks."""
    async with EventStore.connect(dsn, read_only=True) as store:
        findings = await store.doctor(thresholds=Thresholds(**thresholds))
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        # Nothing that belongs to another tool is to be changed.
        assert all(
            step.startswith(("SELECT", "GRANT", "/* UNDOES", "esx ", "ALTER DATABASE", "ALTER SYSTEM"))
            for step in finding.remedy
        )
        found.setdefault(finding.check, []).append(finding)
    return found


async def after(dsn: str, name: str, fault: str, check: str, **thresholds: Any) -> Finding:
    """Return what a check finds in a store before, which is nothing, and after something was done to it."""
    async with connected(dsn) as connection:
        await load(connection, name)
        [before] = (await examine(dsn, **thresholds))[check]
        assert not before.severity.wrong
        await connection.execute(fault)
    [found] = (await examine(dsn, **thresholds))[check]
    return found


@pytest.mark.parametrize(
    ("name", "sequence"),
    [("messagedb", "message_store.messages_global_position_seq"), ("marten", "public.mt_events_sequence")],
)
async def test_a_sequence_that_a_restore_left_behind(name: str, sequence: str, empty_dsn18: str) -> None:
    found = await after(empty_dsn18, name, f"SELECT setval('{sequence}', 100)", "sequence-position")
    assert found.severity is ERROR
    assert f"sequence {sequence} has given numbers up to 100, but there are events up to 4" in found.message
    assert found.remedy == (f"SELECT last_value, is_called FROM {sequence};",)


async def test_a_sequence_that_the_default_of_the_column_draws_from(empty_dsn18: str) -> None:
    found = await after(empty_dsn18, "sqlstreamstore", "SELECT setval('messages_seq', 2)", "sequence-position")
    assert (found.severity, "public.messages_seq has given numbers up to 2" in found.message) == (ERROR, True)


async def test_a_sequence_that_this_user_may_not_read(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "messagedb")
    async with new_role(empty_dsn18) as guest:
        await guest.grant("USAGE ON SCHEMA message_store", "SELECT ON ALL TABLES IN SCHEMA message_store")
        [found] = (await examine(guest.dsn(empty_dsn18)))["sequence-position"]
    assert not found.made
    assert found.remedy[0].startswith("GRANT SELECT ON SEQUENCE message_store.messages_global_position_seq")


async def test_numbers_without_events_are_counted(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "marten")
        [before] = (await examine(empty_dsn18))["gaps"]
        await connection.execute("DELETE FROM mt_events WHERE seq_id BETWEEN 200 AND 209 AND type <> 'tombstone'")
    [found] = (await examine(empty_dsn18))["gaps"]
    assert before.message.startswith("4 of the last 426 numbers have no event")
    assert found.message.startswith("14 of the last 426 numbers have no event")
    assert found.severity is INFO


async def test_the_table_of_events_itself(empty_dsn18: str) -> None:
    found = await after(empty_dsn18, "messagedb", "ALTER TABLE message_store.messages SET UNLOGGED", "unlogged")
    assert (found.severity, found.message) == (ERROR, "table messages is unlogged: a crash empties it")
    async with connected(empty_dsn18) as connection, new_role(empty_dsn18) as guest:
        await connection.execute("ALTER TABLE message_store.messages ENABLE ROW LEVEL SECURITY")
        await guest.grant("USAGE ON SCHEMA message_store", "SELECT ON message_store.messages")
        [found] = (await examine(guest.dsn(empty_dsn18)))["row-security"]
    assert found.severity is WARNING


async def test_indexes_that_esx_would_use_are_a_hint_where_there_are_many_events(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "marten")
    [few] = (await examine(empty_dsn18))["indexes"]
    assert few.severity is Severity.OK
    async with connected(empty_dsn18) as connection:
        [many] = (await examine(empty_dsn18, many_events=100))["indexes"]
        assert (many.severity, many.remedy) == (INFO, ())
        assert many.message.startswith("a hint: no index begins with type")
        # Marten makes it on request.
        await connection.execute("CREATE INDEX ON mt_events (type, seq_id)")
        [served] = (await examine(empty_dsn18, many_events=100))["indexes"]
        assert served.severity is Severity.OK
        await connection.execute("ALTER TABLE mt_events DROP CONSTRAINT pkey_mt_events_seq_id")
    found = (await examine(empty_dsn18, many_events=100))["indexes"]
    assert [each.message.partition(",")[0] for each in found] == ["a hint: no index begins with seq_id"]


async def test_consumers_beyond_the_last_event_and_those_that_failed(empty_dsn18: str) -> None:
    moved = "UPDATE mt_event_progression SET last_seq_id = {} WHERE name = 'OrderView:All'"
    # The sequence has given four numbers more than there are events.
    found = await after(empty_dsn18, "marten", moved.format(430), "consumers")
    assert (found.severity, found.message[:12]) == (Severity.OK, "3 looked at;")
    async with connected(empty_dsn18) as connection:
        await connection.execute(moved.format(431))
    [found] = (await examine(empty_dsn18))["consumers"]
    assert found.severity is WARNING
    assert "consumer OrderView:All is at 431, beyond the last number, 430: the store was restored" in found.message


async def test_the_high_water_mark_of_marten_s_daemon(empty_dsn18: str) -> None:
    moved = "UPDATE mt_event_progression SET last_seq_id = {} WHERE name = 'HighWaterMark'"
    found = await after(empty_dsn18, "marten", moved.format(300), "high-water-mark")
    assert found.severity is WARNING
    assert "high-water mark is 300, the last event 426, and it has not moved for" in found.message
    assert found.message.endswith("no daemon moves it, though the next event is there")
    async with connected(empty_dsn18) as connection:
        await connection.execute("DELETE FROM mt_events WHERE seq_id BETWEEN 301 AND 303")
        [found] = (await examine(empty_dsn18))["high-water-mark"]
        assert "numbers 301 to 303 are missing, and the daemon waits for them" in found.message
        await connection.execute("UPDATE mt_event_progression SET last_updated = now()")
        [found] = (await examine(empty_dsn18))["high-water-mark"]
    assert found.severity is Severity.OK


async def test_the_row_of_commanded_s_all_stream(empty_dsn18: str) -> None:
    behind = "UPDATE streams SET stream_version = 400 WHERE stream_id = 0"
    found = await after(empty_dsn18, "commanded", behind, "all-stream-version")
    assert (found.severity, "at version 400, but has events up to 420" in found.message) == (ERROR, True)
    async with connected(empty_dsn18) as holder, connected(empty_dsn18) as waiter:
        for connection in (holder, waiter):
            await connection.execute("BEGIN")
        await holder.execute("SELECT FROM streams WHERE stream_id = 0 FOR UPDATE")
        [found] = (await examine(empty_dsn18, writer_warning=0))["all-stream-lock"]
        pid = holder.get_server_pid()
        assert (found.severity, f"pid {pid} (" in found.message) == (WARNING, True)
        assert found.message.endswith(
            "has changed or locked the row of $all: each append waits until it ends; waiting now: 0"
        )
        assert found.remedy == (f"/* UNDOES what it has not committed */ SELECT pg_terminate_backend({pid});",)
        [found] = (await examine(empty_dsn18))["all-stream-lock"]
        assert found.severity is Severity.OK, "a lock that is seconds old is no fault"
        await holder.execute("ROLLBACK")
        [found] = (await examine(empty_dsn18, writer_warning=0))["all-stream-lock"]
        assert found.severity is Severity.OK


async def test_categories_of_message_db_that_are_written_to_at_once(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "messagedb")
    async with connected(empty_dsn18) as one, connected(empty_dsn18) as other:
        for category, writer in enumerate((one, other)):
            [found] = (await examine(empty_dsn18))["category-order"]
            assert (found.severity, found.message[:32]) == (Severity.OK, "only within a category is the or")
            await writer.execute(f"""
                BEGIN; SELECT pg_advisory_xact_lock({2**40 + category});
                INSERT INTO message_store.messages (stream_name, position, type) VALUES ('c{category}-1', 0, 'T')
            """)
        [found] = (await examine(empty_dsn18))["category-order"]
        assert (found.severity, found.message[:30]) == (INFO, "2 categories are written to no")


async def told(connection: asyncpg.Connection, old: float = 10.0) -> dict[str, list[Finding]]:
    """Return what the checks of a kind find, whether esx can read it or not."""
    store = heads(recognise(await read_tables(connection)))[0]
    tables = await surroundings(connection, store.kind, store.table.oid)
    assert tables is not None
    assert store.kind.checks
    return {
        check.name: [*faults(check, await read_faults(connection, check, tables, old))] for check in store.kind.checks
    }


def wrong(findings: dict[str, list[Finding]], check: str) -> Finding:
    [finding] = findings[check]
    assert finding.severity is not Severity.OK, finding.message
    return finding


def sound(findings: Iterable[list[Finding]]) -> bool:
    return all(finding.severity is Severity.OK for each in findings for finding in each)


async def test_an_old_transaction_of_another_database_holds_emmett_s_readers(empty_dsn18: str, dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, connected(dsn18) as other:
        await load(connection, "emmett")
        await other.execute("BEGIN; SELECT pg_current_xact_id()")
        found = wrong(await told(connection, old=0), "held-readers")
        assert (found.severity, f"pid {other.get_server_pid()} (" in found.message) == (WARNING, True)
        assert sound([(await told(connection))["held-readers"]]), "what is seconds old is no fault"


async def test_emmett_s_events_from_another_server(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "emmett")
        await connection.execute("UPDATE emt_processors SET last_processed_transaction_id = '3'")
        await connection.execute("UPDATE emt_messages SET transaction_id = '3'; ANALYZE emt_messages, emt_processors")
        assert sound([(await told(connection))["transaction-ids"]])
        # The newest are found by the statistics alone.
        await connection.execute("""
            INSERT INTO emt_messages SELECT (jsonb_populate_record(m, jsonb_build_object(
                'stream_id', 's' || n, 'message_id', n::text, 'transaction_id', '900000000' || (n % 10)))).*
            FROM (SELECT m FROM emt_messages m LIMIT 1) one, generate_series(1, 1200) n; ANALYZE emt_messages
        """)
        found = wrong(await told(connection), "transaction-ids")
        assert (found.severity, "transaction ids up to 900000000" in found.message) == (ERROR, True)


async def test_writes_of_rails_event_store_that_are_not_linearized(empty_dsn18: str) -> None:
    insert = (
        "INSERT INTO event_store_events (event_id, event_type, data, created_at) "
        "VALUES (gen_random_uuid(), 'T', '{}', now())"
    )
    async with connected(empty_dsn18) as connection, connected(empty_dsn18) as writer:
        await load(connection, "rails_event_store")
        await writer.execute(f"BEGIN; SELECT pg_advisory_xact_lock(1845240511599988039); {insert}")
        assert sound((await told(connection)).values())
        await writer.execute(f"ROLLBACK; BEGIN; {insert}")
        found = wrong(await told(connection), "linearized-writes")
        assert (found.severity, found.remedy) == (INFO, ())
        assert f"pid {writer.get_server_pid()} (" in found.message


@pytest.mark.parametrize("form", ["json", "xml"])
async def test_tokens_of_axon_with_many_gaps(form: str, empty_dsn18: str) -> None:
    gaps = range(100, 400)
    token = f'{{"index":400,"gaps":[{",".join(map(str, gaps))}]}}'
    if form == "xml":
        token = f"<token><index>400</index><gaps>{''.join(f'<long>{gap}</long>' for gap in gaps)}</gaps></token>"
    async with connected(empty_dsn18) as connection:
        await load(connection, "axon_jdbc")
        assert sound((await told(connection)).values())
        await connection.execute("UPDATE tokenentry SET token = $1", token.encode())
        found = wrong(await told(connection), "token-gaps")
    assert found.message.startswith("the token of com.example.shop.query remembers 300 gaps")


async def test_rights_are_those_that_reading_takes(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "marten")
    [finding] = (await examine(empty_dsn18))["rights"]
    assert finding.message.endswith("may read it; esx appends nothing to this store")
    async with new_role(empty_dsn18) as guest:
        await guest.grant("SELECT ON mt_events, mt_streams, mt_event_progression")
        [finding] = (await examine(guest.dsn(empty_dsn18)))["rights"]
        assert (finding.severity, finding.remedy) == (Severity.OK, ())
        assert finding.message.startswith("user ")


async def test_of_few_events_the_doctor_says_that_it_looked_for_no_index(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "emmett")
    [few] = (await examine(empty_dsn18))["indexes"]
    assert few.message == "not looked for below 100,000 events: `esx stores check` says what no index serves"
