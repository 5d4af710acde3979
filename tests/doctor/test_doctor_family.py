"""The doctor on partitions, children, and whoever else draws from the sequence: what is found, and that remedies cure.

A remedy must not cost anything either: the events stay, and appends go on as before.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from esx import EventStore, NewEvent
from esx.doctor.finding import Severity
from tests.doctor.test_doctor import examine, found, one, run, sound, wrong
from tests.support.partitions import COLUMNS, HASH, KINDS, LISTED, RANGED, make

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OK, INFO, WARNING, ERROR = Severity.OK, Severity.INFO, Severity.WARNING, Severity.ERROR
_DEADLINE = 120.0
_PLAIN = "SELECT 1"
_STREAMS = [f"order-{n}" for n in range(6)] + ["cart-1"]
_SEQUENCE = "events_global_seq_seq"
_LATE = "CREATE TABLE events_late (LIKE events INCLUDING ALL)"
_ATTACH = "ALTER TABLE events ATTACH PARTITION events_late FOR VALUES IN ('late')"
_OWN = "CREATE SEQUENCE own; ALTER TABLE {} ALTER COLUMN global_seq SET DEFAULT nextval('own')"
_CHILD = "CREATE TABLE old (UNIQUE (stream_id, stream_seq)) INHERITS (events)"
_PARENT = (
    f"CREATE TABLE everything ({COLUMNS});"
    "CREATE TABLE events (UNIQUE (stream_id, stream_seq), PRIMARY KEY (global_seq)) INHERITS (everything)"
)
_DRAWING = "CREATE FUNCTION draw() RETURNS {} LANGUAGE plpgsql AS $$ BEGIN {} END $$"
_BEFORE = "CREATE TRIGGER numbers BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION draw()"
_DROP_IT = "ALTER TABLE ONLY {} ALTER COLUMN global_seq DROP DEFAULT;"


@pytest_asyncio.fixture
async def admin(empty_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(empty_dsn)
    yield connection
    await connection.close()


async def fill(dsn: str) -> None:
    async with EventStore.connect(dsn) as store:
        for stream in _STREAMS:
            await store.append(stream, [NewEvent("T"), NewEvent("T")])


async def stored(connection: asyncpg.Connection) -> list[tuple[object, ...]]:
    rows = await connection.fetch("SELECT global_seq, stream_id, stream_seq, event_id FROM events ORDER BY 1")
    return [tuple(row) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_a_partitioned_store_is_as_healthy_as_its_constraints(kind: str, empty_dsn: str) -> None:
    await make(empty_dsn, KINDS[kind])
    await fill(empty_dsn)
    findings = await examine(empty_dsn, full=True)
    # No constraint spans partitions by number.
    assert set(wrong(findings)) == ({"unique-stream-seq"} if kind == "range" else set())
    about = {finding.check: finding for finding in findings}
    assert about["partition-default"].severity is about["sequence-shared"].severity is OK
    assert about["sequence-trigger"].severity is about["sequence-functions"].severity is OK
    whole = about["partitions"]
    if kind in ("hash", "list"):
        parts = "3 partitions, by HASH (stream_id)" if kind == "hash" else "2 partitions, by LIST (split_part("
        assert (whole.severity, whole.message.startswith(parts)) == (OK, True)
    else:
        assert (whole.severity, "without a default partition" in whole.message) == (INFO, True)
    assert "children" not in about


async def test_a_table_without_partitions_says_nothing_of_them(dsn: str) -> None:
    checks = {finding.check: finding.severity for finding in await examine(dsn)}
    assert not checks.keys() & {"partitions", "partition-default", "children"}
    assert checks["sequence-shared"] is checks["sequence-functions"] is OK


@pytest.mark.slow
async def test_a_table_that_has_no_partition_yet_takes_no_appends(empty_dsn: str, admin: asyncpg.Connection) -> None:
    await make(
        empty_dsn, f"CREATE TABLE events ({COLUMNS}, UNIQUE (stream_id, stream_seq)) PARTITION BY HASH (stream_id)"
    )
    finding = await one(empty_dsn, "partitions")
    # Which partitions there should be, nobody but the owner knows.
    assert (finding.severity, finding.remedy) == (ERROR, ())
    assert "has no partition: appends fail" in finding.message
    async with EventStore.connect(empty_dsn) as store:
        with pytest.raises(Exception, match="no partition of relation"):
            await store.append("s", [NewEvent("T")])
    await admin.execute("CREATE TABLE one PARTITION OF events FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
    assert (await one(empty_dsn, "partitions")).severity is OK


@pytest.mark.slow
async def test_a_default_partition_is_what_the_finding_asks_for(empty_dsn: str, admin: asyncpg.Connection) -> None:
    await make(empty_dsn, LISTED)
    await admin.execute("DROP TABLE events_rest")
    assert (await one(empty_dsn, "partitions")).severity is INFO
    await admin.execute("CREATE TABLE events_else PARTITION OF events DEFAULT")
    assert (await one(empty_dsn, "partitions")).severity is OK


@pytest.mark.slow
async def test_a_partition_that_is_half_detached(empty_dsn: str, admin: asyncpg.Connection) -> None:
    await make(empty_dsn, HASH)
    await fill(empty_dsn)
    kept = await stored(admin)
    reader, detacher = await asyncpg.connect(empty_dsn), await asyncpg.connect(empty_dsn)
    await reader.execute("BEGIN; SELECT FROM events LIMIT 1")
    detaching = asyncio.create_task(detacher.execute("ALTER TABLE events DETACH PARTITION events_1 CONCURRENTLY"))
    async with asyncio.timeout(_DEADLINE):
        while not await admin.fetchval("SELECT bool_or(inhdetachpending) FROM pg_inherits"):
            await asyncio.sleep(0.01)
        await admin.execute("SELECT pg_cancel_backend($1)", detacher.get_server_pid())
        with pytest.raises(asyncpg.QueryCanceledError):
            await detaching
    await reader.execute("COMMIT")
    for connection in (reader, detacher):
        await connection.close()
    halves = await found(empty_dsn, "partitions")
    [finding] = [each for each in halves if each.severity is WARNING]
    assert "events_1 is half detached" in finding.message
    assert finding.remedy == ("ALTER TABLE events DETACH PARTITION events_1 FINALIZE;",)
    await run(empty_dsn, finding)
    assert (await one(empty_dsn, "partitions")).message.startswith("2 partitions")
    # What it had is there still, for whoever wants to attach it again.
    await admin.execute("ALTER TABLE events ATTACH PARTITION events_1 FOR VALUES WITH (MODULUS 3, REMAINDER 1)")
    assert await stored(admin) == kept


# How the table is made, what breaks it, what the finding names, and the remedy.
NUMBERS = {
    "a partition with a sequence of its own": (
        HASH, _OWN.format("events_1"), "events_1 itself gets its global_seq from nextval('own'::regclass)",
        _DROP_IT.format("events_1"),
    ),
    "a partition of a partition": (
        KINDS["nested"], _OWN.format("events_leaf"), "events_leaf", _DROP_IT.format("events_leaf"),
    ),
    "a partition in the middle, and not the one below": (
        KINDS["nested"], _OWN.format("ONLY events_all"), "events_all", _DROP_IT.format("events_all"),
    ),
    "a partition that makes something of the number": (
        HASH, f"ALTER TABLE events_1 ALTER COLUMN global_seq SET DEFAULT nextval('{_SEQUENCE}') * 2",
        "nextval('events_global_seq_seq'::regclass) * 2", _DROP_IT.format("events_1"),
    ),
    "a partition with a fixed number": (
        HASH, "ALTER TABLE events_1 ALTER COLUMN global_seq SET DEFAULT 1", "events_1", _DROP_IT.format("events_1"),
    ),
    "a child with a sequence of its own": (
        _PLAIN, f"{_CHILD}; {_OWN.format('old')}", "old itself gets its global_seq", _DROP_IT.format("old"),
    ),
    "a child with an identity": (
        _PLAIN,
        "CREATE TABLE old (global_seq BIGINT GENERATED BY DEFAULT AS IDENTITY, UNIQUE (stream_id, stream_seq)) "
        "INHERITS (events)",
        "old itself gets its global_seq from the identity sequence old_global_seq_seq",
        "ALTER TABLE ONLY old ALTER COLUMN global_seq DROP IDENTITY;",
    ),
    "a child's child": (
        _PLAIN, f"{_CHILD}; CREATE TABLE older () INHERITS (old); {_OWN.format('older')}", "older",
        _DROP_IT.format("older"),
    ),
    "a name that has to be quoted": (
        HASH, 'ALTER TABLE events_1 RENAME TO "It; DROP ""x"""; ' + _OWN.format('"It; DROP ""x"""'), "It; DROP",
        _DROP_IT.format('"It; DROP ""x"""'),
    ),
}  # fmt: skip


