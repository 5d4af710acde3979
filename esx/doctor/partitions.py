"""The partitions of a table, and the tables that inherit from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from esx.doctor.finding import About, Finding, quoted, shown
from esx.doctor.target import Examined
from esx.doctor.topic import Topic
from esx.layouts.table_tree import below
from esx.postgres.session import Session

_NAMED = 3


class Partition(NamedTuple):
    """A table below the one that is examined.

    `expression` is its own default of global_seq; `same` says that it draws from the sequence of the whole table, and
    `identity` that it is an identity, not a default. `foreign` and `detaching` say that the table is a foreign table,
    or half detached.
    """

    name: str
    parent: str
    expression: str | None
    same: bool
    identity: bool
    foreign: bool
    detaching: bool


@dataclass(frozen=True, slots=True)
class Partitions:
    """The facts. `by` is how the table is partitioned, e.g. ``HASH (stream_id)``; None if it is not.

    `catch_all` says that all events have a partition: there is a default partition, or none is needed.
    """

    table: str
    by: str | None = None
    catch_all: bool = True
    parts: Sequence[Partition] = ()


async def read_partitions(connection: Session, target: Examined) -> Partitions:
    """Read all tables below the table, at all levels."""
    row = await connection.fetchrow(
        f"""
        SELECT pg_get_partkeydef(p.partrelid), p.partstrat::text = 'h' OR p.partdefid <> 0
        FROM pg_partitioned_table p WHERE p.partrelid = {target.oid}
        """
    )
    parts = await connection.fetch(
        rf"""
        WITH RECURSIVE {below(f"SELECT {target.oid}::oid")}, drawn AS (
            SELECT a.attrelid, own.oid IS NOT NULL AS identity,
                   CASE WHEN own.oid IS NULL THEN pg_get_expr(d.adbin, d.adrelid)
                        ELSE 'the identity sequence ' || own.oid::regclass::text END AS expression,
                   -- Only nextval alone: an expression with it makes another number.
                   coalesce(own.oid, CASE WHEN pg_get_expr(d.adbin, d.adrelid) ~ '^nextval\(.*::regclass\)$' THEN
                        (SELECT min(dep.refobjid) FROM pg_depend dep JOIN pg_sequence s ON s.seqrelid = dep.refobjid
                         WHERE dep.classid = 'pg_attrdef'::regclass AND dep.objid = d.oid) END) AS sequence
            FROM below JOIN pg_attribute a ON a.attrelid = below.oid AND a.attname = 'global_seq'
            LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
            CROSS JOIN LATERAL (
                -- From PostgreSQL 17 on, partitions have the identity of the whole, and no sequence of their own.
                SELECT CASE WHEN a.attidentity <> '' THEN
                    pg_get_serial_sequence(a.attrelid::regclass::text, 'global_seq')::regclass::oid END AS oid) own
        )
        SELECT {target.spelled("c.oid")}, {target.spelled("i.inhparent")}, own.expression,
               coalesce(own.sequence = whole.sequence OR own.expression = whole.expression, false),
               own.identity, c.relkind = 'f', i.inhdetachpending
        FROM below JOIN pg_class c ON c.oid = below.oid JOIN pg_inherits i ON i.inhrelid = c.oid
        LEFT JOIN drawn own ON own.attrelid = c.oid LEFT JOIN drawn whole ON whole.attrelid = {target.oid}
        WHERE c.oid <> {target.oid} AND i.inhparent IN (SELECT oid FROM below)
        ORDER BY 1
        """
    )
    by, catch_all = (None, True) if row is None else row
    return Partitions(
        target.table,
        by,
        catch_all,
        [Partition._make(part)._replace(expression=part[2] and target.plain(part[2])) for part in parts],
    )


def partitions(facts: Partitions) -> Iterator[Finding]:
    """Check that all appends have a partition, and that no partition is half detached."""
    if facts.by is None:
        return
    found = About("partitions")
    halves = [part for part in facts.parts if part.detaching]
    for part in halves:
        yield found.warning(
            f"partition {shown(part.name)} is half detached: its events are not seen any more",
            f"ALTER TABLE {part.parent} DETACH PARTITION {part.name} FINALIZE;",
        )
    if not facts.parts:
        yield found.error(
            f"{shown(facts.table)} is partitioned by {shown(facts.by)} and has no partition: appends fail"
        )
    elif not facts.catch_all:
        yield found.info(
            f"{shown(facts.table)} is partitioned by {shown(facts.by)} without a default partition: an append that "
            "fits none fails"
        )
    elif not halves:
        yield found.ok(f"{len(facts.parts)} partitions, by {shown(facts.by)}")


def numbers(facts: Partitions) -> Iterator[Finding]:
    """Check that direct writes to a partition or child draw from the same sequence."""
    if not facts.parts:
        return
    found = About("partition-default")
    # Without a default, such an INSERT fails, or gives a number itself, as any INSERT can.
    others = [part for part in facts.parts if part.expression is not None and not part.same]
    for part in others:
        yield found.error(
            f"what is written to {shown(part.name)} itself gets its global_seq from {shown(part.expression)}: numbers "
            "that the feed has passed, or that are taken",
            f"ALTER TABLE ONLY {part.name} ALTER COLUMN global_seq DROP {'IDENTITY' if part.identity else 'DEFAULT'};",
        )
    if not others:
        yield found.ok("no partition draws its numbers from another sequence")


def children(facts: Partitions) -> Iterator[Finding]:
    """Report tables that inherit: a page of all events has to sort or merge their events."""
    if facts.by is not None or not facts.parts:
        return
    found = About("children")
    yield found.info(
        f"{quoted(part.name for part in facts.parts[:_NAMED])} inherit from {shown(facts.table)}: their events belong "
        "to the feed, but esx appends to the parent only"
    )


TOPIC = Topic("partitions", read_partitions, (partitions, numbers, children))
