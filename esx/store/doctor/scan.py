"""What only a look at every event can tell.

The events are read in the order of the unique index, page by page: nothing is sorted, memory stays bounded, no
statement lasts long, and no old snapshot holds back vacuum. Each page begins with the last event of the one
before, so that neighbours are compared across pages too. Without that index the server sorts them, once, in one
statement.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from esx.store.doctor.finding import About, quoted, shown
from esx.store.doctor.topic import THOROUGH, limited_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from esx.store.careful import Fetch
    from esx.store.connection import Session
    from esx.store.doctor.finding import Finding
    from esx.store.doctor.target import Target

    OnProgress = Callable[[str], None]

PAGE = 50_000
_FIRST = ("", -(2**63))
_EXAMPLES = 3
_UNREADABLE = "created_at IS NULL OR created_at NOT BETWEEN '0001-01-02' AND '9999-12-30'"
_FUTURE = "created_at > now() + interval '1 day'"
_AT = "left(stream_id, 60) || '@' || stream_seq"

# What may be wrong with an event, given the one before it in its stream; and how an example of it is shown.
_FAULTS = {
    "negative": ("stream_seq < 0", _AT),
    "late": ("previous_seq IS NULL AND stream_seq > 0", _AT),
    "hole": ("stream_seq > previous_seq + 1", "left(stream_id, 60) || ' after ' || previous_seq"),
    "inverted": ("global_seq < previous_global", _AT),
    "unreadable": (_UNREADABLE, _AT),
    "future": (f"{_FUTURE} AND NOT ({_UNREADABLE})", _AT),
    "nameless": ("stream_id = '' OR event_type = ''", _AT),
    "reserved": ("starts_with(stream_id, '$')", _AT),
}
_TALLIES = ",\n".join(
    f"count(*) FILTER (WHERE {name}), (array_agg({example}) FILTER (WHERE {name}))[1:{_EXAMPLES}]"
    for name, (_, example) in _FAULTS.items()
)
_JUDGED = ", ".join(f"{test} AS {name}" for name, (test, _) in _FAULTS.items())
_PAGE_SQL = f"""
    WITH page AS (
        SELECT stream_id, stream_seq, global_seq, event_type, created_at FROM {{table}}
        WHERE (stream_id, stream_seq) >= ($1::text, $2::bigint) ORDER BY stream_id, stream_seq LIMIT $3
    ), seen AS (
        SELECT page.*, lag(stream_seq) OVER stream AS previous_seq, lag(global_seq) OVER stream AS previous_global,
               lead(true) OVER (ORDER BY stream_id, stream_seq) IS NULL AS last
        FROM page WINDOW stream AS (PARTITION BY stream_id ORDER BY stream_seq)
    ), judged AS (
        SELECT *, {_JUDGED} FROM seen WHERE NOT ($4 AND stream_id = $1::text AND stream_seq = $2::bigint)
    )
    SELECT count(*), count(*) FILTER (WHERE previous_seq IS NULL),
           max(stream_id) FILTER (WHERE last), max(stream_seq) FILTER (WHERE last),
           {_TALLIES}
    FROM judged
"""
# Grouped by page, so that what is kept to pick examples from is never more than a page.
_SORTED_SQL = f"""
    WITH seen AS (
        SELECT stream_id, stream_seq, global_seq, event_type, created_at,
               lag(stream_seq) OVER stream AS previous_seq, lag(global_seq) OVER stream AS previous_global,
               (row_number() OVER (ORDER BY stream_id, stream_seq, global_seq) - 1) / $1::int AS page
        FROM {{table}} WINDOW stream AS (PARTITION BY stream_id ORDER BY stream_seq, global_seq)
    ), judged AS (
        SELECT *, {_JUDGED} FROM seen
    )
    SELECT count(*), count(*) FILTER (WHERE previous_seq IS NULL), {_TALLIES} FROM judged GROUP BY page ORDER BY page
