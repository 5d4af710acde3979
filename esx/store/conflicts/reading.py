"""Reads the table conflicts: which pairs of types collide, on which streams, when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from esx.errors import InvalidQuery
from esx.filters import Filter
from esx.layouts.layout import Layout
from esx.postgres.session import Session
from esx.postgres.values import fetch, fetchrow
from esx.store.conflicts.commuting import Commuting
from esx.store.conflicts.conflict import (
    KEPT,
    LOOKED_AT,
    NOBODY,
    SLOTS,
    TYPES,
    ConflictPair,
    ConflictSurvey,
    RecordedConflict,
)
from esx.store.conflicts.recording import check_there
from esx.store.filter_sql import matches, member_pattern

MOST_PAIRS = 1000
"""How many pairs are told apart; rarer ones are left out."""
MOST_ROWS = 10_000
"""How many single conflicts are read at most."""
_STREAMS = 5
_MOST_GROUPS = 50_000
_LOST = "coalesce(c.lost_types[1], '')"
_WON = "coalesce(c.won_types[1], '')"
_SIDES = {"user": ("c.lost_user", "c.won_user"), "corr": ("c.lost_correlation", "c.won_correlation")}


async def survey(connection: Session, layout: Layout, where: Filter, commuting: Commuting) -> ConflictSurvey:
    """Return the pairs of types that collided. Raises InvalidQuery and StoreFailed."""
    await check_there(connection, layout)
    conditions, arguments = _conditions(where)
    table = layout.ours("conflicts")
    rows_of = f"FROM {table} c WHERE {conditions}"
    whole = await fetchrow(
        connection,
        f"SELECT min(c.at), max(c.at), count(*), coalesce(sum(c.stands_for::float8), 0), "
        f"coalesce(bool_and(c.stands_for = 1), true), (SELECT min(at) FROM {table}), "
        f"(SELECT count(*) FROM (SELECT FROM {table} LIMIT {KEPT}) t), "
        f"coalesce(sum(c.stands_for::float8) FILTER (WHERE starts_with(c.stream_id, 'load-')), 0) "
        f"{rows_of}",
        *arguments,
    )
    first, last, recorded, total, exact, oldest, held, by_load = whole
    if not recorded:
        return ConflictSurvey((), 0, True, 0, None, None, False, oldest, held >= KEPT)
    length = max((last - first).total_seconds(), 1e-6)
    at = len(arguments)
    # What is not looked at cannot be said to commute: too many events won, or too many types.
    known = (
        f"coalesce(c.actual - c.expected <= {LOOKED_AT}, true) AND cardinality(c.lost_types) < {TYPES} "
        f"AND cardinality(c.won_types) < {TYPES}"
    )
    slot = (
        f"least(floor(extract(epoch FROM c.at - ${at + 1}::timestamptz)::float8 / ${at + 2}::float8 * {SLOTS}), "
        f"{SLOTS - 1})::int"
    )
    groups = await fetch(
        connection,
        f"SELECT c.lost_types, c.won_types, {known}, {slot}, sum(c.stands_for::float8), count(*), "
        f"bool_and(c.stands_for = 1), min(c.at), max(c.at) {rows_of} GROUP BY 1, 2, 3, 4 "
        f"ORDER BY 5 DESC LIMIT {_MOST_GROUPS}",
        *arguments,
        first,
        length,
    )
    pairs: dict[tuple[str, str], _Pair] = defaultdict(_Pair)
    for lost, won, looked, part, weight, count, alone, begin, end in groups:
        pair = pairs[lost[0] if lost else NOBODY, won[0] if won else NOBODY]
        pair.add(weight, count, alone, part, begin, end)
        if commuting and looked and commuting.all(lost, won):
            pair.commuting += weight
    ranked = sorted(pairs.items(), key=lambda item: (-item[1].weight, item[0]))
    shown = ranked[:MOST_PAIRS]
    hottest = await _streams(connection, rows_of, arguments, [key for key, _ in shown])
    return ConflictSurvey(
        tuple(pair.made(*key, *hottest.get(key, ((), 0)), told=bool(commuting)) for key, pair in shown),
        round(total),
        exact,
        recorded,
        first,
        last,
        len(ranked) > len(shown) or len(groups) >= _MOST_GROUPS,
        oldest,
        held >= KEPT,
        round(by_load),
    )


@dataclass(slots=True)
class _Pair:
    weight: float = 0.0
    recorded: int = 0
    exact: bool = True
    commuting: float = 0.0
    first: datetime | None = None
    last: datetime | None = None
    times: list[float] = field(default_factory=lambda: [0.0] * SLOTS)

    def add(self, weight: float, count: int, exact: bool, slot: int, first: datetime, last: datetime) -> None:
        self.weight += weight
        self.recorded += count
        self.exact = self.exact and exact
        self.times[max(slot, 0)] += weight
        self.first = first if self.first is None else min(self.first, first)
        self.last = last if self.last is None else max(self.last, last)

    def made(
        self, lost: str, won: str, streams: tuple[tuple[str, int], ...], stream_count: int, *, told: bool
    ) -> ConflictPair:
        assert self.first is not None
        assert self.last is not None
        return ConflictPair(
            lost,
            won,
            round(self.weight),
            self.exact,
            self.recorded,
            streams,
            stream_count,
            self.first,
            self.last,
            tuple(map(round, self.times)),
            round(self.commuting) if told else None,
        )


async def _streams(
    connection: Session, rows_of: str, arguments: Sequence[object], pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], tuple[tuple[tuple[str, int], ...], int]]:
    """Return, by pair, the streams with the most conflicts, and how many streams there are."""
    at = len(arguments)
    rows = await fetch(
        connection,
        f"""
        SELECT lost, won, stream_id, weight, streams FROM (
            SELECT {_LOST} AS lost, {_WON} AS won, c.stream_id, sum(c.stands_for::float8) AS weight,
                   row_number() OVER (PARTITION BY {_LOST}, {_WON} ORDER BY sum(c.stands_for::float8) DESC, c.stream_id)
                       AS place,
                   count(*) OVER (PARTITION BY {_LOST}, {_WON}) AS streams
            {rows_of} AND EXISTS (SELECT FROM unnest(${at + 1}::text[], ${at + 2}::text[]) p (lost, won)
                                  WHERE p.lost = {_LOST} AND p.won = {_WON})
            GROUP BY 1, 2, 3) s
        WHERE place <= {_STREAMS} ORDER BY lost, won, place
        """,
        *arguments,
        [lost for lost, _ in pairs],
        [won for _, won in pairs],
    )
    found: dict[tuple[str, str], tuple[tuple[tuple[str, int], ...], int]] = {}
    for lost, won, stream_id, weight, streams in rows:
        before = found.get((lost, won), ((), 0))[0]
        found[lost, won] = ((*before, (stream_id, round(weight))), streams)
    return found


async def newest(
    connection: Session, layout: Layout, where: Filter, limit: int, commuting: Commuting
) -> list[RecordedConflict]:
    """Return single conflicts, the newest first. Raises InvalidQuery and StoreFailed."""
    await check_there(connection, layout)
    if not 0 <= limit <= MOST_ROWS:
        raise InvalidQuery(f"the limit is {limit}: use a number from 0 to {MOST_ROWS:,}")
    conditions, arguments = _conditions(where)
    rows = await fetch(
        connection,
        "SELECT c.at, c.stream_id, c.expected, c.actual, c.lost_types, c.lost_user, c.lost_correlation, c.won_types, "
        f"c.won_seq, c.won_user, c.won_correlation, c.stands_for FROM {layout.ours('conflicts')} c "
        f"WHERE {conditions} ORDER BY c.id DESC LIMIT {limit}",
        *arguments,
    )
    return [_conflict(row, commuting) for row in rows]


def _conflict(row: Sequence[Any], commuting: Commuting) -> RecordedConflict:
    at, stream_id, expected, actual, lost, lost_user, lost_correlation, won, won_seq, *rest = row
    commutes = None
    if commuting:
        looked = expected is None or actual - expected <= LOOKED_AT
        commutes = looked and len(lost) < TYPES and len(won) < TYPES and commuting.all(lost, won)
    won_user, won_correlation, stands_for = rest
    return RecordedConflict(
        at,
        stream_id,
        expected,
        actual,
        tuple(lost),
        lost_user,
        lost_correlation,
        tuple(won),
        won_seq,
        won_user,
        won_correlation,
        float(stands_for),
        commutes,
    )


def _conditions(where: Filter) -> tuple[str, list[object]]:
    """Return the condition on a conflict ``c``: a type, a user or a correlation id may be that of either side."""
    if where.paths or where.mentions:
        raise InvalidQuery("conflicts keep no data and no metadata: use stream:, type:, user:, corr:, since: or until:")
    conditions = ["true"]
    arguments: list[object] = []

    def add(value: object) -> int:
        arguments.append(value)
        return len(arguments)

    if (pattern := where.stream_pattern) is not None:
        conditions.append(matches("c.stream_id", pattern, add(pattern.text)))
    if (pattern := where.type_pattern) is not None:
        one = matches("t.name", pattern, add(pattern.text))
        conditions.append(f"EXISTS (SELECT FROM unnest(c.lost_types || c.won_types) t (name) WHERE {one})")
    for member in where.members:
        pattern = member_pattern(member)
        parameter = add(pattern.text)
        either = " OR ".join(f"coalesce({matches(side, pattern, parameter)}, false)" for side in _SIDES[member.key])
        conditions.append(f"({either})")
    for operator, moment in ((">=", where.since), ("<", where.until)):
        if moment is not None:
            conditions.append(f"c.at {operator} ${add(moment)}::timestamptz")
    return " AND ".join(conditions), arguments
