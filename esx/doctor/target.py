"""What is examined: the table events or the named store, and the table that a view reads."""

from __future__ import annotations

from dataclasses import dataclass

from esx.layouts.detection import BAD_NAMES, find_home, find_tables
from esx.layouts.view_definition import ViewedTable, table_behind
from esx.postgres.literals import identifier, literal
from esx.postgres.session import Session

TABLES = ("r", "p")
VIEWS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The limits from which on something is reported.

    A writer that is open for `writer_warning` seconds is a warning, after `writer_error` seconds an error; a
    transaction that has written nothing is old after `long` seconds. A table is large from `large_bytes` on, and has
    many events from `many_events` on. `page` is how many events a full check reads at once.
    """

    writer_warning: float = 10.0
    writer_error: float = 300.0
    long: float = 300.0
    large_bytes: int = 64_000_000
    many_events: int = 100_000
    page: int = 50_000


@dataclass(frozen=True, slots=True)
class Examined:
    """A table or view. `table` is its name as SQL writes it, `kind` that of pg_class, None if there is none.

    `quoted` is its name with the schema, which queries use, and `owner` its owner. `home` is the schema in which
    the user's search_path finds the other objects of schema.sql. `named` says that the user has named it, `own`
    that the other objects of schema.sql belong to it, `read_only` that esx only reads it, as the store of another
    tool. For a view, `base` is the table that it reads, or why that is not certain, as text. `rows` is the query
    for the oids of the tables with the rows, where these are others.
    """

    table: str = "events"
    kind: str | None = "r"
    quoted: str = "events"
    owner: str = ""
    named: bool = False
    own: bool = True
    read_only: bool = False
    base: Examined | str | None = None
    home: str = "public"
    rows: str = ""
    thresholds: Thresholds = Thresholds()

    def ours(self, name: str) -> str:
        """Return the name, as SQL writes it, of another object of schema.sql."""
        return f"{identifier(self.home)}.{name}"

    def spelled(self, oid: str) -> str:
        """Return the expression for the name by which the user finds the table or index `oid`."""
        return (
            f"(SELECT CASE WHEN sn.nspname = {literal(self.home)} THEN '' ELSE quote_ident(sn.nspname) || '.' END "
            "|| quote_ident(sc.relname) FROM pg_class sc JOIN pg_namespace sn ON sn.oid = sc.relnamespace "
            f"WHERE sc.oid = {oid})"
        )

    def plain(self, definition: str) -> str:
        """Return a definition as the user sees it: without the schema `home` in names."""
        return definition.replace(f"{identifier(self.home)}.", "")

    @property
    def oid(self) -> str:
        """The expression for its oid, NULL if it is gone."""
        # to_regclass raises an error for a text that is no name.
        return "NULL::oid" if self.kind is None else f"to_regclass({literal(self.quoted)})"

    @property
    def is_table(self) -> bool:
        """Whether rows are stored in it or in its partitions."""
        return self.kind in TABLES

    @property
    def partitioned(self) -> bool:
        """Whether its rows are stored in partitions."""
        return self.kind == "p"


EVENTS = Examined()
"""The table events of schema.sql."""


async def find_target(connection: Session, store: str | None, thresholds: Thresholds) -> Examined:
    """Return the relation that the name of the store finds; None stands for events."""
    name = "events" if store is None else store
    schema, plain = await find_home(connection)
    nothing = Examined(name, None, name, named=store is not None, own=store is None, home=schema, thresholds=thresholds)
    try:
        [found] = await find_tables(connection, name)
    except BAD_NAMES:
        return nothing
    row = await connection.fetchrow(
        """
        SELECT c.oid, c.relkind::text, format('%I.%I', n.nspname, c.relname), pg_get_userbyid(c.relowner)::text,
               coalesce(c.oid = $2, false)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1
        """,
        found,
        plain,
    )
    if row is None or row[1] not in (*TABLES, *VIEWS):
        return nothing
    oid, kind, quoted, owner, own = row
    base: Examined | str | None = None
    if kind == "v":
        behind = await table_behind(connection, oid)
        if isinstance(behind, ViewedTable):
            table = await connection.fetchval("SELECT relkind::text FROM pg_class WHERE oid = $1", behind.oid)
            base = Examined(behind.name, table, behind.name, own=bool(own), home=schema, thresholds=thresholds)
        else:
            base = behind
    return Examined(
        table="events" if store is None else quoted,
        kind=kind,
        quoted=quoted,
        owner=owner,
        named=store is not None,
        own=bool(own),
        base=base,
        home=schema,
        thresholds=thresholds,
    )