"""
_BY_SORTING = "SET LOCAL enable_hashagg = off"
_BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"

_LIST_NEIGHBOURS = (
    "SELECT * FROM (SELECT stream_id, stream_seq, global_seq, lag(stream_seq) OVER stream AS previous_seq, "
    "lag(global_seq) OVER stream AS previous_global_seq FROM {table} "
    "WINDOW stream AS (PARTITION BY stream_id ORDER BY stream_seq, global_seq)) e WHERE {condition};"
)
_MEND_TIME = (
    "/* CHANGES events */ UPDATE {table} e SET created_at = coalesce((SELECT b.created_at FROM {table} b "
    "WHERE b.global_seq < e.global_seq AND b.created_at BETWEEN '0001-01-02' AND clock_timestamp() "
    "ORDER BY b.global_seq DESC LIMIT 1), now()) WHERE {condition};"
)


def page_sql(table: str, *, timed: bool = True) -> str:
    """Return the query for a page: $1 and $2 are the last event before, or where to begin, $3 how many to look at.

    `timed` says that created_at holds times; where it does not, which is said elsewhere, they are not judged.
    """
    return _for(table, _PAGE_SQL, timed=timed)


def _for(table: str, query: str, *, timed: bool) -> str:
    if not timed:
        query = query.replace(f"{_FUTURE} AND NOT ({_UNREADABLE})", "false").replace(_UNREADABLE, "created_at IS NULL")
    return query.format(table=table)


@dataclass(slots=True)
class Tally:
    """How often a fault was met, and where first."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, count: int, examples: list[str] | None) -> None:
        """Add what a page has of it."""
        self.count += count
        self.examples = (self.examples + (examples or []))[:_EXAMPLES]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{quoted(self.examples)}{more}"


@dataclass(slots=True)
class Scan:
    """What the events of the table are like, all of them."""

    table: str = "events"
    timed: bool = True
    events: int = 0
    streams: int = 0
    faults: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in _FAULTS})

    def add(self, events: int, streams: int, tallies: Sequence[Any]) -> None:
        """Add a page: how many events and streams begin in it, and of each fault the number and the examples."""
        self.events += events
        self.streams += streams
        for tally, faulty, examples in zip(self.faults.values(), tallies[::2], tallies[1::2], strict=True):
            tally.add(faulty, examples)


async def scan_streams(
    connection: Session, target: Target, total: str, on_progress: OnProgress | None, *, timed: bool = True
) -> Scan:
    """Look at every event once, in the order of streams. Needs the unique index. `total` is said of how many."""
    scan = Scan(target.table, timed)
    start = _FIRST
    resumed = False

    async def page(fetch: Fetch) -> Any:
        await connection.execute(_BY_INDEX)
        return (await fetch(page_sql(target.quoted, timed=timed), *start, PAGE + resumed, resumed))[0]

    while True:
        count, streams, stream_id, stream_seq, *tallies = await limited_names(connection, page, THOROUGH)
        scan.add(count, streams, tallies)
        if on_progress is not None:
            on_progress(f"{scan.events:,}{total} events looked at")
        if count < PAGE:
            return scan
        start, resumed = (stream_id, stream_seq), True


async def scan_by_sorting(connection: Session, fetch: Fetch, target: Target, *, timed: bool = True) -> Scan:
    """Look at every event once, where no index gives their order or a place may be taken twice."""
    scan = Scan(target.table, timed)
    await connection.execute(_BY_SORTING)
    for count, streams, *tallies in await fetch(_for(target.quoted, _SORTED_SQL, timed=timed), PAGE):
        scan.add(count, streams, tallies)
    return scan


async def scan_keys(fetch: Fetch, target: Target) -> list[Finding]:
    """Look for places in a stream that are taken twice, where no constraint rules that out."""
    found = About("stream-seq-twice")
    rows = await fetch(
        f"SELECT left(stream_id, 60) || '@' || stream_seq FROM {target.quoted} GROUP BY stream_id, stream_seq "
        f"HAVING count(*) > 1 LIMIT {_EXAMPLES}"
    )
    if not rows:
        return [found.ok("no place in a stream is taken twice")]
    return [
        found.error(
            f"some places in a stream are taken by several events, e.g. {quoted(row[0] for row in rows)}",
            f"SELECT stream_id, stream_seq, array_agg(global_seq) FROM {target.table} "
            "GROUP BY stream_id, stream_seq HAVING count(*) > 1;",
        )
    ]


async def scan_numbers(connection: Session, target: Target) -> list[Finding]:
    """Look for numbers that several events have, where no index rules that out."""
    found = About("global-seq-twice")
    rows = await connection.fetch(
        f"SELECT global_seq::text FROM {target.quoted} GROUP BY global_seq HAVING count(*) > 1 LIMIT {_EXAMPLES}"
    )
    if not rows:
        return [found.ok("no global_seq is taken twice")]
    return [
        found.error(
            f"some numbers are taken by several events, of which a feed may miss all but one, e.g. "
            f"{quoted(row[0] for row in rows)}",
            f"SELECT global_seq, array_agg(stream_id || '@' || stream_seq) FROM {target.table} "
            "GROUP BY global_seq HAVING count(*) > 1;",
        )
    ]


