"""Compares a store with the history that a reader has read: the same, another one, or one without some events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import asyncpg

from esx.errors import HistoryChanged
from esx.layouts.layout import Layout
from esx.postgres.values import fetch
from esx.store.feed.history import History, identity, identity_columns
from esx.store.feed.server import Here, Server, look

BEYOND = "that is beyond the head, so the numbers in between will be used again"
"""Why a position cannot belong to this history."""

_NAMED = 5


class DifferenceKind(StrEnum):
    """How a store differs from a history.

    CHANGED: it holds another history, in which numbers may be used again. ERASED: it holds the same history, but events
    were deleted. BEHIND: it is a standby that has not replayed so far; compare again later.
    """

    CHANGED = "changed"
    ERASED = "erased"
    BEHIND = "behind"


@dataclass(frozen=True, slots=True)
class Difference:
    """How a store differs from a history.

    `head` is the store's highest global_seq, drawn or visible. `missing` are the numbers, among the last events that
    were handed out, at which there is no event or another one. `reason` is the difference in words.
    """

    kind: DifferenceKind
    head: int
    missing: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        told = {DifferenceKind.CHANGED: "another history: ", DifferenceKind.ERASED: "the same history, but "}
        return f"{told.get(self.kind, '')}{self.reason}"

    def error(self, position: int, *, projection: str | None = None) -> HistoryChanged:
        """Return the error for a reader at `position`; `projection` is the name of the projection that reads."""
        erased = self.missing if self.kind is DifferenceKind.ERASED else ()
        return HistoryChanged(position, self.head, self.reason, erased, projection)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the store has of a history. `excused` are marks that esx erased, `erased` counts those of the window."""

    head: int
    exact: bool
    count: int
    erased: int
    found: Mapping[int, frozenset[str]]
    excused: frozenset[int]


async def compare(
    connection: asyncpg.Connection,
    layout: Layout,
    history: History,
    position: int | None = None,
    *,
    here: Here | None = None,
    same_run: bool = False,
) -> Difference | None:
    """Return how the store differs from a history; None if it holds that history.

    `position` is where the reader stands, if not where its history ends; what the history has beyond it does not
    matter, as the reader gets that again. `here` is what `look` returned for the connection, if that is known.
    `same_run` says that the whole history was read from this server, which was not restarted since: then an event that
    is gone was deleted.
    """
    here = here or await look(connection, layout)
    at = history.position if position is None else position
    known = _up_to(history, at)
    return _judge(known, at, here, await _read_facts(connection, layout, here, known), same_run=same_run)


async def compare_kept(
    connection: asyncpg.Connection, layout: Layout, here: Here, kept: str | None, position: int
) -> Difference | None:
    """Compare the history kept beside a checkpoint, as JSON; without one, the position must not be beyond the head."""
    try:
        history = History(here.server, position, position, 0) if kept is None else History.from_json(kept)
    except ValueError:
        head = (await _read_facts(connection, layout, here, History(here.server, position, position, 0))).head
        return Difference(DifferenceKind.CHANGED, head, (), "what is kept of its history cannot be read")
    return await compare(connection, layout, history, position, here=here)


def _up_to(history: History, position: int) -> History:
    """Return the part of a history that matters to a reader at `position`."""
    if position >= history.position:
        return history
    marks = tuple(mark for mark in history.marks if mark.global_seq <= position)
    return History(history.server, position, position, 0, marks)


_ERASED = """(
    SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint
    FROM {ledger} x, unnest(x.numbers * int8multirange(int8range($2, $3, '(]'))) r
    WHERE x.last > $2 AND x.first <= $3
)"""

_EXCUSED = "EXISTS (SELECT FROM {ledger} x WHERE n.number BETWEEN x.first AND x.last AND x.numbers @> n.number)"


