"""The store of another tool: its table, its numbers, its consumers, and what is known to go wrong in its kind.

Nothing here tells to change what belongs to the other tool: a remedy reads, or ends a session.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import asyncpg

from esx.doctor.activity import OpenTransaction
from esx.doctor.finding import About, Finding, quoted, shown
from esx.doctor.target import Examined
from esx.doctor.topic import Topic
from esx.layouts.foreign.checkpoints import surroundings
from esx.layouts.foreign.kind import Foreign, StoreCheck
from esx.layouts.foreign.tables import StoreTables
from esx.layouts.layout import Layout
from esx.layouts.sizes import one_each, sized
from esx.layouts.table_tree import below
from esx.postgres.driver_errors import first_line
from esx.postgres.literals import identifier
from esx.postgres.session import Session
from esx.store.consume.others import ConsumerStatus, OtherConsumers, distrusted, read_others
from esx.text import size_of

_LOOKED_AT = 10_000
_NAMED = 5
_FAILED = ("error", "failed", "dead", "blocked")
_FACTS = """
    WITH RECURSIVE {below}
    SELECT current_user::text AS user,
           coalesce(sum(pg_table_size(c.oid)), 0)::bigint AS table_bytes,
           coalesce(sum(pg_indexes_size(c.oid)), 0)::bigint AS index_bytes,
           coalesce(array_agg(c.relname::text) FILTER (WHERE c.relpersistence = 'u'), '{{}}') AS unlogged,
           coalesce(bool_or(row_security_active(c.oid)), false) AS hidden
    FROM below JOIN pg_class c ON c.oid = below.oid
"""
_ROWS = """
    WITH RECURSIVE {below}
    SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint
    FROM below JOIN pg_class c ON c.oid = below.oid WHERE c.relkind = 'r'
"""
_KEYS = """
    WITH RECURSIVE {below}
    SELECT ARRAY(
        SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, n)
        LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum ORDER BY k.n)
    FROM below JOIN pg_index i ON i.indrelid = below.oid WHERE i.indisvalid AND i.indpred IS NULL