async def scan_event_ids(connection: Session, target: Target) -> list[Finding]:
    """Look for event ids that are stored twice. What does not fit into work_mem is kept on disk."""
    found = About("event-id-twice")
    row = await connection.fetchrow(
        f"""
        WITH twice AS MATERIALIZED (
            SELECT event_id, count(*) AS events FROM {target.quoted} GROUP BY event_id HAVING count(*) > 1
        )
        SELECT count(*), coalesce(sum(events), 0), ARRAY(SELECT event_id::text FROM twice LIMIT {_EXAMPLES}) FROM twice
        """
    )
    assert row is not None
    if not row[0]:
        return [found.ok("no event id is stored twice")]
    return [
        found.warning(
            f"{row[0]:,} event ids are stored several times, with {row[1]:,} events in all, e.g. {quoted(row[2])}: "
            "the same append twice?",
            f"SELECT event_id, array_agg(global_seq ORDER BY global_seq) FROM {target.table} "
            "GROUP BY event_id HAVING count(*) > 1;",
        )
    ]


def numbering(scan: Scan) -> Iterator[Finding]:
    """Check that the events of a stream are numbered 0, 1, 2, ..."""
    found = About("stream-seq")
    holes, late, negative = (scan.faults[name] for name in ("hole", "late", "negative"))
    if holes.count:
        yield found.error(
            f"{holes.count:,} holes in the numbers of streams, where events were deleted or lost: {holes}",
            _LIST_NEIGHBOURS.format(table=scan.table, condition="stream_seq > previous_seq + 1"),
        )
    if negative.count:
        yield found.error(
            f"{negative.count:,} events have a negative stream_seq, which stands for no event: {negative}",
            f"SELECT stream_id, stream_seq, global_seq FROM {scan.table} WHERE stream_seq < 0;",
        )
    if late.count:
        yield found.warning(
            f"{late.count:,} streams do not start at 0, their first events were deleted or never were: {late}",
            _LIST_NEIGHBOURS.format(table=scan.table, condition="previous_seq IS NULL AND stream_seq > 0"),
        )
    if not holes.count and not negative.count and not late.count:
        yield found.ok(f"{scan.events:,} events of {scan.streams:,} streams are numbered without a hole")


def order(scan: Scan) -> Iterator[Finding]:
    """Check that a stream has its events in the order that all events have."""
    found = About("stream-order")
    inverted = scan.faults["inverted"]
    if inverted.count:
        yield found.error(
            f"{inverted.count:,} events come before the one before them in their stream, by global_seq: {inverted}",
            _LIST_NEIGHBOURS.format(table=scan.table, condition="global_seq < previous_global_seq"),
        )
    else:
        yield found.ok("the order of each stream is that of global_seq")


def times(scan: Scan) -> Iterator[Finding]:
    """Check that each event has a time that can be read, and has passed."""
    found = About("created-at")
    unreadable, future = scan.faults["unreadable"], scan.faults["future"]
    if unreadable.count and not scan.timed:
        yield found.error(f"{unreadable.count:,} events have no created_at: {unreadable}")
    elif unreadable.count:
        yield found.error(
            f"{unreadable.count:,} events have a created_at that is missing, infinite or out of range: {unreadable} "
            "(the remedy takes the time of the event before)",
            _MEND_TIME.format(table=scan.table, condition=_UNREADABLE),
        )
    if future.count:
        yield found.warning(
            f"{future.count:,} events have a created_at in the future: {future} "
            "(the remedy takes the time of the event before)",
            _MEND_TIME.format(table=scan.table, condition=_FUTURE),
        )
    if not unreadable.count and not future.count:
        yield found.ok(f"every event has a created_at{' that has passed' if scan.timed else ''}")


def names(scan: Scan) -> Iterator[Finding]:
    """Check that streams and types have names that the store would accept."""
    found = About("names")
    nameless, reserved = scan.faults["nameless"], scan.faults["reserved"]
    if nameless.count:
        yield found.warning(
            f"{nameless.count:,} events have an empty stream id or type: {nameless}",
            f"SELECT global_seq, stream_id, stream_seq, event_type FROM {scan.table} "
            "WHERE stream_id = '' OR event_type = '';",
        )
    if reserved.count:
        yield found.warning(
            f"{reserved.count:,} events are in streams whose id starts with $, kept for {shown('$all')} and its like: "
            f"{reserved}",
            f"SELECT DISTINCT stream_id FROM {scan.table} WHERE starts_with(stream_id, '$');",
        )
    if not nameless.count and not reserved.count:
        yield found.ok("no stream id or type is empty or reserved")


CHECKS = (numbering, order, times, names)
