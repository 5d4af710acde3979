"""Whose position it is: what a reader keeps beside its position, to know the history again that it has read.

A position is a bare number, and numbers are used again: after TRUNCATE ... RESTART IDENTITY, a restored dump, a crash
without synchronous commits, or a failover to a standby that lagged behind. So a reader also keeps

- the last few events that it was given: their numbers, and who they are;
- how many events were visible in the window of numbers before its position. Below a safe position none can appear, so
  there may be fewer only if some are gone. That finds a lost event that is not among the last few: the order of WAL is
  not that of global_seq, so a promoted standby can hold number 100 and lack 95;
- the server's system identifier and timeline, where they may be asked. They do not decide by themselves, since a
  logical copy has others; but only on the same timeline can what is missing be taken for erased.

Events that esx itself erased are noted by number in the table erased_events, and are not missed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from esx.store.careful import fetch
from esx.store.errors import HistoryChanged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from esx.store.layout import Layout
    from esx.store.model import Event

MARKS = 16
"""How many of the last events are kept."""
BEYOND = "that is beyond the head, so the numbers in between will be used again"
"""Why a position is none of this history."""
WINDOW = 10_000
"""How many numbers before a position are counted at most."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NAMED = 5


class Mark(NamedTuple):
    """One event that was handed out: its number, and who it is.

    `identity` is its event_id; without one, a hash of stream_id, stream_seq and created_at.
    """

    global_seq: int
    identity: str

    @classmethod
    def of(cls, event: Event) -> Mark:
        """Return the mark of an event."""
        event_id = None if event.event_id is None else str(event.event_id)
        return cls(
            event.global_seq, _identity(event_id, event.stream_id, event.stream_seq, _microseconds(event.created_at))
        )


class Server(NamedTuple):
    """Which server it is: None for what this user may not ask.

    `system` is the identifier that initdb gave it, which its standbys share; `timeline` grows with each promotion.
    """

    system: int | None
    timeline: int | None


