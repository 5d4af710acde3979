"""The partitions of a table, and the tables that inherit from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from esx.store.doctor.finding import About, quoted, shown
from esx.store.family import below

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from esx.store.connection import Session
    from esx.store.doctor.finding import Finding
    from esx.store.doctor.target import Target

_NAMED = 3


class Part(NamedTuple):
    """A table below the one that is examined.

    `expression` is its own default of global_seq, `same` says that this draws from the sequence of the whole, and
    `identity` that it is none that could be dropped but an identity; `foreign` and `detaching` say that it is a foreign
    table, or half detached.
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

    `catch_all` says that there is a partition for what fits no other, or that none is needed.
    """

    table: str
    by: str | None = None
    catch_all: bool = True
    parts: Sequence[Part] = ()


async def read_partitions(connection: Session, target: Target) -> Partitions:
    """Read all levels of what is below the table."""
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
                   -- The number as it is drawn: what is made of it would be another.
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
        [Part._make(part)._replace(expression=part[2] and target.plain(part[2])) for part in parts],
    )


def partitions(facts: Partitions) -> Iterator[Finding]:
    """Check that what is appended finds its partition, and that none is half detached."""
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
    """Check that who writes to a partition or child itself draws from the same sequence."""
    if not facts.parts:
        return
    found = About("partition-default")
    # Without any default, such an insert fails, or brings a number of its own as any insert can.
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
    """Tell of tables that inherit: a page of all events sorts, or merges, what is in each."""
    if facts.by is not None or not facts.parts:
        return
    found = About("children")
    yield found.info(
        f"{quoted(part.name for part in facts.parts[:_NAMED])} inherit from {shown(facts.table)}: their events belong "
        "to the feed, but esx appends to the parent only"
    )


CHECKS = (partitions, numbers, children)
