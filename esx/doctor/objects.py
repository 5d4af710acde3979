"""The trigger that rings the doorbell, and the other objects of schema.sql, compared with what schema.sql makes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from esx.doctor.finding import About, Finding, quoted, shown
from esx.doctor.target import EVENTS, Examined
from esx.doctor.topic import Topic
from esx.layouts.init import schema_sql
from esx.layouts.table_tree import below
from esx.postgres.literals import identifier, literal
from esx.postgres.session import Session

_TABLE = re.compile(r"^CREATE TABLE IF NOT EXISTS (\w+)", re.MULTILINE)
_FUNCTION = re.compile(r"^CREATE OR REPLACE FUNCTION (\w+)\(.*?\bAS (\$\w*\$)(.*?)\2", re.MULTILINE | re.DOTALL)
_TRIGGER = re.compile(r"^\s*CREATE (?:OR REPLACE )?TRIGGER (\w+)\s+([^;]+);", re.MULTILINE)
_NOTIFIES = re.compile(r"\b(pg_notify|notify)\b", re.IGNORECASE)
_COMMENT = re.compile(r"--[^\n]*")
_NAME = r'(?:\w+|"(?:[^"]|"")*")'
_FIRES = ("O", "A")
_NAMED = 3
_PER_ROW = 1


@dataclass(frozen=True, slots=True)
class ExpectedObject:
    """What schema.sql makes: names of tables, functions with their bodies, and the trigger."""

    tables: tuple[str, ...]
    functions: Mapping[str, str]
    trigger: str
    trigger_definition: str


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger of the table, with the body of its function; `rings` says that this function rings the doorbell."""

    name: str
    definition: str
    enabled: str
    per_row: bool
    rings: bool
    body: str


@dataclass(frozen=True, slots=True)
class Objects:
    """The triggers, functions and tables that the database has."""

    triggers: Sequence[Trigger]
    functions: Mapping[str, Sequence[str]]
    tables: frozenset[str]
    target: Examined = EVENTS
    silent: Sequence[str] = ()
    """The partitions and children in which a direct INSERT does not ring."""


@cache
def expected() -> ExpectedObject:
    """Return what schema.sql makes, from its text, as a read-only session cannot run it."""
    text = schema_sql()
    trigger = _TRIGGER.search(text)
    assert trigger is not None
    return ExpectedObject(
        tables=tuple(_TABLE.findall(text)),
        functions={name: _squeezed(body) for name, _, body in _FUNCTION.findall(text)},
        trigger=trigger[1],
        trigger_definition=_squeezed(trigger[2]),
    )


async def read_objects(connection: Session, target: Examined) -> Objects:
    """Read the triggers of the table, and the functions and tables of the names in schema.sql."""
    rings = f"t.tgfoid = to_regprocedure({literal(target.ours('esx_ring_doorbell()'))})"
    triggers = await connection.fetch(
        f"""
        SELECT t.tgname::text AS name, pg_get_triggerdef(t.oid, true) AS definition, t.tgenabled::text AS enabled,
               t.tgtype & $1::int <> 0 AS per_row, p.prosrc AS body,
               coalesce({rings}, false) AS rings
        FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE t.tgrelid = {target.oid} AND NOT t.tgisinternal
        ORDER BY t.tgname
        """,
        _PER_ROW,
    )
    bodies: dict[str, list[str]] = {}
    for name, body in await connection.fetch(
        "SELECT p.proname::text, p.prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
        "WHERE p.proname = ANY($1::text[]) AND n.nspname = $2",
        list(expected().functions),
        target.home,
    ):
        bodies.setdefault(name, []).append(body)
    tables = await connection.fetch(
        "SELECT name FROM unnest($1::text[], $2::text[]) t (name, there) WHERE to_regclass(there) IS NOT NULL",
        list(expected().tables),
        [target.ours(name) for name in expected().tables],
    )
    silent = await connection.fetch(
        f"""
        WITH RECURSIVE {below(f"SELECT {target.oid}::oid")}
        SELECT {target.spelled("part.oid")} FROM below JOIN pg_class part ON part.oid = below.oid
        WHERE part.oid <> {target.oid} AND part.relkind = 'r' AND NOT EXISTS (
            SELECT FROM pg_trigger t WHERE t.tgrelid = part.oid AND {rings}
              AND t.tgenabled IN ('O', 'A'))
        ORDER BY 1
        """
    )
    return Objects(
        [Trigger(**{**row, "definition": target.plain(row["definition"])}) for row in triggers],
        bodies,
        frozenset(row[0] for row in tables),
        target,
        [row[0] for row in silent],
    )


