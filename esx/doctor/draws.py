"""Numbers that are not drawn by the INSERT itself, so that the feed may have passed them when the event appears."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from esx.doctor.finding import About, Finding, quoted, shown
from esx.doctor.target import Examined
from esx.doctor.topic import Topic
from esx.layouts.table_tree import above, below
from esx.postgres.session import Session

_NAMED = 3
_MANY = 10_000
"""In a database with more functions than this they are not searched."""


@dataclass(frozen=True, slots=True)
class Draws:
    """The facts. `shared` are columns of other tables that draw from the same sequence, as (table, column).

    `setting` are triggers that run before an INSERT and may set global_seq, each with its table, and `calling` the
    functions that mention the sequence and nextval.
    """

    sequence: str | None = None
    shared: Sequence[tuple[str, str]] = ()
    setting: Sequence[tuple[str, str]] = ()
    calling: Sequence[str] = ()


async def read_draws(connection: Session, target: Examined) -> Draws:
    """Read what else can draw from the sequence of the table."""
    start = f"SELECT {target.oid}::oid"
    row = await connection.fetchrow(
        rf"""
        WITH RECURSIVE {above(start)}, {below(start)}, drawn AS (
            SELECT dep.refobjid AS oid
            FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
            JOIN pg_depend dep ON dep.classid = 'pg_attrdef'::regclass AND dep.objid = d.oid
                 AND dep.refclassid = 'pg_class'::regclass
            JOIN pg_sequence s ON s.seqrelid = dep.refobjid
            WHERE a.attrelid = {target.oid} AND a.attname = 'global_seq'
            UNION
            SELECT pg_get_serial_sequence(a.attrelid::regclass::text, a.attname)::regclass::oid
            FROM pg_attribute a WHERE a.attrelid = {target.oid} AND a.attname = 'global_seq'
        )
        SELECT (SELECT min({target.spelled("drawn.oid")}) FROM drawn) AS sequence,
               ARRAY(SELECT DISTINCT ARRAY[{target.spelled("d.adrelid")}, quote_ident(a.attname)]
                     FROM drawn JOIN pg_depend dep ON dep.refobjid = drawn.oid AND dep.classid = 'pg_attrdef'::regclass
                          AND dep.refclassid = 'pg_class'::regclass
                     JOIN pg_attrdef d ON d.oid = dep.objid
                     JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
                     -- An INSERT into a parent draws its number itself too, and the feed waits for it.
                     WHERE NOT (d.adrelid IN (SELECT oid FROM below UNION ALL SELECT oid FROM above)
                                AND a.attname = 'global_seq')
                     ORDER BY 1) AS shared,
               ARRAY(SELECT ARRAY[t.tgname::text, {target.spelled("t.tgrelid")}]
                     FROM below JOIN pg_trigger t ON t.tgrelid = below.oid JOIN pg_proc p ON p.oid = t.tgfoid
                     WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled <> 'D'
                       AND t.tgtype & 7 = 7  -- for each row, before, on INSERT
                       AND regexp_replace(p.prosrc, '--[^
]*', '', 'g') ~* '\mnew\.global_seq\s*:?=[^=]|\minto\s+(strict\s+)?new\.global_seq\M'
                     ORDER BY 1) AS setting,
               ARRAY(SELECT p.oid::regprocedure::text FROM pg_proc p JOIN drawn ON true
                     JOIN pg_class s ON s.oid = drawn.oid
                     -- A body in SQL has no source text.
                     CROSS JOIN LATERAL coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) body
                     WHERE p.pronamespace <> 'pg_catalog'::regnamespace AND body ~* '\mnextval\M'
                       AND strpos(body, s.relname) > 0
                       AND (SELECT reltuples FROM pg_class WHERE oid = 'pg_proc'::regclass) < {_MANY}
                     ORDER BY 1) AS calling
        """
    )
    assert row is not None
    return Draws(
        row["sequence"],
        [(table, column) for table, column in row["shared"]],
        [(name, table) for name, table in row["setting"]],
        [target.plain(function) for function in row["calling"]],
    )


def shared(facts: Draws) -> Iterator[Finding]:
    """Check that nothing else draws from the sequence."""
    if facts.sequence is None:
        return
    found = About("sequence-shared")
    if facts.shared:
        columns = [f"{table}.{column}" for table, column in facts.shared[:_NAMED]]
        yield found.error(
            f"sequence {shown(facts.sequence)} also fills {quoted(columns)}: a number drawn there and stored here "
            "later is one that the feed has passed",
            *(f"ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT;" for table, column in facts.shared),
        )
    else:
        yield found.ok(f"no other column draws from sequence {shown(facts.sequence)}")


def triggers(facts: Draws) -> Iterator[Finding]:
    """Check that no trigger changes the number that an INSERT has drawn."""
    found = About("sequence-trigger")
    for name, table in facts.setting:
        yield found.warning(
            f"trigger {shown(name)} sets global_seq before an INSERT into {shown(table)}: the feed relies on the "
            "number that the column's default draws"
        )
    if not facts.setting:
        yield found.ok("no trigger sets global_seq")


def functions(facts: Draws) -> Iterator[Finding]:
    """Report functions that draw from the sequence."""
    found = About("sequence-functions")
    if facts.calling:
        yield found.info(
            f"{quoted(facts.calling[:_NAMED])} calls nextval on sequence {shown(facts.sequence)}: a number drawn "
            "before the INSERT that stores it may be one that the feed has passed"
        )
    else:
        yield found.ok("no function is seen to draw from the sequence")


TOPIC = Topic("draws", read_draws, (shared, triggers, functions))
