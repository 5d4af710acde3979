"""The sequence of global_seq, and the lowest and highest number. The order of the feed relies on both."""

from collections.abc import Iterator
from dataclasses import dataclass

from esx.doctor.finding import About, Finding, shown
from esx.doctor.target import Examined
from esx.doctor.topic import Topic
from esx.postgres.literals import identifier, literal
from esx.postgres.session import Session

_BIGINT_MAX = 2**63 - 1
_NEARLY_USED = 0.9


@dataclass(frozen=True, slots=True)
class Sequence:
    """The facts. `name` is quoted as SQL needs it, and None if global_seq has no sequence at all.

    `next` is its next number, `lowest` and `highest` are those in the table; None if not known. `probed` says that the
    table was asked for them, by an index.
    """

    name: str | None
    drawn: bool
    expression: str | None
    cache: int = 1
    cycle: bool = False
    increment: int = 1
    maximum: int = _BIGINT_MAX
    next: int | None = None
    probed: bool = False
    lowest: int | None = None
    highest: int | None = None
    user: str = ""
    table: str = "events"


async def read_sequence(connection: Session, target: Examined) -> Sequence:
    """Read the sequence, and the lowest and highest number of the table if there is an index."""
    row = await connection.fetchrow(
        rf"""
        SELECT current_user::text AS user, used.oid IS NOT NULL AS drawn, col.expression,
               {target.spelled("s.seqrelid")} AS name, s.seqrelid::regclass::text AS quoted,
               s.seqcache AS cache, s.seqcycle AS cycle, s.seqincrement AS increment, s.seqmax AS maximum,
               has_sequence_privilege(s.seqrelid, 'SELECT') AS may_look,
               has_table_privilege(col.attrelid, 'SELECT') AND EXISTS (
                   SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam
                   WHERE i.indrelid = col.attrelid AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] = col.attnum
                     AND am.amname = 'btree') AS may_probe
        FROM (SELECT a.attrelid, a.attnum, a.attidentity, d.oid AS default_oid,
                     pg_get_expr(d.adbin, d.adrelid) AS expression,
                     pg_get_serial_sequence(a.attrelid::regclass::text, 'global_seq')::regclass::oid AS owned
              FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
              WHERE a.attrelid = {target.oid} AND a.attname = 'global_seq') col
        LEFT JOIN LATERAL (
            SELECT col.owned AS oid WHERE col.attidentity <> ''
            UNION ALL
            SELECT dep.refobjid FROM pg_depend dep JOIN pg_sequence q ON q.seqrelid = dep.refobjid
            WHERE dep.classid = 'pg_attrdef'::regclass AND dep.objid = col.default_oid
              AND dep.refclassid = 'pg_class'::regclass AND col.expression ~ '^nextval\(''([^'']|'''')+''::regclass\)$'
            LIMIT 1) used ON true
        LEFT JOIN pg_sequence s ON s.seqrelid = coalesce(used.oid, col.owned)
        """
    )
    assert row is not None
    probed = row["may_probe"]
    lowest = await read_lowest(connection, target) if probed else None
    highest = await connection.fetchval(f"SELECT max(global_seq) FROM {target.quoted}") if probed else None
    upcoming = None
    if row["may_look"]:
        # After the table: numbers drawn meanwhile then only make the distance larger.
        upcoming = await connection.fetchval(
            f"SELECT last_value + CASE WHEN is_called THEN $1::numeric ELSE 0 END FROM {row['quoted']}",
            row["increment"],
        )
    known = {name: row[name] for name in ("cache", "cycle", "increment", "maximum") if row[name] is not None}
    return Sequence(
        name=row["name"],
        drawn=row["drawn"],
        expression=row["expression"] and target.plain(row["expression"]),
        next=None if upcoming is None else int(upcoming),
        probed=probed,
        lowest=lowest,
        highest=highest,
        user=row["user"],
        table=target.table,
        **known,
    )


async def read_lowest(connection: Session, target: Examined) -> int | None:
    """Return the lowest global_seq, None without events; without an index this looks at all events."""
    lowest: int | None = await connection.fetchval(f"SELECT min(global_seq) FROM {target.quoted}")
    return lowest


def default(sequence: Sequence) -> Iterator[Finding]:
    """Check that the INSERT itself draws the number, by the column's default."""
    found = About("sequence-default")
    name = sequence.name
    if sequence.drawn and name is not None:
        yield found.ok(f"global_seq is drawn from {shown(name)}")
        return
    instead = f"its default is {shown(sequence.expression)}" if sequence.expression else "it has no default"
    table = sequence.table
    draw = f"ALTER TABLE {table} ALTER COLUMN global_seq SET DEFAULT nextval({{}});"
    if name is None:
        # In the schema of the table, as SQL writes both.
        name = f"{table.rpartition('.')[0]}{'.' if '.' in table else ''}events_global_seq_seq"
        remedy: tuple[str, ...] = (
            f"CREATE SEQUENCE {name} OWNED BY {table}.global_seq;",
            _set_to_highest(name, table),
            draw.format(literal(name)),
        )
    else:
        remedy = (draw.format(literal(name)),)
    yield found.error(f"global_seq is not drawn from a sequence: {instead}", *remedy)