def doorbell(objects: Objects) -> Iterator[Finding]:
    """Check that appends ring the doorbell as in schema.sql."""
    found = About("doorbell")
    wanted = expected()
    table = objects.target.table
    trigger = next((trigger for trigger in objects.triggers if trigger.name == wanted.trigger), None)
    made = wanted.trigger_definition.replace(" ON events ", f" ON {table} ", 1)
    make = "esx init" if objects.target.own else f"CREATE OR REPLACE TRIGGER {wanted.trigger} {made};"
    if trigger is None:
        yield found.warning(f"there is no trigger {wanted.trigger}: the feed polls once a second", make)
    elif trigger.enabled not in _FIRES:
        yield found.warning(
            f"trigger {wanted.trigger} is disabled: the feed polls once a second",
            f"ALTER TABLE {table} ENABLE TRIGGER {wanted.trigger};",
        )
    elif not trigger.rings or _definition(trigger) != wanted.trigger_definition:
        yield found.warning(
            f"trigger {wanted.trigger} is not that of schema.sql: it is {shown(_definition(trigger))}", make
        )
    elif objects.silent:
        parts = quoted(objects.silent[:_NAMED])
        yield found.info(
            f"what is written to {parts} itself rings no doorbell, and the feed sees it a second later",
            *(
                f"CREATE OR REPLACE TRIGGER {wanted.trigger} AFTER INSERT ON {part} FOR EACH ROW "
                "EXECUTE FUNCTION esx_ring_doorbell();"
                if not objects.target.partitioned
                else f"ALTER TABLE {part} ENABLE TRIGGER {wanted.trigger};"
                for part in objects.silent
            ),
        )
    else:
        yield found.ok(f"trigger {wanted.trigger} rings the doorbell")


def functions(objects: Objects) -> Iterator[Finding]:
    """Check that the functions are those of schema.sql."""
    if not objects.target.own:
        return
    found = About("functions")
    missing = [name for name in expected().functions if name not in objects.functions]
    different = [
        name
        for name, body in expected().functions.items()
        if name in objects.functions and all(_squeezed(other) != body for other in objects.functions[name])
    ]
    if missing:
        yield found.warning(f"missing: function {quoted(missing)}", "esx init")
    if different:
        yield found.warning(
            f"not the same as in schema.sql, older or changed: function {quoted(different)}", "esx init"
        )
    if not missing and not different:
        yield found.ok(f"as in schema.sql: function {quoted(expected().functions)}")


def tables(objects: Objects) -> Iterator[Finding]:
    """Check that the other tables of schema.sql are there."""
    if not objects.target.own:
        return
    found = About("tables")
    missing = [name for name in expected().tables if name not in objects.tables]
    if missing:
        yield found.warning(f"missing: table {quoted(missing)}", "esx init")
    else:
        yield found.ok(f"there: table {quoted(expected().tables)}")


def other_triggers(objects: Objects) -> Iterator[Finding]:
    """Check that no other trigger makes every append notify."""
    found = About("other-triggers")
    ours = expected()
    notifying = [
        trigger
        for trigger in objects.triggers
        if trigger.name != ours.trigger
        and trigger.enabled in _FIRES
        and not trigger.rings
        and _NOTIFIES.search(_COMMENT.sub("", trigger.body))
    ]
    for trigger in notifying:
        yield found.info(
            f"trigger {shown(trigger.name)} notifies for each {'row' if trigger.per_row else 'statement'}: "
            "committing a NOTIFY takes one lock of the whole cluster, so appends queue",
            f"ALTER TABLE {objects.target.table} DISABLE TRIGGER {identifier(trigger.name)};",
        )
    if not notifying:
        yield found.ok("no other trigger notifies")


def _definition(trigger: Trigger) -> str:
    """Return the trigger's definition as schema.sql writes it: without the name, and the table as events."""
    text = re.sub(r"^CREATE (OR REPLACE )?TRIGGER \S+ ", "", _squeezed(trigger.definition))
    return re.sub(rf"\bON (?:{_NAME}\.)?{_NAME} ", "ON events ", text, count=1)


def _squeezed(text: str) -> str:
    return " ".join(text.split())


TOPIC = Topic("objects", read_objects, (doorbell, functions, tables, other_triggers))