async def _read_facts(connection: asyncpg.Connection, layout: Layout, here: Here, history: History) -> _Facts:
    table = layout.table
    # The ledger belongs to the table events of its schema only.
    erased, excused = "0::bigint", "false"
    if here.ledger and layout.own:
        erased, excused = (part.format(ledger=layout.ours("erased_events")) for part in (_ERASED, _EXCUSED))
    rows = await fetch(
        connection,
        f"""
        SELECT f.*, m.* FROM (
            SELECT {layout.head()}, {layout.head_exact()}, coalesce((SELECT max(global_seq) FROM {layout.numbers}), 0),
                   (SELECT count(*) FROM {layout.numbers} WHERE global_seq > $2::bigint AND global_seq <= $3::bigint),
                   {erased}
        ) f
        LEFT JOIN (
            SELECT n.number, {excused}, e.global_seq IS NOT NULL, {identity_columns(layout)}
            FROM unnest($1::bigint[]) n(number) LEFT JOIN {table} e ON e.global_seq = n.number
        ) m ON true
        """,
        [mark.global_seq for mark in history.marks],
        history.low,
        history.position,
    )
    drawn, exact, visible, count, noted = rows[0][:5]
    found: dict[int, set[str]] = {}
    for row in rows:
        if row[7]:
            found.setdefault(row[5], set()).add(identity(*row[8:]))
    # The sequence of a standby is ahead of its events.
    head = visible if here.recovering else max(drawn, visible)
    return _Facts(
        head,
        exact and not here.recovering,
        count,
        noted,
        {number: frozenset(identities) for number, identities in found.items()},
        frozenset(row[5] for row in rows if row[6]),
    )


def _judge(history: History, position: int, here: Here, facts: _Facts, *, same_run: bool = False) -> Difference | None:
    head, known, server = facts.head, history.server, here.server
    others = [m.global_seq for m in history.marks if m.identity not in facts.found.get(m.global_seq, {m.identity})]
    gone = [m.global_seq for m in history.marks if m.global_seq not in facts.found.keys() | facts.excused]
    fewer = history.count - facts.count - facts.erased
    lacks = bool(others or gone) or fewer > 0
    same_system = known.system is not None and known.system == server.system
    same_line = same_run or (same_system and known.timeline is not None and known.timeline == server.timeline)
    below = head < position
    if below and not facts.exact and (history.marks or history.count):
        # This user may see the visible events only, and the position can be beyond them.
        below = lacks and not (same_line and (facts.found or facts.count))
    if not (lacks or below):
        return None
    missing = tuple(sorted(others + gone))
    if here.recovering and same_system and not (others or same_run or _later(server, known)):
        return Difference(DifferenceKind.BEHIND, head, missing, "this standby has not replayed so far yet")
    if below:
        return Difference(DifferenceKind.CHANGED, head, missing, BEYOND)
    if others:
        reason = f"{_events(others)} there {_are(others)} not what was handed out before"
        return Difference(DifferenceKind.CHANGED, head, missing, reason)
    lost = _lost(history, facts, gone, fewer)
    if same_line:
        return Difference(DifferenceKind.ERASED, head, missing, lost)
    return Difference(DifferenceKind.CHANGED, head, missing, f"{lost}, and {_where(known, server)}")


def _lost(history: History, facts: _Facts, gone: Sequence[int], fewer: int) -> str:
    if gone and not facts.found and not facts.count:
        return "nothing of what was handed out last is there any more"
    told = f"{_events(gone)} {_are(gone)} there no more" if gone else ""
    if fewer > len(gone):
        total = f"{fewer} of the {history.count} events between {history.low + 1} and {history.position} are gone"
        told = f"{told} ({total})" if told else total
    if gone and facts.found and min(gone) > max(facts.found):
        # No later event is left that would show which of the two it was.
        told += ", erased or lost in a crash"
    return told


def _where(known: Server, server: Server) -> str:
    if known.system is None or server.system is None:
        return "this user may not ask which server it is"
    if known.system != server.system:
        return "this is another server"
    if _later(server, known):
        return f"this server was promoted since then (timeline {server.timeline}, {known.timeline} before)"
    if server.timeline is None or known.timeline is None:
        return "whether this server was promoted since then is not known"
    return f"this server is on timeline {server.timeline}, not on {known.timeline} as before"


def _later(server: Server, known: Server) -> bool:
    return server.timeline is not None and known.timeline is not None and server.timeline > known.timeline


def _events(numbers: Sequence[int]) -> str:
    named = ", ".join(map(str, numbers[:_NAMED]))
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return f"event{'s' if len(numbers) > 1 else ''} {named}{more}"


def _are(numbers: Sequence[int]) -> str:
    return "are" if len(numbers) > 1 else "is"
