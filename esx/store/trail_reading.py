"""Finding the events of a trail: along an index where there is one, else by reading events within a bound."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from esx.store.careful import fetch, fetchrow, fetchval
from esx.store.errors import InvalidQuery
from esx.store.trail import Scan, Trail, TrailEvent, make_trail, same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import asyncpg

    from esx.store.layout import Layout
    from esx.store.trail import FieldNames

    OnProgress = Callable[[int, int], None]
    """Is told how many events have been looked at for lack of an index, and how many of them belong to the trail."""

_AT = TrailEvent._fields.index("created_at")
_PAGE = 1000
_CHUNK = 20_000
_LAST_SEQ = 2**63 - 1
_SMALL = 8192
_PREVIEW = 400
_EXPRESSION = re.compile(r"\(?metadata ->> '((?:[^']|'')*)'::text\)?")


@dataclass(frozen=True, slots=True)
class Indexed:
    """What can be found without a scan: the metadata fields with an index of their own, and whether event ids are."""

    fields: frozenset[str]
    event_id: bool


class TrailReader:
    """Reads one trail over one connection. `scan` bounds how many events are read where no index helps."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        layout: Layout,
        fields: FieldNames,
        *,
        limit: int,
        scan: int | None,
        on_progress: OnProgress | None,
    ) -> None:
        self._connection = connection
        self._layout = layout
        self._fields = fields
        self._limit = limit
        self._scan = scan
        self._on_progress = on_progress
        self._select = f"SELECT {_columns(layout, fields)} FROM {layout.table} e"
        self._looked = 0
        self._whole = True
        self._indexes: list[str] = []
        self._found: dict[int, TrailEvent] = {}

    async def of_event(self, global_seq: int) -> Trail | None:
        """Return the trail of the event with that number, None if there is none."""
        values = ", ".join(f"e.metadata ->> {_literal(name)}" for name in self._fields.correlation)
        rows = await fetch(
            self._connection,
            f"SELECT ARRAY[{values}], {_columns(self._layout, self._fields)} FROM {self._layout.table} e "
            "WHERE e.global_seq = $1",
            global_seq,
            moment=1 + _AT,
        )
        if not rows:
            return None
        event = TrailEvent._make(rows[0][1:])
        known = [(name, value) for name, value in zip(self._fields.correlation, rows[0][0], strict=True) if value]
        indexed = await read_indexes(self._connection, self._layout)
        if not known:
            await self._causes_and_effects(event, indexed)
            return self._trail(None, None, global_seq)
        name, value = known[0]
        self._take([event])
        if name in indexed.fields:
            more = await self._along_index(value, sorted(indexed.fields.intersection(self._fields.correlation)))
            return self._trail(name, value, global_seq, more=more)
        self._indexes.append(_field_index(self._layout, name))
        await self._around(global_seq, f"(e.metadata ->> {_literal(name)}) = $3", value)
        return self._trail(name, value, global_seq)

    async def of_id(self, text: str) -> Trail | None:
        """Return the trail of a correlation id, or of the event with that id; None if nothing has it.

        What an index can answer is asked first; then the newest events are looked at, as many as the bound allows.
        """
        if "\0" in text:
            raise InvalidQuery(f"{text!r} is no id: PostgreSQL holds no NUL in a text")
        indexed = await read_indexes(self._connection, self._layout)
        names = sorted(indexed.fields.intersection(self._fields.correlation))
        if names:
            more = await self._along_index(text, names)
            if self._found:
                name = names[0] if len(names) == 1 else await self._name_of(text, names)
                return self._trail(name, text, None, more=more)
        uuid = as_uuid(text)
        if uuid is not None and indexed.event_id and self._layout.event_id:
            number = await fetchval(
                self._connection,
                f"SELECT e.global_seq FROM {self._layout.table} e WHERE e.{self._layout.event_id} = $1 "
                "ORDER BY e.global_seq LIMIT 1",
                uuid,
            )
            if number is not None:
                return await self.of_event(number)
        number = await self._search(text, uuid, indexed)
        return None if number is None else await self.of_event(number)

    @property
    def scanned(self) -> Scan | None:
        """What was looked at for lack of an index; None if nothing was."""
        return Scan(self._looked, self._whole, tuple(self._indexes)) if self._indexes else None

    # -- with an index ----------------------------------------------------------------------------------------

    async def _along_index(self, value: str, names: Sequence[str]) -> bool:
        """Take the events with that correlation id, first ones first; return whether there are more."""
        query = correlated_sql(self._layout, self._fields, names)
        after = 0
        while True:
            rows = await fetch(self._connection, query, value, after, _PAGE, moment=_AT)
            self._take(map(TrailEvent._make, rows))
            if len(rows) < _PAGE:
                return len(self._found) > self._limit
            if len(self._found) > self._limit:
                return True
            after = rows[-1][0]

    async def _name_of(self, value: str, names: Sequence[str]) -> str:
        first = min(self._found)
        columns = ", ".join(f"(e.metadata ->> {_literal(name)})" for name in names)
        row = await fetchrow(
            self._connection, f"SELECT {columns} FROM {self._layout.table} e WHERE e.global_seq = $1", first
        )
        return next((name for name, seen in zip(names, row or (), strict=False) if seen == value), names[0])

    async def _causes_and_effects(self, event: TrailEvent, indexed: Indexed) -> None:
        """Take what led to an event without a correlation id, and what it led to."""
        self._take([event])
        fields = self._fields
        cause = _first_of(fields.causation)
        own = _first_of(fields.identity)
        number = event.global_seq
        if event.cause is not None:
            if indexed.event_id and self._layout.event_id:
                await self._probe_causes(event)
            else:
                self._indexes.append(_id_index(self._layout))
                by_id = f"e.{self._layout.event_id}::text = ANY($3) OR " if self._layout.event_id else ""
                await self._walk(
                    number, down=True, condition=f"({by_id}{own} = ANY($3))", ids=[event.cause], follow=_cause_of
                )
        present = [name for name in fields.causation if name in indexed.fields]
        if present:
            await self._probe_effects(event, present)
        else:
            self._indexes.append(_field_index(self._layout, fields.causation[0]))
            await self._walk(number, down=False, condition=f"{cause} = ANY($3)", ids=list(event.ids), follow=_ids_of)

    async def _probe_causes(self, event: TrailEvent) -> None:
        wanted = as_uuid(event.cause or "")
        while wanted is not None and len(self._found) <= self._limit:
            rows = await fetch(
                self._connection,
                f"{self._select} WHERE e.{self._layout.event_id} = $1 ORDER BY e.global_seq LIMIT 1",
                wanted,
                moment=_AT,
            )
            fresh = self._take(map(TrailEvent._make, rows))
            wanted = as_uuid(fresh[0].cause or "") if fresh else None

    async def _probe_effects(self, event: TrailEvent, names: Sequence[str]) -> None:
        ids = list(event.ids)
        while ids and len(self._found) <= self._limit:
            fresh: list[TrailEvent] = []
            for name in names:
                rows = await fetch(
                    self._connection,
                    f"{self._select} WHERE (e.metadata ->> {_literal(name)}) = ANY($1) LIMIT $2",
                    ids,
                    self._limit + 1,
                    moment=_AT,
                )
                fresh += self._take(map(TrailEvent._make, rows))
            ids = [one for event in fresh for one in event.ids]

    # -- without one --------------------------------------------------------------------------------------------

    async def _around(self, number: int, condition: str, value: Any) -> None:
        """Take the events that meet a condition, nearest to `number` first: what belongs together is close together."""
        ends = {True: number, False: number}
        open_ends = [False, True]
        while open_ends and self._may_go_on():
            for down in list(open_ends):
                edge = await self._chunk(ends[down], down=down)
                if edge is None:
                    open_ends.remove(down)
                    continue
                low, high = (edge, ends[down] - 1) if down else (ends[down], edge)
                self._take(await self._matching(low, high, condition, value))
                ends[down] = edge
                self._report()
                if not self._may_go_on():
                    break
        self._whole = self._whole and not open_ends

    async def _walk(
        self,
        number: int,
        *,
        down: bool,
        condition: str,
        ids: list[str],
        follow: Callable[[TrailEvent], Iterable[str]],
    ) -> None:
        """Go from `number` towards older (`down`) or newer events, following `ids` from event to event."""
        end = number
        while self._may_go_on():
            edge = await self._chunk(end, down=down)
            if edge is None:
                return
            low, high = (edge, end - 1) if down else (end, edge)
            fresh = self._take(await self._matching(low, high, condition, ids))
            if fresh:
                # What is found may lead on within the same events.
                fresh += await self._led_to(low, high, [one for event in fresh for one in follow(event)], down=down)
                ids += [one for event in fresh for one in follow(event)]
            end = edge
            self._report()
        self._whole = False

    async def _led_to(self, low: int, high: int, ids: Iterable[str], *, down: bool) -> list[TrailEvent]:
        """Take what `ids` lead to, step by step, within a piece of events, which is read once."""
        own, fields = self._layout.event_id, self._fields
        rows = await fetch(
            self._connection,
            f"SELECT e.global_seq, {f'e.{own}::text' if own else 'NULL'}, {_first_of(fields.identity)}, "
            f"{_first_of(fields.causation)} FROM {self._layout.table} e WHERE e.global_seq BETWEEN $1 AND $2 "
            "ORDER BY e.global_seq",
            low,
            high,
        )
        steps: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
        for number, event_id, own_id, cause in rows:
            names = tuple(one for one in (event_id, own_id) if one is not None)
            causes = () if cause is None else (cause,)
            for one in names if down else causes:
                steps.setdefault(one, []).append((number, causes if down else names))
        waiting = list(ids)
        numbers: set[int] = set()
        while waiting and len(self._found) + len(numbers) <= self._limit:
            for number, on in steps.pop(waiting.pop(), ()):
                if number not in numbers and number not in self._found:
                    numbers.add(number)
                    waiting += on
        found = await fetch(self._connection, f"{self._select} WHERE e.global_seq = ANY($1)", list(numbers), moment=_AT)
        return self._take(map(TrailEvent._make, found))

    async def _search(self, text: str, uuid: UUID | None, indexed: Indexed) -> int | None:
        """Return the newest event that has the id, or carries it as its correlation id, as far as one may look."""
        fields = self._fields
        rest = [name for name in fields.correlation if name not in indexed.fields]
        conditions = [f"(e.metadata ->> {_literal(name)}) = $3" for name in rest]
        conditions.append(f"{_first_of(fields.identity)} = $3")
        if uuid is not None and self._layout.event_id:
            conditions.append(f"e.{self._layout.event_id}::text = lower($3)")
            if not indexed.event_id:
                self._indexes.append(_id_index(self._layout))
        if not self._indexes and rest:
            self._indexes.append(_field_index(self._layout, rest[0]))
        end = _LAST_SEQ
        while self._may_go_on():
            edge = await self._chunk(end, down=True)
            if edge is None:
                return None
            for event in await self._matching(edge, end - 1, f"({' OR '.join(conditions)})", text):
                if uuid is None or event.event_id != uuid:
                    self._indexes.clear()
                if self._scan is not None:
                    # Finding the event is one thing, finding the others another.
                    self._scan += self._looked
                return event.global_seq
            end = edge
            self._report()
        self._whole = False
        return None

    async def _chunk(self, end: int, *, down: bool) -> int | None:
        """Return the last number of the next piece of events to look at; None if there are none."""
        size = _CHUNK if self._scan is None else max(min(_CHUNK, self._scan - self._looked), 1)
        side, order, edge = ("<", "DESC", "min") if down else (">", "ASC", "max")
        row = await fetchrow(
            self._connection,
            f"SELECT {edge}(global_seq), count(*) FROM (SELECT global_seq FROM {self._layout.table} "
            f"WHERE global_seq {side} $1 ORDER BY global_seq {order} LIMIT $2) piece",
            end,
            size,
        )
        assert row is not None
        self._looked += row[1]
        return None if row[0] is None else int(row[0])

    async def _matching(self, low: int, high: int, condition: str, value: Any) -> list[TrailEvent]:
        rows = await fetch(
            self._connection,
            f"{self._select} WHERE e.global_seq BETWEEN $1 AND $2 AND {condition} ORDER BY e.global_seq DESC LIMIT $4",
            low,
            high,
            value,
            self._limit + 1,
            moment=_AT,
        )
        return list(map(TrailEvent._make, rows))

    # -- common ---------------------------------------------------------------------------------------------------

    def _may_go_on(self) -> bool:
        return (self._scan is None or self._looked < self._scan) and len(self._found) <= self._limit

    def _take(self, events: Iterable[TrailEvent]) -> list[TrailEvent]:
        """Keep events and return those that are new."""
        fresh = [event for event in events if event.global_seq not in self._found]
        self._found.update((event.global_seq, event) for event in fresh)
        return fresh

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._looked, len(self._found))

    def _trail(self, field: str | None, value: str | None, anchor: int | None, *, more: bool = False) -> Trail:
        kept = sorted(self._found.values())[: self._limit]
        return make_trail(
            kept,
            field=field,
            correlation=value,
            anchor=anchor,
            more=more or len(self._found) > self._limit,
            scan=self.scanned,
        )