@pytest.mark.one_older
@pytest.mark.slow
@pytest.mark.parametrize("case", NUMBERS.values(), ids=NUMBERS.keys())
async def test_a_part_that_draws_its_own_numbers(
    case: tuple[str, str, str, str], empty_dsn: str, admin: asyncpg.Connection
) -> None:
    made, breaking, named, remedy = case
    await make(empty_dsn, made)
    await fill(empty_dsn)
    kept = await stored(admin)
    await admin.execute(breaking)
    finding = await one(empty_dsn, "partition-default")
    assert (finding.severity, finding.remedy) == (ERROR, (remedy,))
    assert named in finding.message
    await run(empty_dsn, finding)
    assert (await one(empty_dsn, "partition-default")).severity is OK
    assert await stored(admin) == kept
    async with EventStore.connect(empty_dsn) as store:
        assert (await store.append("order-1", [NewEvent("T")])).version == 2
        assert await store.head() == kept[-1][0] + 1  # type: ignore[operator]


SAME = {
    "attached with the default of the whole": (LISTED, f"{_LATE}; {_ATTACH}"),
    "a child": (_PLAIN, _CHILD),
    "without any default": (HASH, _DROP_IT.format("events_1").replace("ONLY ", "")),
    "an identity of the whole": (
        HASH.replace("BIGSERIAL", "BIGINT GENERATED BY DEFAULT AS IDENTITY"), _PLAIN,
    ),
    "the sequence of an identity of the whole": (
        f"CREATE TABLE events ({COLUMNS.replace('BIGSERIAL', 'BIGINT GENERATED BY DEFAULT AS IDENTITY')}, "
        "UNIQUE (stream_id, stream_seq), PRIMARY KEY (global_seq))",
        f"{_CHILD}; ALTER TABLE old ALTER COLUMN global_seq SET DEFAULT nextval('{_SEQUENCE}')",
    ),
}  # fmt: skip


