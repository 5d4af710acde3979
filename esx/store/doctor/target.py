"""What is examined: the table events, or what was named in its place, and the table that a view reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esx.store.doctor.finding import identifier, literal
from esx.store.doctor.topic import QUICK, limited
from esx.store.layout import Layout
from esx.store.relation import BAD_NAMES, find_home, find_tables
from esx.store.trust import check_owners
from esx.store.viewrule import Base, table_behind

if TYPE_CHECKING:
    from esx.store.connection import Session

TABLES = ("r", "p")
VIEWS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


@dataclass(frozen=True, slots=True)
class Target:
    """A table or view. `table` is its name as SQL writes it, `kind` that of pg_class, None if there is none.

    `quoted` is the name with its schema, by which alone queries find it, and `owner` whose it is. `home` is the schema
    in which the user's search_path finds the other objects of schema.sql, as the catalogs have it. `named` says that
    the user has named it, `own` that the other objects of schema.sql belong to it. For a view `base` is the table that
    it reads, or, as text, why that is not certain.
    """

    table: str = "events"
    kind: str | None = "r"
    quoted: str = "events"
    owner: str = ""
    named: bool = False
    own: bool = True
    base: Target | str | None = None
    home: str = "public"

    def ours(self, name: str) -> str:
        """Return the name, as SQL writes it, of another object of schema.sql."""
        return f"{identifier(self.home)}.{name}"

    def spelled(self, oid: str) -> str:
        """Return the expression for the name that the user gives to the table or index `oid`."""
        return (
            f"(SELECT CASE WHEN sn.nspname = {literal(self.home)} THEN '' ELSE quote_ident(sn.nspname) || '.' END "
            "|| quote_ident(sc.relname) FROM pg_class sc JOIN pg_namespace sn ON sn.oid = sc.relnamespace "
            f"WHERE sc.oid = {oid})"
        )

    def plain(self, definition: str) -> str:
        """Return a definition as the user would see it: names of his own schema stand without it."""
        return definition.replace(f"{identifier(self.home)}.", "")

    @property
    def oid(self) -> str:
        """The expression for its oid, NULL if it is gone."""
        # What is no name at all would be an error to ask for.
        return "NULL::oid" if self.kind is None else f"to_regclass({literal(self.quoted)})"

    @property
    def is_table(self) -> bool:
        """Whether rows are stored in it or in its partitions."""
        return self.kind in TABLES

    @property
    def partitioned(self) -> bool:
        """Whether its rows are stored in partitions."""
        return self.kind == "p"


EVENTS = Target()
"""The table events of schema.sql."""


async def find_target(connection: Session, store: str | None) -> Target:
    """Return what the name of the store, None for events, finds."""
    name = "events" if store is None else store
    schema, plain = await find_home(connection)
    nothing = Target(table=name, kind=None, quoted=name, named=store is not None, own=store is None, home=schema)
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
    base: Target | str | None = None
    if kind == "v":
        behind = await table_behind(connection, oid)
        if isinstance(behind, Base):
            table = await connection.fetchval("SELECT relkind::text FROM pg_class WHERE oid = $1", behind.oid)
            base = Target(behind.name, table, behind.name, own=bool(own), home=schema)
        else:
            base = behind
    return Target(
        table="events" if store is None else quoted,
        kind=kind,
        quoted=quoted,
        owner=owner,
        named=store is not None,
        own=bool(own),
        base=base,
        home=schema,
    )


async def check_target(connection: Session, store: str | None) -> None:
    """Raise OwnerNotTrusted as `check_owners` does, also for what is no store that can be read."""

    async def check(session: Session) -> None:
        target = await find_target(session, store)
        if target.kind is not None:
            await check_owners(session, Layout(table=target.quoted, home=identifier(target.home), own=target.own))

    await limited(connection, check, QUICK)