def correlated_sql(layout: Layout, fields: FieldNames, names: Sequence[str]) -> str:
    """Return the query for a page of the events with correlation id $1 after global_seq $2, at most $3 of them.

    Each of `names` should have an index on the field and global_seq: then a page touches its own rows only.
    """
    pages = [
        f"(SELECT {_columns(layout, fields)} FROM {layout.table} e "
        f"WHERE (e.metadata ->> {_literal(name)}) = $1 AND e.global_seq > $2 ORDER BY e.global_seq LIMIT $3)"
        for name in names
    ]
    if len(pages) == 1:
        return pages[0]
    return f"SELECT * FROM ({' UNION '.join(pages)}) page ORDER BY 1 LIMIT $3"


async def read_indexes(connection: asyncpg.Connection, layout: Layout) -> Indexed:
    """Return which metadata fields, and whether event ids, can be looked up by an index."""
    rows = await connection.fetch(
        f"""
        SELECT CASE WHEN i.indkey[0] = 0 THEN pg_get_indexdef(i.indexrelid, 1, true) END AS expression,
               pg_get_expr(i.indpred, i.indrelid, true) AS predicate, a.attname
        FROM pg_index i LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attnum > 0
        JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
        WHERE i.indrelid = {layout.base_oid} AND i.indisvalid AND m.amname = 'btree'
        """
    )
    fields = set()
    for expression, predicate, _ in rows:
        match = _EXPRESSION.fullmatch(expression or "")
        # Another predicate would leave out events that belong to the trail.
        if match and predicate in (None, f"{expression} IS NOT NULL", f"({expression}) IS NOT NULL"):
            fields.add(match.group(1).replace("''", "'"))
    event_id = layout.event_id is not None and any(
        column == layout.event_id and predicate is None for _, predicate, column in rows
    )
    return Indexed(frozenset(fields), event_id)