def cache(sequence: Sequence) -> Iterator[Finding]:
    """Check that numbers are handed out in order, without a cache per session."""
    if sequence.name is None:
        return
    found = About("sequence-cache")
    if sequence.cache > 1:
        yield found.error(
            f"sequence {shown(sequence.name)} hands out {sequence.cache} numbers a session at once: a session can "
            "store one from long ago, which the feed has passed",
            f"ALTER SEQUENCE {sequence.name} CACHE 1;",
        )
    else:
        yield found.ok(f"sequence {shown(sequence.name)} keeps CACHE 1")


def direction(sequence: Sequence) -> Iterator[Finding]:
    """Check that numbers only grow, by one."""
    if sequence.name is None:
        return
    found = About("sequence-order")
    fine = True
    if sequence.cycle:
        fine = False
        yield found.error(
            f"sequence {shown(sequence.name)} starts again at its end: what comes then is before every cursor",
            f"ALTER SEQUENCE {sequence.name} NO CYCLE;",
        )
    if sequence.increment != 1:
        fine = False
        make = found.error if sequence.increment < 1 else found.warning
        effect = "new events come before old ones" if sequence.increment < 1 else "the feed meets a gap at every event"
        yield make(
            f"sequence {shown(sequence.name)} counts by {sequence.increment}: {effect}",
            f"ALTER SEQUENCE {sequence.name} INCREMENT BY 1;",
        )
    if fine:
        yield found.ok(f"sequence {shown(sequence.name)} counts up by one")


def position(sequence: Sequence) -> Iterator[Finding]:
    """Check that the next number is above all that are stored."""
    if sequence.name is None:
        return
    found = About("sequence-position")
    if sequence.next is None:
        yield found.unknown(
            f"this user may not read sequence {shown(sequence.name)}",
            f"GRANT SELECT ON SEQUENCE {sequence.name} TO {identifier(sequence.user)};",
        )
    elif sequence.highest is not None and sequence.next <= sequence.highest:
        yield found.error(
            f"sequence {shown(sequence.name)} hands out {sequence.next} next, but "
            f"{shown(sequence.table)} has numbers up to "
            f"{sequence.highest}: appends fail, or fill in behind the feed",
            _set_to_highest(sequence.name, sequence.table),
        )
    elif sequence.next < 1 and sequence.increment > 0:
        yield found.error(
            f"sequence {shown(sequence.name)} hands out {sequence.next} next: no feed delivers numbers below 1",
            _set_to_highest(sequence.name, sequence.table),
        )
    else:
        yield found.ok(f"sequence {shown(sequence.name)} hands out {sequence.next} next")


def room(sequence: Sequence) -> Iterator[Finding]:
    """Check that the sequence has enough numbers left."""
    if sequence.name is None or sequence.next is None:
        return
    found = About("sequence-room")
    used = sequence.next / sequence.maximum
    if used < _NEARLY_USED:
        yield found.ok(f"sequence {shown(sequence.name)} has used {used:.1%} of its numbers")
        return
    yield found.warning(
        f"sequence {shown(sequence.name)} has used {used:.1%} of its numbers: it ends at {sequence.maximum}",
        f"ALTER SEQUENCE {sequence.name} AS bigint MAXVALUE {_BIGINT_MAX};",
    )


def numbers(sequence: Sequence) -> Iterator[Finding]:
    """Check that no number is below 1, where the feed starts."""
    if not sequence.probed:
        return
    found = About("global-seq")
    if sequence.lowest is None or sequence.lowest > 0:
        yield found.ok("no event has a global_seq below 1")
    elif sequence.name is None:
        yield found.error(
            f"{shown(sequence.table)} has numbers from {sequence.lowest}: no feed delivers those below 1",
            f"SELECT global_seq, stream_id, stream_seq FROM {sequence.table} WHERE global_seq < 1 ORDER BY global_seq;",
        )
    else:
        yield found.error(
            f"{shown(sequence.table)} has numbers from {sequence.lowest}: no feed delivers those below 1 "
            "(the remedy moves them to the end of the feed)",
            f"/* MOVES events */ UPDATE {sequence.table} e SET global_seq = moved.number FROM (SELECT global_seq, "
            f"nextval({literal(sequence.name)}) AS number FROM (SELECT global_seq FROM {sequence.table} "
            "WHERE global_seq < 1 ORDER BY global_seq) early) moved WHERE e.global_seq = moved.global_seq;",
        )


def _set_to_highest(name: str, table: str) -> str:
    return f"SELECT setval({literal(name)}, (SELECT greatest(max(global_seq), 0) + 1 FROM {table}), false);"


TOPIC = Topic("sequence", read_sequence, (default, cache, direction, position, room, numbers))