@dataclass(frozen=True, slots=True)
class History:
    """What is known of the history up to a position.

    Of the numbers above `low`, up to `position`, at least `count` were visible events; `upper` of them above `middle`.
    `marks` are the last events handed out, in ascending order, at most 16.
    """

    server: Server
    position: int
    low: int
    count: int
    marks: tuple[Mark, ...] = ()
    middle: int | None = None
    upper: int = 0

    def moved(self, events: Sequence[Event], position: int, passed: int) -> History:
        """Return what is known at a later `position`, once `events` were handed out.

        `passed` is how many visible events lie between the two, whether they were handed out or not; a smaller number
        does no harm. The window then begins some 5,000 to 10,000 numbers back, if so many have been seen.
        """
        marks = (*self.marks, *(Mark.of(event) for event in events[-MARKS:]))[-MARKS:]
        low, count = self.low, self.count + passed
        middle, upper = (self.position, 0) if self.middle is None else (self.middle, self.upper)
        upper += passed
        if position - low > WINDOW:
            low, count = middle, upper
        if position - low > WINDOW:
            # How many of those passed lie in it is known of those only that were handed out.
            low = middle = position - WINDOW
            count = upper = sum(event.global_seq > low for event in events)
        if middle <= low and position - low >= WINDOW // 2:
            middle, upper = position, 0
        return History(self.server, position, low, count, marks, middle, upper)

    def on(self, server: Server) -> History:
        """Return the same history as read from `server`, which was found to hold all of it."""
        return replace(self, server=server)

    def to_json(self) -> str:
        """Return it as a JSON object of less than 2 kB."""
        return json.dumps(
            {
                "system": self.server.system,
                "timeline": self.server.timeline,
                "position": self.position,
                "low": self.low,
                "count": self.count,
                "middle": self.middle,
                "upper": self.upper,
                "marks": self.marks,
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> History:
        """Return what `to_json` wrote; keys that are not known are passed over.

        Raises ValueError for anything else.
        """
        try:
            found = json.loads(text)
            position, low = _number(found["position"]), _number(found["low"])
            marks = tuple(Mark(_number(number), _text(identity)) for number, identity in found["marks"])
            if low > position:
                raise ValueError(f"{low} is above {position}")
            return cls(
                Server(_known(found["system"]), _known(found["timeline"])),
                position,
                low,
                _number(found["count"]),
                marks[-MARKS:],
                _known(found.get("middle")),
                _number(found.get("upper", 0)),
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"this is no history as esx keeps it: {text[:100]!r}") from error


class Kind(Enum):
    """How a store differs from a history.

    CHANGED: it holds another history; its numbers may be used again. ERASED: it is the same one, without events that
    were in it. BEHIND: a standby that has not replayed so far: compare again later, until this is gone.
    """

    CHANGED = "changed"
    ERASED = "erased"
    BEHIND = "behind"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Difference:
    """What a store lacks of a history.

    `head` is the store's highest global_seq, handed out or visible; `missing` are numbers of the last events handed out
    that are not there or are other events; `reason` says it in words.
    """

    kind: Kind
    head: int
    missing: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        told = {Kind.CHANGED: "another history: ", Kind.ERASED: "the same history, but "}
        return f"{told.get(self.kind, '')}{self.reason}"

    def error(self, position: int, *, projection: str | None = None) -> HistoryChanged:
        """Return the error for a reader at `position`; `projection` is its name if it is one."""
        erased = self.missing if self.kind is Kind.ERASED else ()
        return HistoryChanged(position, self.head, self.reason, erased, projection)


@dataclass(frozen=True, slots=True)
class Here:
    """What a connection leads to. `recovering`: a standby. `ledger`: esx notes there which events it erased."""

    server: Server
    recovering: bool
    ledger: bool


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is there of a history. `excused` are numbers of marks that esx erased, `erased` how many in the window."""

    head: int
    exact: bool
    count: int
    erased: int
    found: Mapping[int, frozenset[str]]
    excused: frozenset[int]


async def read_server(connection: asyncpg.Connection, layout: Layout) -> Server:
    """Return which server a connection leads to."""
    return (await look(connection, layout)).server


async def look(connection: asyncpg.Connection, layout: Layout) -> Here:
    """Return what a connection leads to.

    What may be asked is asked first: a statement that is refused would end the transaction around it.
    """
    rights = await connection.fetchrow(_RIGHTS, layout.ours("erased_events"))
    assert rights is not None
    recovering, ledger, may_system, may_checkpoint, may_recovery, may_wal = rights
    system = "(SELECT system_identifier FROM pg_control_system())" if may_system else None
    timeline = None
    if not recovering:
        # The control file tells of a promotion only after the next checkpoint, the name of the WAL file at once.
        timeline = "('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)" if may_wal else None
    elif may_recovery and may_checkpoint:
        # As far as it has certainly replayed: of an earlier timeline then nothing is still to come.
        timeline = (
            "coalesce(nullif((SELECT min_recovery_end_timeline FROM pg_control_recovery()), 0), "
            "(SELECT timeline_id FROM pg_control_checkpoint()))"
        )
    return Here(Server(await _answer(connection, system), await _answer(connection, timeline)), recovering, ledger)


def _may(function: str) -> str:
    return f"coalesce(has_function_privilege(to_regprocedure('pg_catalog.{function}')::oid, 'EXECUTE'), false)"


_RIGHTS = f"""
    SELECT pg_is_in_recovery(), coalesce(has_table_privilege(ledger.attrelid, 'SELECT'), false),
           {_may("pg_control_system()")}, {_may("pg_control_checkpoint()")}, {_may("pg_control_recovery()")},
           {_may("pg_current_wal_lsn()")} AND {_may("pg_walfile_name(pg_lsn)")}
    FROM (SELECT 1) one
    LEFT JOIN pg_attribute ledger ON ledger.attrelid = to_regclass($1) AND ledger.attname = 'numbers'
                                 AND ledger.atttypid = to_regtype('pg_catalog.int8multirange')
"""


async def _answer(connection: asyncpg.Connection, question: str | None) -> int | None:
    """Return a number; None where there is nothing to ask, or where the server will not tell, as some hosted ones."""
    if question is None:
        return None
    # A refusal must not end the transaction around it, which need not be one of asyncpg's making.
    within = connection.is_in_transaction()
    if within:
        await connection.execute("SAVEPOINT esx_asked")
    try:
        answer: int | None = await connection.fetchval(f"SELECT {question}::bigint")
    except _REFUSALS:
        if within:
            await connection.execute("ROLLBACK TO SAVEPOINT esx_asked")
        return None
    if within:
        await connection.execute("RELEASE SAVEPOINT esx_asked")
    return answer


_REFUSALS = (
    asyncpg.FeatureNotSupportedError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.UndefinedFunctionError,
)


async def history_at(connection: asyncpg.Connection, layout: Layout, position: int) -> History:
    """Return what is visible up to a position now, for a reader that begins there: all of it is taken on trust."""
    here = await look(connection, layout)
    low = max(position - WINDOW, 0)
    rows = await fetch(
        connection,
        f"""
        SELECT counted.n, m.* FROM (SELECT count(*) AS n FROM {layout.table}
                                    WHERE global_seq > $1 AND global_seq <= $2) counted
        LEFT JOIN (SELECT e.global_seq, {_identity_columns(layout)} FROM {layout.table} e
                   WHERE e.global_seq > $1 AND e.global_seq <= $2 ORDER BY e.global_seq DESC LIMIT {MARKS}) m ON true
        ORDER BY m.global_seq
        """,
        low,
        position,
    )
    marks = tuple(Mark(row[1], _identity(*row[2:])) for row in rows if row[1] is not None)
    return History(here.server, position, low, rows[0][0], marks)


async def compare(
    connection: asyncpg.Connection,
    layout: Layout,
    history: History,
    position: int | None = None,
    *,
    same_run: bool = False,
) -> Difference | None:
    """Return how what is there differs from a history; None if it is the same one.

    `position` is where the reader stands, if not where its history ends. What its history tells of beyond it, the
    reader is to be given again, so it does not matter. `same_run` says that all of it was read from the server as it
    has run since: then what is gone can only have been deleted.
    """
    return await compare_here(connection, layout, await look(connection, layout), history, position, same_run=same_run)


async def compare_here(
    connection: asyncpg.Connection,
    layout: Layout,
    here: Here,
    history: History,
    position: int | None = None,
    *,
    same_run: bool = False,
) -> Difference | None:
    """Do as `compare` does, where what the connection leads to is known."""
    at = history.position if position is None else position
    known = _up_to(history, at)
    return _judge(known, at, here, await _read_facts(connection, layout, here, known), same_run=same_run)


async def compare_kept(
    connection: asyncpg.Connection, layout: Layout, here: Here, kept: str | None, position: int
) -> Difference | None:
    """Compare what is kept beside a checkpoint, as JSON; where nothing is, the position must not be beyond the head."""
    try:
        history = History(here.server, position, position, 0) if kept is None else History.from_json(kept)
    except ValueError:
        head = (await _read_facts(connection, layout, here, History(here.server, position, position, 0))).head
        return Difference(Kind.CHANGED, head, (), "what is kept of its history cannot be read")
    return await compare_here(connection, layout, here, history, position)


def _up_to(history: History, position: int) -> History:
    """Return what of a history matters to a reader that has come to `position`."""
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
    # The ledger belongs to the table events beside it, not to any other that was named.
    erased, excused = "0::bigint", "false"
    if here.ledger and layout.own:
        erased, excused = (part.format(ledger=layout.ours("erased_events")) for part in (_ERASED, _EXCUSED))
    rows = await fetch(
        connection,
        f"""
        SELECT f.*, m.* FROM (
            SELECT {layout.head()}, {layout.head_exact()}, coalesce((SELECT max(global_seq) FROM {table}), 0),
                   (SELECT count(*) FROM {table} WHERE global_seq > $2 AND global_seq <= $3),
                   {erased}
        ) f
        LEFT JOIN (
            SELECT n.number, {excused}, e.global_seq IS NOT NULL, {_identity_columns(layout)}
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
            found.setdefault(row[5], set()).add(_identity(*row[8:]))
    # The sequence of a standby runs ahead of it, and one that does not belong to the column tells nothing.
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
        # This user is only told what is visible, and the position may well be beyond that.
        below = lacks and not (same_line and (facts.found or facts.count))
    if not (lacks or below):
        return None
    missing = tuple(sorted(others + gone))
    if here.recovering and same_system and not (others or same_run or _later(server, known)):
        return Difference(Kind.BEHIND, head, missing, "this standby has not replayed so far yet")
    if below:
        return Difference(Kind.CHANGED, head, missing, BEYOND)
    if others:
        reason = f"{_events(others)} there {_are(others)} not what was handed out before"
        return Difference(Kind.CHANGED, head, missing, reason)
    lost = _lost(history, facts, gone, fewer)
    if same_line:
        return Difference(Kind.ERASED, head, missing, lost)
    return Difference(Kind.CHANGED, head, missing, f"{lost}, and {_where(known, server)}")


def _lost(history: History, facts: _Facts, gone: Sequence[int], fewer: int) -> str:
    if gone and not facts.found and not facts.count:
        return "nothing of what was handed out last is there any more"
    told = f"{_events(gone)} {_are(gone)} there no more" if gone else ""
    if fewer > len(gone):
        total = f"{fewer} of the {history.count} events between {history.low + 1} and {history.position} are gone"
        told = f"{told} ({total})" if told else total
    if gone and facts.found and min(gone) > max(facts.found):
        # Nothing is left behind them that would tell the one from the other.
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


def _identity_columns(layout: Layout) -> str:
    """Return the select list of `_identity`: what is not needed is left out, so that no odd value has to be decoded."""
    event_id = "NULL::text" if layout.event_id is None else f"e.{layout.event_id}::text"
    if not layout.timed and layout.event_id is not None:
        return f"{event_id}, CASE WHEN {event_id} IS NULL THEN e.stream_id END, e.stream_seq, NULL::bigint"
    return (
        f"{event_id}, CASE WHEN {event_id} IS NULL THEN e.stream_id END, e.stream_seq, "
        f"CASE WHEN {event_id} IS NULL AND e.created_at >= '0002-01-01 00:00+00' "
        "AND e.created_at < '9999-01-01 00:00+00' THEN round(extract(epoch FROM e.created_at) * 1000000)::bigint END"
    )


def _identity(event_id: str | None, stream_id: str | None, stream_seq: int, microseconds: int | None) -> str:
    if event_id is not None:
        return event_id
    text = f"{stream_seq} {microseconds} {stream_id}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _microseconds(created_at: object) -> int | None:
    """Return a time since 1970; None for one that no datetime holds for certain, as in `_identity_columns`."""
    if not isinstance(created_at, datetime) or not 2 <= created_at.year < 9999:
        return None
    aware = created_at if created_at.tzinfo is not None else created_at.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND


def _number(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError(f"{value!r} is not a bigint")
    return value


def _known(value: Any) -> int | None:
    return None if value is None else _number(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value
