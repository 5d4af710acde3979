"""Finds the events of a trail: along an index if there is one, else by reading a bounded number of events."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from esx.errors import InvalidQuery, NotFound
from esx.layouts.layout import Layout
from esx.postgres.values import fetch, fetchrow, fetchval
from esx.store.trail.ids import Id, Ids
from esx.store.trail.queries import as_uuid, columns, correlated_sql, field_index, id_index, trail_event
from esx.store.trail.trail import Scan, Trail, TrailEvent, make_trail
from esx.text import counted, visible

OnProgress = Callable[[int, int], None]
"""Gets how many events were looked at for lack of an index, and how many were found."""


_AT = TrailEvent._fields.index("created_at")
_PAGE = 1000
_CHUNK = 20_000
_LAST_SEQ = 2**63 - 1


def not_found(of: int | str, scan: Scan | None) -> NotFound:
    """Return the error for an event or id that was not found."""
    if isinstance(of, int):
        return NotFound(f"there is no event with global_seq {of}")
    name = visible(of, limit=200)
    if scan is None or scan.whole:
        return NotFound(f"nothing has the id {name}: neither an event, nor any as its correlation id")
    index = f"an index ({' '.join(scan.indexes)}) or " if scan.indexes else ""
    return NotFound(
        f"nothing among the newest {counted(scan.looked, 'event')} has the id {name}; to look further takes {index}"
        "a larger bound",
        certain=False,
    )


class TrailReader:
    """Reads one trail over one connection. `scan` bounds how many events are read where no index helps."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        layout: Layout,
        ids: Ids,
        *,
        limit: int,
        scan: int | None,
        on_progress: OnProgress | None,
    ) -> None:
        self._connection = connection
        self._layout = layout
        self._ids = ids
        self._limit = limit
        self._scan = scan
        self._on_progress = on_progress
        self._select = f"SELECT {columns(layout, ids)} FROM {ids.source}"
        self._looked = 0
        """How many events were looked at, each counted once."""
        self._spent = 0
        """How many were looked at since the bound began to count."""
        self._searched_from = _LAST_SEQ
        """From this number on all events have been looked at already."""
        self._whole = True
        self._unindexed = False
        self._indexes: list[str] = []
        self._found: dict[int, TrailEvent] = {}

    def _advise(self, statement: str) -> None:
        self._unindexed = True
        # Another tool decides on its indexes itself, under its own names.
        if self._layout.foreign is None:
            self._indexes.append(statement)

    async def of_event(self, global_seq: int) -> Trail | None:
        """Return the trail of the event with that number, None if there is none."""
        ids = self._ids
        values = ", ".join(each.value for each in ids.correlation)
        rows = await fetch(
            self._connection,
            f"SELECT ARRAY[{values}], {columns(self._layout, ids)} FROM {ids.source} WHERE e.global_seq = $1::bigint",
            global_seq,
            moment=1 + _AT,
        )
        if not rows:
            return None
        event = trail_event(rows[0][1:])
        known = [(each, value) for each, value in zip(ids.correlation, rows[0][0], strict=True) if value]
        if not known:
            await self._causes_and_effects(event)
            return self._trail(None, None, global_seq)
        shared, value = known[0]
        self._take([event])
        if shared.indexed:
            more = await self._along_index(value, [each for each in ids.correlation if each.indexed])
            return self._trail(shared.name, value, global_seq, more=more)
        self._advise(field_index(self._layout, shared.name))
        await self._around(global_seq, f"{shared.value} = $3", value)
        return self._trail(shared.name, value, global_seq)

    async def of_id(self, text: str) -> Trail | None:
        """Return the trail of a correlation id, or of the event with that id; None if nothing has it.

        What an index can answer is asked first; then the newest events are looked at, as many as the bound allows.
        """
        if "\0" in text:
            raise InvalidQuery(f"{text!r} is no id: PostgreSQL holds no NUL in a text")
        indexed = [each for each in self._ids.correlation if each.indexed]
        if indexed:
            more = await self._along_index(text, indexed)
            if self._found:
                name = indexed[0].name if len(indexed) == 1 else await self._name_of(text, indexed)
                return self._trail(name, text, None, more=more)
        uuid = as_uuid(text)
        if uuid is not None and self._ids.event_id_is:
            number = await fetchval(
                self._connection,
                f"SELECT e.global_seq FROM {self._ids.source} WHERE {self._ids.event_id_is} "
                "ORDER BY e.global_seq LIMIT 1",
                str(uuid),
            )
            if number is not None:
                return await self.of_event(number)
        number = await self._search(text, uuid)
        return None if number is None else await self.of_event(number)

    @property
    def scanned(self) -> Scan | None:
        """What was looked at for lack of an index; None if an index was enough."""
        return Scan(self._looked, self._whole, tuple(self._indexes)) if self._unindexed else None

    # -- with an index ----------------------------------------------------------------------------------------

    async def _along_index(self, value: str, among: Sequence[Id]) -> bool:
        """Take the events with that correlation id, first ones first; return whether there are more."""
        query = correlated_sql(self._layout, self._ids, among)
        after = -1
        while True:
            rows = await fetch(self._connection, query, value, after, _PAGE, moment=_AT)
            self._take(map(trail_event, rows))
            if len(rows) < _PAGE:
                return len(self._found) > self._limit
            if len(self._found) > self._limit:
                return True
            after = rows[-1][0]

    async def _name_of(self, value: str, among: Sequence[Id]) -> str:
        first = min(self._found)
        values = ", ".join(each.value for each in among)
        row = await fetchrow(
            self._connection, f"SELECT {values} FROM {self._ids.source} WHERE e.global_seq = $1::bigint", first
        )
        return next((each.name for each, seen in zip(among, row or (), strict=False) if seen == value), among[0].name)

    async def _causes_and_effects(self, event: TrailEvent) -> None:
        """Take what led to an event without a correlation id, and what it led to."""
        self._take([event])
        ids = self._ids
        number = event.global_seq
        if event.cause is not None:
            if ids.event_id_is or ids.by_number:
                await self._probe_causes(event)
            else:
                self._advise(id_index(self._layout))
                by_id = f"e.{self._layout.event_id}::text = ANY($3) OR " if self._layout.event_id else ""
                await self._walk(
                    number, down=True, condition=f"({by_id}{ids.own} = ANY($3))", ids=[event.cause], follow=_cause_of
                )
        indexed = [each for each in ids.causation if each.indexed]
        if indexed:
            await self._probe_effects(event, indexed)
        else:
            self._advise(field_index(self._layout, ids.causation[0].name))
            effects = f"{ids.cause} = ANY($3)"
            await self._walk(number, down=False, condition=effects, ids=list(event.ids), follow=_ids_of)

    async def _probe_causes(self, event: TrailEvent) -> None:
        fresh = [event]
        while fresh and len(self._found) <= self._limit:
            cause = fresh[0].cause or ""
            uuid = as_uuid(cause)
            if self._ids.by_number and re.fullmatch("[0-9]{1,18}", cause):
                fresh = self._take(await self._events("e.global_seq = $1::bigint", int(cause)))
            elif self._ids.event_id_is and uuid is not None:
                by_id = f"{self._ids.event_id_is} ORDER BY e.global_seq LIMIT 1"
                fresh = self._take(await self._events(by_id, str(uuid)))
            else:
                return

    async def _probe_effects(self, event: TrailEvent, among: Sequence[Id]) -> None:
        ids = list(event.ids)
        while ids and len(self._found) <= self._limit:
            fresh: list[TrailEvent] = []
            for each in among:
                caused = f"{each.value} = ANY($1) LIMIT $2"
                fresh += self._take(await self._events(caused, ids, self._limit + 1))
            ids = [one for event in fresh for one in event.ids]

    # -- without one --------------------------------------------------------------------------------------------

    async def _around(self, number: int, condition: str, value: Any) -> None:
        """Take the events that meet a condition, nearest to `number` first, as events of a trail are close together."""
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
                # The events found may lead to others of the same piece.
                fresh += await self._led_to(low, high, [one for event in fresh for one in follow(event)], down=down)
                ids += [one for event in fresh for one in follow(event)]
            end = edge
            self._report()
        self._whole = False

    async def _led_to(self, low: int, high: int, ids: Iterable[str], *, down: bool) -> list[TrailEvent]:
        """Take the events that `ids` lead to, step by step, within a piece of events that is read once."""
        own, known = self._layout.event_id, self._ids
        rows = await fetch(
            self._connection,
            f"SELECT e.global_seq, {f'e.{own}::text' if own else 'NULL'}, {known.own}, {known.cause} "
            f"FROM {known.source} WHERE e.global_seq BETWEEN $1::bigint AND $2::bigint ORDER BY e.global_seq",
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
        return self._take(await self._events("e.global_seq = ANY($1::bigint[])", list(numbers)))

    async def _search(self, text: str, uuid: UUID | None) -> int | None:
        """Return the newest event with this id or correlation id, among the events that may be looked at."""
        ids = self._ids
        rest = [each for each in ids.correlation if not each.indexed]
        conditions = [f"{each.value} = $3" for each in rest]
        if not ids.by_number:
            conditions.append(f"{ids.own} = $3")
        if uuid is not None and self._layout.event_id and not ids.event_id_is:
            conditions.append(f"e.{self._layout.event_id}::text = lower($3)")
            self._advise(id_index(self._layout))
        if not conditions:
            return None
        if not self._indexes and rest:
            self._advise(field_index(self._layout, rest[0].name))
        self._unindexed = True
        end = _LAST_SEQ
        while self._may_go_on():
            edge = await self._chunk(end, down=True)
            if edge is None:
                return None
            for event in await self._matching(edge, end - 1, f"({' OR '.join(conditions)})", text):
                if uuid is None or str(event.event_id) != str(uuid):
                    self._indexes.clear()
                    self._unindexed = False
                # The bound counts again for the other events of the trail.
                self._spent = 0
                self._searched_from = edge
                return event.global_seq
            end = edge
            self._report()
        self._whole = False
        return None

    async def _chunk(self, end: int, *, down: bool) -> int | None:
        """Return the last number of the next piece of events; None if there are no more."""
        size = _CHUNK if self._scan is None else max(min(_CHUNK, self._scan - self._spent), 1)
        side, order, edge = ("<", "DESC", "min") if down else (">", "ASC", "max")
        row = await fetchrow(
            self._connection,
            f"SELECT {edge}(global_seq), count(*), count(*) FILTER (WHERE global_seq < $3::bigint) "
            f"FROM (SELECT global_seq FROM {self._layout.numbers} "
            f"WHERE global_seq {side} $1::bigint ORDER BY global_seq {order} LIMIT $2) piece",
            end,
            size,
            self._searched_from,
        )
        assert row is not None
        self._spent += row[1]
        self._looked += row[2]
        return None if row[0] is None else int(row[0])

    async def _matching(self, low: int, high: int, condition: str, value: Any) -> list[TrailEvent]:
        within = f"e.global_seq BETWEEN $1::bigint AND $2::bigint AND {condition} ORDER BY e.global_seq DESC LIMIT $4"
        return await self._events(within, low, high, value, self._limit + 1)

    # -- common ---------------------------------------------------------------------------------------------------

    async def _events(self, condition: str, *arguments: Any) -> list[TrailEvent]:
        rows = await fetch(self._connection, f"{self._select} WHERE {condition}", *arguments, moment=_AT)
        return list(map(trail_event, rows))

    def _may_go_on(self) -> bool:
        return (self._scan is None or self._spent < self._scan) and len(self._found) <= self._limit

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


def _cause_of(event: TrailEvent) -> Iterable[str]:
    return () if event.cause is None else (event.cause,)


def _ids_of(event: TrailEvent) -> Iterable[str]:
    return event.ids
