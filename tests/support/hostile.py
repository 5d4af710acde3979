"""A database whose owner is hostile: she plants code wherever a superuser who looks at her store may run it."""

from __future__ import annotations

import ast
import contextlib
import re
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from esx import EventStore, NewEvent
from tests.conftest import fresh_database
from tests.support.roles import new_role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from esx.embedded import EmbeddedServer
    from tests.support.roles import Role

_ESX = Path(__file__).parents[2] / "esx"
_SPEAK_SQL = ("*.py", "postgres/*.py", "layouts/**/*.py", "store/**/*.py", "doctor/*.py")
_TYPES = ("text", "character varying", "jsonb", "bigint", "integer", "regclass", "timestamp with time zone", "text[]")
_SECOND = ("text", "character varying", "integer", "text[]")
_OPERATORS = ("=", "<>", "<", "<=", ">", ">=", "||", "->", "->>", "#>>", "@>", "@?", "@@", "&&", "~", "^@", "+", "-")
_SPRING = "LANGUAGE plpgsql AS $f$ BEGIN PERFORM public.spring(); RETURN NULL; END $f$"
_SEEN = re.compile(r"(?<![\w.\"'$])(?:pg_catalog\.)?([a-z_][a-z0-9_]*)\(")


class Hostile:
    """The database at `dsn`, as a superuser sees it, and what its owner has planted there."""

    def __init__(self, dsn: str, owner: Role, admin: asyncpg.Connection, hers: asyncpg.Connection, trap: Path) -> None:
        self.dsn = dsn
        self.owner = owner
        self.hers = hers
        self.admin = admin
        self._trap = trap

    @property
    def sprung(self) -> bool:
        """Whether anything of hers ran with a superuser's rights."""
        return self._trap.exists()

    async def plant(self, arguments: str, name: str, result: str = "text", *, volatility: str = "VOLATILE") -> None:
        """Make a function that, run by a superuser, leaves a file behind, be the transaction read-only or not."""
        await self.hers.execute(
            f"CREATE FUNCTION {name}({arguments}) RETURNS {result} LANGUAGE plpgsql {volatility} AS $$ BEGIN "
            f"PERFORM public.spring(); RETURN NULL; END $$"
        )

    async def plant_in_an_index(self) -> None:
        """Let an index of hers call a function of hers."""
        await self.hers.execute(
            "CREATE FUNCTION public.hers(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';"
            "CREATE INDEX ON events ((public.hers(event_type)));"
            "CREATE OR REPLACE FUNCTION public.hers(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS "
            "$$ BEGIN PERFORM public.spring(); RETURN NULL; END $$"
        )

    async def plant_everywhere(self) -> None:
        """Plant all functions and operators that could take the place of one that esx means."""
        names = await self.admin.fetch(
            "SELECT DISTINCT proname::text FROM pg_proc WHERE proname = ANY($1::text[])", sorted(called())
        )
        theirs = await self.admin.fetch(
            "SELECT oprname::text, oprleft::regtype::text, oprright::regtype::text FROM pg_operator "
            "WHERE oprnamespace = 'pg_catalog'::regnamespace"
        )
        exact = {tuple(row) for row in theirs}
        pairs = list(product(_TYPES, _SECOND))
        statements = [
            f"CREATE FUNCTION public.{row[0]}({', '.join(arguments)}) RETURNS text {_SPRING}"
            for row in names
            for arguments in [(one,) for one in _TYPES] + pairs
        ]
        for number, (left, right) in enumerate(pairs):
            statements.append(f"CREATE FUNCTION public.op_{number}({left}, {right}) RETURNS boolean {_SPRING}")
            statements += [
                f"CREATE OPERATOR public.{operator} (FUNCTION = op_{number}, LEFTARG = {left}, RIGHTARG = {right})"
                for operator in _OPERATORS
                if (operator, left, right) not in exact
            ]
        await self.hers.execute("; ".join(statements))


@contextlib.asynccontextmanager
async def hostile_database(server: EmbeddedServer) -> AsyncIterator[Hostile]:
    """Make one, with a store of hers that has a few events."""
    async with fresh_database(server, "template1") as dsn, new_role(dsn) as owner:
        admin = await asyncpg.connect(dsn)
        hers = await asyncpg.connect(owner.dsn(dsn))
        try:
            await admin.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO {owner.name}")
            trap = Path(await admin.fetchval("SHOW data_directory")) / f"sprung-{owner.bare}"
            async with EventStore.connect(owner.dsn(dsn)) as store:
                await store.init()
                for n in range(5):
                    await store.append(
                        f"order-{n % 2}", [NewEvent("Placed", {"n": n, "sku": "x"}, metadata={"correlation_id": "c"})]
                    )
            await hers.execute(
                f"""
                CREATE FUNCTION public.spring() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
                    EXECUTE 'COPY (SELECT 1) TO ''{trap}''';
                EXCEPTION WHEN insufficient_privilege THEN NULL;
                END $$
                """
            )
            yield Hostile(dsn, owner, admin, hers, trap)
        finally:
            await hers.close()
            await admin.close()
            with contextlib.suppress(FileNotFoundError):
                trap.unlink()


@cache
def called() -> frozenset[str]:
    """Return what looks like a call of a function in the SQL of the store: PostgreSQL's functions are among it."""
    return frozenset(name for text in _texts() for name in _SEEN.findall(text) if not name.startswith("esx_"))


def _texts() -> Iterator[str]:
    """Yield the texts in all modules that speak SQL."""
    for path in sorted(path for place in _SPEAK_SQL for path in _ESX.glob(place)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