def as_uuid(text: str) -> UUID | None:
    """Return the UUID that `text` is, if it is written as one."""
    try:
        uuid = UUID(text)
    except ValueError:
        return None
    return uuid if str(uuid) == same(text) else None


def _columns(layout: Layout, fields: FieldNames) -> str:
    event_id = "NULL::uuid" if layout.event_id is None else f"e.{layout.event_id}"
    return (
        "e.global_seq, e.stream_id, e.stream_seq, e.event_type, "
        f"CASE WHEN pg_column_size(e.data) <= {_SMALL} THEN left(e.data::text, {_PREVIEW}) END, "
        f"e.created_at, {event_id}, {_first_of(fields.identity)}, {_first_of(fields.causation)}"
    )


def _first_of(names: Sequence[str]) -> str:
    values = ", ".join(f"nullif(e.metadata ->> {_literal(name)}, '')" for name in names)
    return f"coalesce({values})" if names else "NULL::text"


def _field_index(layout: Layout, name: str) -> str:
    value = f"metadata ->> {_literal(name)}"
    return f"CREATE INDEX {layout.index_on} (({value}), global_seq) WHERE ({value}) IS NOT NULL;"


def _id_index(layout: Layout) -> str:
    column = layout.event_id or "event_id"
    if layout.kind == "p":  # where a unique one would need the columns that it is partitioned by
        return f"CREATE INDEX {layout.index_on} ({column});"
    on = layout.index_on.replace(" ON ", " events_event_id_key ON ", 1)
    return f"CREATE UNIQUE INDEX {on} ({column});"


def _literal(name: str) -> str:
    # Standard strings: a backslash is itself.
    return "'" + name.replace("'", "''") + "'"


def _cause_of(event: TrailEvent) -> Iterable[str]:
    return () if event.cause is None else (event.cause,)


def _ids_of(event: TrailEvent) -> Iterable[str]:
    return event.ids
