"""Auditing a read model: made again from its events beside it, and compared row by row. Nothing of it stays.

All is done in one REPEATABLE READ transaction, which is rolled back: the checkpoint and the rows are those of one
moment. Rows are compared as JSON, without the columns that are left out. For those that differ the events are handled
once more, one by one, with triggers that note which of them touched these rows.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from esx.errors import InvalidQuery
from esx.postgres.session import Session
from esx.store.operate.replay import Recorded, Replay, ReplayOf
from esx.store.operate.shadow import Shadow, ShadowTable, check_read, make_shadow, note_changes, plan_shadow
from esx.text import visible

_MOST = 1000
"""How many rows that differ are returned."""
_EXPLAINED = 100
"""For how many of them the events are found."""


class RowDifference(NamedTuple):
    """A row that differs. `kept` is the row of the read model, `made` the one made again, as JSON; None: there is none.

    `key` is the primary key as a JSON array, None where rows are compared as a whole. `events` are the global_seq of
    the events that touched the row; None where that was not looked for.
    """

    table: str
    key: str | None
    kept: str | None
    made: str | None
    events: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found.

    It handled `handled` events up to `position`, and compared `rows` rows of each table. `differing` rows differ, of
    which `differences` has at most 1,000. `left_out` are the events that the projection has parked or skipped.
    """

    position: int
    handled: int
    rows: dict[str, int]
    differing: int
    differences: tuple[RowDifference, ...]
    left_out: int

    @property
    def same(self) -> bool:
        """Whether the read model is what its events make."""
        return not self.differing


class Audit(Replay):
    """One audit."""

    doing = "audit"

    def __init__(self, given: ReplayOf, on_progress: Callable[[int, int], object] | None) -> None:
        super().__init__(given)
        self._on_progress = on_progress

    async def run(self, tables: Sequence[str], ignored: Sequence[str]) -> AuditReport:
        """Make the tables again, compare, and roll back."""
        transaction = self._session.transaction(isolation="repeatable_read")
        await transaction.start()
        try:
            return await self._audit(tables, ignored)
        finally:
            await transaction.rollback()

    async def _audit(self, tables: Sequence[str], ignored: Sequence[str]) -> AuditReport:
        session = self._session
        recorded = await self._recorded()
        await self._leave_out()
        shadow = await plan_shadow(session, f"esx_audit_{recorded.id}", tables, swapped=False)
        _check_ignored(shadow, ignored)
        await make_shadow(session, shadow, only_inside=True)
        handled = await self._replay(shadow, recorded, singly=False)
        await check_read(session, shadow)
        found: list[RowDifference] = []
        counts: dict[str, int] = {}
        differing = 0
        for table in shadow.tables:
            counts[table.live] = await session.fetchval(f"SELECT count(*) FROM {table.live}")
            some, number = await _compare(session, table, list(ignored))
            found += some[: max(_MOST - len(found), 0)]
            differing += number
        if found:
            found = await self._explain(shadow, recorded, found, list(ignored))
        return AuditReport(recorded.position, handled, counts, differing, tuple(found), len(self._left_out))

    async def _replay(self, shadow: Shadow, recorded: Recorded, *, singly: bool) -> int:
        """Handle the events that the projection has handled, in the shadow."""
        handled = 0
        reading = self._read(recorded.start, recorded.filter, recorded.position)
        async with contextlib.aclosing(reading) as parts:
            async for part in parts:
                handled += await self._handle(shadow, part.events, singly=singly)
                if self._on_progress is not None:
                    self._on_progress(part.position, recorded.position)
        return handled

    async def _explain(
        self, shadow: Shadow, recorded: Recorded, found: list[RowDifference], ignored: list[str]
    ) -> list[RowDifference]:
        """Return the differences with the events that touched the rows."""
        session, notes = self._session, shadow.notes
        wanted = [each for each in found if each.key is not None][:_EXPLAINED]
        if not wanted:
            return found
        await session.execute(
            f"CREATE SCHEMA {notes}; "
            f"CREATE TABLE {notes}.wanted (name text, key jsonb, PRIMARY KEY (name, key)); "
            f"CREATE TABLE {notes}.touched (name text, key jsonb, event bigint)"
        )
        await session.executemany(
            f"INSERT INTO {notes}.wanted VALUES ($1, $2::text::jsonb)", [(each.table, each.key) for each in wanted]
        )
        names = ", ".join(table.shadow for table in shadow.tables)
        await session.execute(f"TRUNCATE {names} RESTART IDENTITY")
        for table in shadow.tables:
            if _keyed(table, ignored):
                await note_changes(session, shadow, table, _touching(notes, table))
        await self._replay(shadow, recorded, singly=True)
        rows = await session.fetch(
            f"SELECT w.name, w.key::text, ARRAY(SELECT DISTINCT t.event FROM {notes}.touched t "
            f"WHERE t.name = w.name AND t.key = w.key ORDER BY 1) FROM {notes}.wanted w"
        )
        events = {(row[0], row[1]): tuple(row[2]) for row in rows}
        return [each._replace(events=events.get((each.table, each.key or ""))) for each in found]