@pytest.mark.one_older
@pytest.mark.slow
@pytest.mark.parametrize("case", SAME.values(), ids=SAME.keys())
async def test_a_part_that_draws_as_the_whole_does(
    case: tuple[str, str], empty_dsn: str, admin: asyncpg.Connection
) -> None:
    made, then = case
    await make(empty_dsn, made)
    await admin.execute(then)
    assert await sound(empty_dsn, "partition-default", "sequence-shared")


async def test_children_are_told_of(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute(f"{_CHILD}; CREATE TABLE older () INHERITS (old)")
    finding = await one(dsn, "children")
    assert (finding.severity, finding.remedy) == (INFO, ())
    assert finding.message.startswith("old, older inherit from events")


# -- who else draws ---------------------------------------------------------------------------------------------

SHARED = {
    "a copy": ("CREATE TABLE staging (LIKE events INCLUDING DEFAULTS)", "staging", "global_seq"),
    "another column of another table": (
        f"CREATE TABLE orders (id BIGINT DEFAULT nextval('{_SEQUENCE}'), text TEXT)", "orders", "id",
    ),
    "a computed one": (
        f"CREATE TABLE orders (id BIGINT DEFAULT 1 + nextval('{_SEQUENCE}'), text TEXT)", "orders", "id",
    ),
    "another column of the table": (
        f"ALTER TABLE events ADD COLUMN other BIGINT; "
        f"ALTER TABLE events ALTER COLUMN other SET DEFAULT nextval('{_SEQUENCE}')", "events", "other",
    ),
    "in another schema, of odd names": (
        'CREATE SCHEMA "Odd one"; CREATE TABLE "Odd one"."It\'s" ("An; id" BIGINT '
        f"DEFAULT nextval('{_SEQUENCE}'), text TEXT)", '"Odd one"."It\'s"', '"An; id"',
    ),
}  # fmt: skip


@pytest.mark.one_older
@pytest.mark.slow
@pytest.mark.parametrize("case", SHARED.values(), ids=SHARED.keys())
async def test_another_column_draws_from_the_sequence(
    case: tuple[str, str, str], dsn: str, sql: asyncpg.Connection
) -> None:
    sharing, table, column = case
    await fill(dsn)
    kept = await stored(sql)
    await sql.execute(sharing)
    finding = await one(dsn, "sequence-shared")
    assert finding.severity is ERROR
    assert finding.remedy == (f"ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT;",)
    await run(dsn, finding)
    assert await sound(dsn, "sequence-shared", "sequence-default")
    assert await stored(sql) == kept


@pytest.mark.slow
async def test_all_that_share_it_are_mended(dsn: str, sql: asyncpg.Connection) -> None:
    for n in range(5):
        await sql.execute(f"CREATE TABLE t{n} (id BIGINT DEFAULT nextval('{_SEQUENCE}'))")
    finding = await one(dsn, "sequence-shared")
    assert len(finding.remedy) == 5
    await run(dsn, finding)
    assert (await one(dsn, "sequence-shared")).severity is OK


@pytest.mark.slow
async def test_what_the_table_is_a_child_of_is_no_stranger(empty_dsn: str, admin: asyncpg.Connection) -> None:
    """To take the parent its default takes it from the table as well."""
    await make(empty_dsn, _PARENT)
    await fill(empty_dsn)
    assert await sound(empty_dsn, "sequence-shared", "sequence-default")
    await admin.execute("CREATE TABLE sibling () INHERITS (everything)")
    finding = await one(empty_dsn, "sequence-shared")
    assert finding.remedy == ("ALTER TABLE sibling ALTER COLUMN global_seq DROP DEFAULT;",)
    await run(empty_dsn, finding)
    assert (await one(empty_dsn, "sequence-shared")).severity is OK
    async with EventStore.connect(empty_dsn) as store:
        assert (await store.append("order-1", [NewEvent("T")])).version == 2


@pytest.mark.one_older
@pytest.mark.slow
@pytest.mark.parametrize("made", [_PLAIN, HASH], ids=["plain", "hash"])
@pytest.mark.parametrize(
    "body",
    [
        "NEW.global_seq := 7; RETURN NEW;",
        "NEW.global_seq = nextval('events_global_seq_seq'); RETURN NEW;",
        "SELECT nextval('events_global_seq_seq') INTO NEW.global_seq; RETURN NEW;",
        "SELECT 7 INTO STRICT new.global_seq; RETURN NEW;",
    ],
)
async def test_a_trigger_that_sets_the_number(body: str, made: str, empty_dsn: str, admin: asyncpg.Connection) -> None:
    await make(empty_dsn, made)
    table = "events" if made == _PLAIN else "events_1"
    await admin.execute(f"{_DRAWING.format('trigger', body)}; {_BEFORE.format(table)}")
    finding = await one(empty_dsn, "sequence-trigger")
    # What to do in its place, only its author knows.
    assert (finding.severity, finding.remedy) == (WARNING, ())
    assert f"trigger numbers sets global_seq before an INSERT into {table}" in finding.message
    await admin.execute(f"ALTER TABLE {table} DISABLE TRIGGER numbers")
    assert (await one(empty_dsn, "sequence-trigger")).severity is OK


@pytest.mark.parametrize(
    "body",
    [
        "NEW.metadata := NEW.data; RETURN NEW;",
        "-- NEW.global_seq := 7;\n RETURN NEW;",
        "NEW.global_seq2 := 7; RETURN NEW;",
    ],
)
async def test_a_trigger_that_leaves_the_number_alone(body: str, dsn18: str) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute(f"{_DRAWING.format('trigger', body)}; {_BEFORE.format('events')}")
    await connection.close()
    assert (await one(dsn18, "sequence-trigger")).severity is OK


@pytest.mark.one_older
@pytest.mark.slow
@pytest.mark.parametrize(
    "function",
    [
        _DRAWING.format("bigint", f"RETURN nextval('{_SEQUENCE}');"),
        f"CREATE FUNCTION draw() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('{_SEQUENCE}') $$",
        f"CREATE FUNCTION draw() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT nextval('{_SEQUENCE}'); END",
        f"CREATE PROCEDURE draw() LANGUAGE sql BEGIN ATOMIC SELECT nextval('{_SEQUENCE}'); END",
    ],
    ids=["plpgsql", "sql", "sql as such", "procedure"],
)
async def test_a_function_that_draws(function: str, dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute(function)
    finding = await one(dsn, "sequence-functions")
    assert (finding.severity, finding.remedy) == (INFO, ())
    assert "draw() calls nextval on sequence events_global_seq_seq" in finding.message


async def test_a_function_that_draws_elsewhere_is_not_told_of(dsn18: str) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute(
        "CREATE SEQUENCE own; CREATE FUNCTION draw() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('own') $$;"
        f"CREATE FUNCTION look() RETURNS bigint LANGUAGE sql AS $$ SELECT last_value FROM {_SEQUENCE} $$"
    )
    await connection.close()
    assert (await one(dsn18, "sequence-functions")).severity is OK


# -- the sequence of a family -----------------------------------------------------------------------------------


@pytest.mark.one_older
@pytest.mark.slow
@pytest.mark.parametrize("made", [_PLAIN, HASH, RANGED], ids=["plain", "hash", "range"])
async def test_numbers_handed_out_in_advance(made: str, empty_dsn: str, admin: asyncpg.Connection) -> None:
    await make(empty_dsn, made)
    await fill(empty_dsn)
    kept = await stored(admin)
    await admin.execute(f"ALTER SEQUENCE {_SEQUENCE} CACHE 20")
    finding = await one(empty_dsn, "sequence-cache")
    assert (finding.severity, "hands out 20 numbers a session at once" in finding.message) == (ERROR, True)
    await run(empty_dsn, finding)
    assert await sound(empty_dsn, "sequence-cache", "sequence-position")
    assert await stored(admin) == kept


@pytest.mark.one_older
@pytest.mark.slow
@pytest.mark.parametrize(
    "made", [_PLAIN, HASH, RANGED, f"{_PARENT}; {_CHILD}"], ids=["plain", "hash", "range", "child"]
)
async def test_a_sequence_that_was_moved_backwards(made: str, empty_dsn: str, admin: asyncpg.Connection) -> None:
    await make(empty_dsn, made)
    await fill(empty_dsn)
    kept = await stored(admin)
    highest = kept[-1][0]
    sequence = "everything_global_seq_seq" if "everything" in made else _SEQUENCE
    await admin.execute(f"SELECT setval('{sequence}', 3)")
    finding = await one(empty_dsn, "sequence-position")
    assert finding.severity is ERROR
    assert f"hands out 4 next, but events has numbers up to {highest}" in finding.message
    await run(empty_dsn, finding)
    assert (await one(empty_dsn, "sequence-position")).severity is OK
    assert await stored(admin) == kept
    async with EventStore.connect(empty_dsn) as store:
        await store.append("order-1", [NewEvent("T")])
    assert (await stored(admin))[-1][0] == highest + 1  # type: ignore[operator]
