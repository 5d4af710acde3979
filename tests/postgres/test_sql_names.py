"""How the SQL of the store names functions: PostgreSQL's own, and in sessions that are the user's with their schema."""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from esx import ANY, NO_STREAM, EventStore, InvalidEvent, NewEvent, Strategy, WrongVersion
from esx.model import StreamAppend
from esx.postgres.session import Session
from esx.store.bulk.erase import Mark
from tests.support.hostile import called

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from esx import Event

_CALL = re.compile(r"(?<![\w.\"'$])([a-z_][a-z0-9_]*)\(")


async def test_each_function_that_is_called_is_one_of_postgresqls_or_expected(sql18: asyncpg.Connection) -> None:
    """A new one has to be looked at: guarded sessions find it in pg_catalog, those of the user need its schema."""
    names = called()
    known = {row[0] for row in await sql18.fetch("SELECT DISTINCT proname::text FROM pg_proc")}
    assert sorted(names & known) == FUNCTIONS.split()


async def test_in_sessions_of_the_user_functions_have_their_schema(
    dsn18: str, sql18: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: set[str] = set()

    def spy(name: str) -> None:
        method = getattr(Session, name)

        async def spying(self: Session, query: str, *arguments: Any, **how: Any) -> Any:
            if not self.guarded or (self.is_in_transaction() and not self.in_group):
                sent.add(query)
            return await method(self, query, *arguments, **how)

        monkeypatch.setattr(Session, name, spying)

    for name in ("execute", "fetch", "fetchrow", "fetchval", "repeat"):
        spy(name)
    async with EventStore.connect(dsn18) as store:
        await write_in_every_way(store, sql18)
    known = {row[0] for row in await sql18.fetch("SELECT DISTINCT proname::text FROM pg_proc")}
    bare = {(name, query) for query in sent for name in _CALL.findall(query) if name in known}
    for name, query in sorted(bare):
        print(name, "|", " ".join(query.split())[:300])
    assert not bare
    assert any("INSERT INTO public.events" in query for query in sent)
    assert any("DELETE FROM public.events" in query for query in sent)


async def write_in_every_way(store: EventStore, sql: asyncpg.Connection) -> None:
    for strategy in Strategy:
        await store.append("load-r-1", [NewEvent("T", metadata={"run_id": "r"})], strategy=strategy)
        await store.append("s", [NewEvent("T"), NewEvent("U")], strategy=strategy)
        with pytest.raises(WrongVersion):
            await store.append("s", [NewEvent("T")], expected=NO_STREAM, strategy=strategy)
    same = [NewEvent("T")]
    await store.append("again", same, expected=NO_STREAM)
    await store.append("again", same, expected=NO_STREAM)
    with pytest.raises(InvalidEvent):
        await store.append("s", [NewEvent("T", {"n": "\0"})])
    with pytest.raises(InvalidEvent):
        await store.append_to_streams([StreamAppend(secrets.token_hex(20_000), [NewEvent("T")], ANY)])
    await store.append_to_streams([StreamAppend("a", [NewEvent("T")], ANY), StreamAppend("b", [NewEvent("T")], ANY)])
    async with store.lock_stream("s") as stream:
        await stream.append([NewEvent("T")])
    await asyncio.gather(*(store.append("hot", [NewEvent("T")], expected=ANY) for _ in range(20)))
    text = b'{"stream_id": "i", "event_type": "T", "data": {}}\n'
    await store.import_ndjson([text])
    await store.import_ndjson([text])

    async def handler(connection: asyncpg.Connection, events: Sequence[Event]) -> None:
        if events[-1].stream_id == "last":
            raise ValueError("the end")

    await store.append("last", [NewEvent("T")])
    with pytest.raises(Exception, match="the end"):
        await store.project_batches("p", handler)

    async def clear(connection: asyncpg.Connection) -> None:
        pass

    await store.reset_projection("p", clear=clear)
    assert await store.delete_marked("load-r-", Mark("run_id", "r")) == 2


FUNCTIONS = """
    aclexplode age array_agg array_position bit bool_and bool_or cardinality chr clock_timestamp concat concat_ws
    convert_from convert_to count current_database current_schema current_schemas current_setting decode encode
    extract floor format format_type gen_random_uuid generate_series getdatabaseencoding has_column_privilege
    has_database_privilege has_function_privilege has_schema_privilege has_sequence_privilege has_table_privilege
    hashint8 host int8multirange int8range isfinite jsonb_array_elements_text jsonb_build_array jsonb_build_object
    jsonb_object_field_text jsonb_path_query_first jsonb_to_recordset jsonb_typeof lag lead left length lo_get lower
    make_interval max min nextval now octet_length pg_advisory_lock pg_advisory_xact_lock pg_backend_pid
    pg_column_compression pg_column_size pg_control_checkpoint pg_control_recovery pg_control_system
    pg_current_snapshot
    pg_current_wal_insert_lsn pg_current_wal_lsn pg_current_xact_id pg_get_constraintdef pg_get_expr
    pg_get_function_sqlbody pg_get_functiondef pg_get_indexdef pg_get_partkeydef pg_get_serial_sequence
    pg_get_triggerdef pg_get_userbyid pg_has_role pg_indexes_size pg_input_is_valid pg_is_in_recovery
    pg_is_wal_replay_paused pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp
    pg_notification_queue_usage pg_partition_tree pg_postmaster_start_time pg_relation_is_updatable pg_relation_size
    pg_reload_conf pg_sequence_last_value pg_snapshot_xmax pg_snapshot_xmin pg_stat_get_activity pg_table_size
    pg_terminate_backend pg_try_advisory_lock pg_try_advisory_xact_lock pg_typeof pg_wal_lsn_diff pg_walfile_name
    pg_xact_commit_timestamp position quote_ident range_agg regexp_matches regexp_replace repeat replace round
    row_number row_security_active set_config setval split_part starts_with string_agg string_to_array strpos substr
    substring sum to_char to_json to_jsonb to_regclass to_regnamespace to_regprocedure to_regtype to_timestamp
    translate unnest upper
"""