"""
# The sequence that is known to belong to the column, or else the one that its default draws from.
_SEQUENCE = """
    SELECT quote_ident(n.nspname) || '.' || quote_ident(q.relname), s.seqincrement,
           has_sequence_privilege(q.oid, 'SELECT')
    FROM pg_class q JOIN pg_namespace n ON n.oid = q.relnamespace JOIN pg_sequence s ON s.seqrelid = q.oid
    WHERE q.oid = $1::oid
       OR q.oid IN (SELECT d.refobjid FROM pg_attrdef f
                    JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum AND a.attname = $3
                    JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
                         AND d.refclassid = 'pg_class'::regclass
                    WHERE f.adrelid = $2)
    LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of the global order. `sequence` is where they come from, None if that is not known.

    `drawn` is the last number that it gave, None if this user may not read it, and `step` what it counts by. `missing`
    of the last `looked_at` numbers have no event.
    """

    head: int
    looked_at: int
    missing: int
    sequence: str | None = None
    drawn: int | None = None
    step: int = 1


@dataclass(frozen=True, slots=True)
class OtherTable:
    """The facts of the table of events. `keys` are the columns of its indexes.

    `numbers` is None without a global order, and where it would take a scan of a large table to tell.
    """

    layout: Layout
    target: Examined
    user: str
    rows: int
    table_bytes: int
    index_bytes: int
    unlogged: Sequence[str]
    hidden: bool
    keys: Sequence[Sequence[str | None]]
    numbers: Numbers | None = None

    @property
    def many(self) -> bool:
        """Whether it has so many events that a missing index is felt."""
        return self.rows >= self.target.thresholds.many_events

    def served(self, column: str) -> bool:
        """Return whether an index gives the events in the order of a column: it is first, or behind fixed ones."""
        fixed = "" if self.layout.foreign is None else self.layout.foreign.reading.where
        return any(
            column in keys and all(f"r.{key} = " in fixed for key in keys[: keys.index(column)]) for keys in self.keys
        )


async def examine(
    connection: Session, layout: Layout, target: Examined, findings: list[Finding], *, trust_owner: bool
) -> None:
    """Add what is found in the store that the layout reads, each topic in a transaction of its own."""
    assert layout.foreign is not None
    checks = (size, durability, row_security, position, gaps, hints)
    facts: OtherTable | None = await _told(
        Topic("size", partial(_read_table, layout, layout.foreign), checks), connection, target, findings
    )
    numbers = None if facts is None else facts.numbers

    if layout.foreign.kind.checkpoints:
        read_consumers = partial(_read_consumers, layout, trust_owner)
        await _told(Topic("consumers", read_consumers, (partial(consumers, numbers),)), connection, target, findings)
    for check in layout.foreign.kind.checks:
        read = partial(_read_faults, layout, check, trust_owner)
        await _told(Topic(check.name, read, (partial(faults, check),)), connection, target, findings)


async def _told(topic: Topic[Any], connection: Session, target: Examined, findings: list[Finding]) -> Any:
    """Examine a topic. That a version of the tool has made something otherwise does not end the examination."""
    try:
        return await topic.examine(connection, target, findings)
    except asyncpg.PostgresError as error:
        findings.append(About(topic.name).unknown(f"could not be examined: {first_line(error)}"))
    return None


async def _read_table(layout: Layout, foreign: Foreign, connection: Session, target: Examined) -> OtherTable:
    row = await connection.fetchrow(_FACTS.format(below=below(sized(layout))))
    assert row is not None
    rows = await connection.fetchval(_ROWS.format(below=below(one_each(layout))))
    of_rows = foreign.reading.oid or layout.base
    of_keys = layout.tables if layout.parts else f"SELECT {of_rows}::oid"
    keys = [each[0] for each in await connection.fetch(_KEYS.format(below=below(of_keys)))]
    facts = OtherTable(layout, target, keys=keys, rows=rows, **dict(row))
    column = layout.stored("global_seq")
    if not layout.numbered or not column or (facts.many and not facts.served(column)):
        return facts
    counted = await connection.fetchrow(
        f"SELECT {layout.head()}, count(*), coalesce(max(n) - min(n) + 1 - count(*), 0) FROM (SELECT e.global_seq AS n "
        f"FROM {layout.table} e ORDER BY e.global_seq DESC LIMIT {_LOOKED_AT}) newest"
    )
    assert counted is not None
    head, events, missing = counted
    numbers = Numbers(head, events + missing, missing)
    found = await connection.fetchrow(_SEQUENCE, layout.base_sequence, of_rows, column)
    if found is not None:
        name, step, readable = found
        drawn = None
        if readable:
            drawn = await connection.fetchval(
                f"SELECT CASE WHEN is_called THEN last_value ELSE last_value - {step} END FROM {name}"
            )
        numbers = replace(numbers, sequence=name, drawn=drawn, step=step)
    return replace(facts, numbers=numbers)


def size(facts: OtherTable) -> Iterator[Finding]:
    """Tell how large the store is."""
    have = "its tables have" if facts.layout.beside else "the table has"
    sizes = f"{have} {size_of(facts.table_bytes)}, its indexes {size_of(facts.index_bytes)}"
    yield About("size").ok(sizes)


def durability(facts: OtherTable) -> Iterator[Finding]:
    """Check that the events survive a crash."""
    found = About("unlogged")
    if facts.unlogged:
        yield found.error(f"table {quoted(facts.unlogged[:_NAMED])} is unlogged: a crash empties it")
    else:
        yield found.ok("the events survive a crash")


def row_security(facts: OtherTable) -> Iterator[Finding]:
    """Check that no policy hides events: a feed would take them for gaps."""
    found = About("row-security")
    if facts.hidden:
        yield found.warning("row-level security applies to this user: the events that a policy hides look like gaps")
    else:
        yield found.ok("no policy hides events from this user")


def position(facts: OtherTable) -> Iterator[Finding]:
    """Check that the next number is above all that are stored; after a restore it may not be."""
    numbers = facts.numbers
    if numbers is None or numbers.sequence is None:
        return
    found, name = About("sequence-position"), shown(numbers.sequence)
    if numbers.drawn is None:
        grant = f"GRANT SELECT ON SEQUENCE {numbers.sequence} TO {identifier(facts.user)};"
        yield found.unknown(f"this user may not read sequence {name}", grant)
    # What counts by more than one may give a block of numbers at once.
    elif numbers.drawn + max(numbers.step, 1) - 1 < numbers.head:
        yield found.error(
            f"sequence {name} has given numbers up to {numbers.drawn}, but there are events up to {numbers.head}, as "
            "after a partial restore: appends fail, or fill in behind readers. Its owner sets it above the last event",
            f"SELECT last_value, is_called FROM {numbers.sequence};",
        )
    else:
        yield found.ok(f"sequence {name} is at {numbers.drawn}, the last event at {numbers.head}")


def gaps(facts: OtherTable) -> Iterator[Finding]:
    """Tell how many numbers have no event."""
    if facts.numbers is None:
        return
    looked_at, missing = facts.numbers.looked_at, facts.numbers.missing
    found = About("gaps")
    if missing:
        yield found.info(
            f"{missing:,} of the last {looked_at:,} numbers have no event: appends that failed, or deleted events. "
            "A reader that goes by the numbers alone waits there, or may skip an event that is still to come"
        )
    else:
        yield found.ok(f"each of the last {looked_at:,} numbers has its event")


def hints(facts: OtherTable) -> Iterator[Finding]:
    """Tell of the indexes that queries of esx would use, where there are many events."""
    found = About("indexes")
    wanted = {"global_seq": "each page of all events reads the whole table"}
    if facts.layout.numbered:
        wanted["event_type"] = "events of a rare type are looked for along the whole order"
    columns = {column: why for name, why in wanted.items() if (column := facts.layout.stored(name))}
    lacking = {column: why for column, why in columns.items() if facts.many and not facts.served(column)}
    for column, why in lacking.items():
        yield found.info(f"a hint: no index begins with {column}, so {why}; the tool itself does not need one")
    if not lacking and not facts.many:
        least = facts.target.thresholds.many_events
        yield found.ok(f"not looked for below {least:,} events: `esx stores check` says what no index serves")
    elif not lacking:
        yield found.ok("no index is missing that reading would be much faster with")


def consumers(numbers: Numbers | None, others: OtherConsumers) -> Iterator[Finding]:
    """Check that consumers move, and that none is beyond the last event."""
    found = About("consumers")
    for note in others.notes:
        yield found.unknown(note)
    wrong = [finding for each in others.consumers if (finding := _consumer(found, numbers, each)) is not None]
    yield from wrong[:_NAMED]
    if len(wrong) > _NAMED:
        yield found.warning(f"{len(wrong) - _NAMED} more consumers have failed or are beyond the end", "esx health")
    known = [each for each in others.consumers if each.lag is not None]
    if known and not wrong:
        furthest = max(known, key=lambda each: each.lag or 0)
        looked_at = len(others.consumers)
        yield found.ok(f"{looked_at} looked at; furthest behind is {shown(furthest.name)}: {furthest.progress}")
    elif not wrong:
        yield found.ok(f"{len(others.consumers)} looked at, none with a number of the global order")


def _consumer(found: About, numbers: Numbers | None, status: ConsumerStatus) -> Finding | None:
    name = shown(status.name)
    if status.last_error or status.state in _FAILED:
        state = status.state or "failed"
        return found.warning(f"consumer {name}, {status.progress}, is {shown(state)}: {shown(status.last_error)}")
    last = max(status.head, numbers.drawn or 0) if numbers is not None else status.head
    if status.position is None or status.position <= last:
        return None
    # Without a sequence, the events that it has read may have been deleted.
    make = found.info if numbers is None or numbers.drawn is None else found.warning
    return make(
        f"consumer {name} is at {status.position}, beyond the last number, {last}: the store was restored to an older "
        "state, or events were deleted; it skips what comes up to there unless its own tool resets it",
        "esx health",
    )


async def _read_consumers(layout: Layout, trust_owner: bool, connection: Session, _target: Examined) -> OtherConsumers:
    return await read_others(connection, layout, trust_owner=trust_owner)


async def _read_faults(
    layout: Layout, check: StoreCheck, trust_owner: bool, connection: Session, target: Examined
) -> list[Mapping[str, Any]]:
    assert layout.foreign is not None
    assert layout.base is not None
    tables = await surroundings(connection, layout.foreign.kind, layout.base)
    if tables is None:
        return []
    kept = [
        each
        for each in tables.checkpoints
        if trust_owner or each.oid == layout.base or await distrusted(connection, layout, each) is None
    ]
    return await read_faults(connection, check, tables._replace(checkpoints=kept), target.thresholds.writer_warning)


async def read_faults(
    connection: asyncpg.Connection, check: StoreCheck, tables: StoreTables, old: float
) -> list[Mapping[str, Any]]:
    """Return the rows that a check of a kind finds; what is older than `old` seconds counts as old."""
    query = check.query(tables, old)
    return [] if query is None else [dict(row) for row in await connection.fetch(query)]


def faults(check: StoreCheck, rows: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Tell what a check of a kind has found."""
    found = About(check.name)
    make = {"info": found.info, "warning": found.warning, "error": found.error}[check.severity]
    for row in rows[:_NAMED]:
        values = {name: shown(value) if isinstance(value, str) else value for name, value in row.items()}
        remedy = (check.remedy,) if check.remedy else ()
        if "pid" in row:
            who = OpenTransaction(*(row[name] for name in ("pid", "gid", "age", "state", "application", "role")))
            values["who"] = str(who)
            remedy = (who.end(),) if check.severity != "info" else ()
        yield make(check.message.format(**values), *remedy)
    if not rows:
        yield found.ok(check.fine)