def _touching(notes: str, table: ShadowTable) -> str:
    """Return the statements of a trigger that note which event touched a row that is wanted."""
    old, new = (f"jsonb_build_array({', '.join(f'{row}.{column}' for column in table.key)})" for row in ("OLD", "NEW"))
    note = (
        f"INSERT INTO {notes}.touched SELECT w.name, w.key, current_setting('esx.replayed_event')::bigint "
        f"FROM {notes}.wanted w WHERE w.name = TG_ARGV[0] AND w.key = "
    )
    return f"IF TG_OP <> 'INSERT' THEN {note}{old}; END IF; IF TG_OP <> 'DELETE' THEN {note}{new}; END IF;"


def _bare(column: str) -> str:
    """Return the name of a column without the quotes that SQL needs."""
    return column[1:-1].replace('""', '"') if column.startswith('"') else column


def _check_ignored(shadow: Shadow, ignored: Sequence[str]) -> None:
    known = {_bare(column) for table in shadow.tables for column in (*table.columns, *table.key)}
    for column in ignored:
        if column not in known:
            raise InvalidQuery(f"none of the tables has a column {visible(column, limit=100)} to leave out")


def _keyed(table: ShadowTable, ignored: Sequence[str]) -> bool:
    """Return whether rows can be told apart by a primary key that is the same when they are made again."""
    return table.has_key and not any(_bare(column) in ignored for column in table.key)


async def _compare(session: Session, table: ShadowTable, ignored: list[str]) -> tuple[list[RowDifference], int]:
    """Return rows that differ, at most 1,000, and how many there are."""
    row = "to_jsonb(t) - $1::text[] AS row"
    if _keyed(table, ignored):
        key = f"jsonb_build_array({', '.join(f't.{column}' for column in table.key)}) AS key"
        query = f"""
            SELECT coalesce(l.key, s.key)::text, l.row::text, s.row::text, count(*) OVER ()
            FROM (SELECT {key}, {row} FROM {table.live} t) l
            FULL JOIN (SELECT {key}, {row} FROM {table.shadow} t) s ON l.key = s.key
            WHERE l.row IS DISTINCT FROM s.row ORDER BY coalesce(l.key, s.key) LIMIT {_MOST}
        """
    else:
        query = f"""
            SELECT NULL::text, CASE WHEN sum(n) > 0 THEN row::text END, CASE WHEN sum(n) < 0 THEN row::text END,
                   count(*) OVER ()
            FROM (SELECT {row}, 1 AS n FROM {table.live} t UNION ALL SELECT {row}, -1 FROM {table.shadow} t) both_of
            GROUP BY row HAVING sum(n) <> 0 ORDER BY row LIMIT {_MOST}
        """
    rows = await session.fetch(query, ignored)
    return [RowDifference(table.live, each[0], each[1], each[2]) for each in rows], rows[0][3] if rows else 0
