"""Checks that look at each event.

The events are read in the order of the unique index, page by page: nothing is sorted, memory is bounded, no statement
lasts long, and no old snapshot holds back vacuum. Each page begins with the last event of the page before, so that
neighbours are compared across pages too. Without that index the server sorts all events in one statement.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from esx.doctor.finding import About, Finding, quoted, shown
from esx.doctor.target import Examined
from esx.doctor.topic import THOROUGH, limited_names
from esx.postgres.session import Session
from esx.postgres.values import Fetch
from esx.text import counted

OnProgress = Callable[[str], None]


_FIRST = ("", -(2**63))
_EXAMPLES = 3
_UNREADABLE = "created_at IS NULL OR created_at NOT BETWEEN '0001-01-02' AND '9999-12-30'"
_FUTURE = "created_at > now() + interval '1 day'"
_AT = "left(stream_id, 60) || '@' || stream_seq"

# The faults of an event, given the one before it in its stream; and how to show an example.
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
# Grouped by page, so that no more than a page is kept to pick examples from.
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
BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"
"""Lets PostgreSQL read a page by the index until the transaction ends."""

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

    `timed` says that created_at has times; else times are not checked (another check reports the type).
    """
    return _for(table, _PAGE_SQL, timed=timed)


def _for(table: str, query: str, *, timed: bool) -> str:
    if not timed:
        query = query.replace(f"{_FUTURE} AND NOT ({_UNREADABLE})", "false").replace(_UNREADABLE, "created_at IS NULL")
    return query.format(table=table)


@dataclass(slots=True)
class FaultTally:
    """How often a fault was found, with the first examples."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, count: int, examples: list[str] | None) -> None:
        """Add the count and the examples of a page."""
        self.count += count
        self.examples = (self.examples + (examples or []))[:_EXAMPLES]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{quoted(self.examples)}{more}"


@dataclass(slots=True)
class EventScan:
    """The result of looking at all events."""

    table: str = "events"
    timed: bool = True
    events: int = 0
    streams: int = 0
    faults: dict[str, FaultTally] = field(default_factory=lambda: {name: FaultTally() for name in _FAULTS})

    def add(self, events: int, streams: int, tallies: Sequence[Any]) -> None:
        """Add a page: how many events and streams begin in it, and of each fault the number and the examples."""
        self.events += events
        self.streams += streams
        for tally, faulty, examples in zip(self.faults.values(), tallies[::2], tallies[1::2], strict=True):
            tally.add(faulty, examples)


async def scan_streams(
    connection: Session, target: Examined, total: str, tell: OnProgress, *, timed: bool = True
) -> EventScan:
    """Look at each event once, in the order of streams; needs the unique index. `total` follows the count in texts."""
    scan = EventScan(target.table, timed)
    start, page_rows = _FIRST, target.thresholds.page
    resumed = False

    async def page(fetch: Fetch) -> Any:
        await connection.execute(BY_INDEX)
        return (await fetch(page_sql(target.quoted, timed=timed), *start, page_rows + resumed, resumed))[0]

    while True:
        count, streams, stream_id, stream_seq, *tallies = await limited_names(connection, page, THOROUGH)
        scan.add(count, streams, tallies)
        tell(f"{scan.events:,}{total} events looked at")
        if count < page_rows:
            return scan
        start, resumed = (stream_id, stream_seq), True


async def scan_by_sorting(connection: Session, fetch: Fetch, target: Examined, *, timed: bool = True) -> EventScan:
    """Look at each event once, without an index that gives the order or keeps places unique."""
    scan = EventScan(target.table, timed)
    await connection.execute(_BY_SORTING)
    for count, streams, *tallies in await fetch(_for(target.quoted, _SORTED_SQL, timed=timed), target.thresholds.page):
        scan.add(count, streams, tallies)
    return scan


async def scan_keys(fetch: Fetch, target: Examined) -> list[Finding]:
    """Look for places in a stream that are taken twice, if no constraint prevents that."""
    examples = await _taken_twice(fetch, target, "stream_id, stream_seq", _AT)
    found = About("stream-seq-twice")
    if not examples:
        return [found.ok("no place in a stream is taken twice")]
    return [
        found.error(
            f"some places in a stream are taken by several events, e.g. {examples}",
            f"SELECT stream_id, stream_seq, array_agg(global_seq) FROM {target.table} "
            "GROUP BY stream_id, stream_seq HAVING count(*) > 1;",
        )
    ]


async def scan_numbers(connection: Session, target: Examined) -> list[Finding]:
    """Look for numbers that several events have, if no index prevents that."""
    examples = await _taken_twice(connection.fetch, target, "global_seq", "global_seq::text")
    found = About("global-seq-twice")
    if not examples:
        return [found.ok("no global_seq is taken twice")]
    return [
        found.error(
            f"some numbers are taken by several events, of which a feed may miss all but one, e.g. {examples}",
            f"SELECT global_seq, array_agg(stream_id || '@' || stream_seq) FROM {target.table} "
            "GROUP BY global_seq HAVING count(*) > 1;",
        )
    ]


async def _taken_twice(fetch: Fetch, target: Examined, key: str, shown_as: str) -> str:
    """Return examples of keys that several events have, an empty text if there are none."""
    query = f"SELECT {shown_as} FROM {target.quoted} GROUP BY {key} HAVING count(*) > 1 LIMIT {_EXAMPLES}"
    return quoted(row[0] for row in await fetch(query))


async def scan_event_ids(connection: Session, target: Examined) -> list[Finding]:
    """Look for event ids that are stored twice. PostgreSQL uses the disk for what does not fit into work_mem."""
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
            f"{counted(row[0], 'event id is', 'event ids are')} "
            f"stored several times, with {row[1]:,} events in all, e.g. {quoted(row[2])}: "
            "the same append twice?",
            f"SELECT event_id, array_agg(global_seq ORDER BY global_seq) FROM {target.table} "
            "GROUP BY event_id HAVING count(*) > 1;",
        )
    ]


def numbering(scan: EventScan) -> Iterator[Finding]:
    """Check that the events of a stream are numbered 0, 1, 2, ..."""
    found = About("stream-seq")
    holes, late, negative = (scan.faults[name] for name in ("hole", "late", "negative"))
    if holes.count:
        yield found.error(
            f"{counted(holes.count, 'hole')} in the numbers of streams, where events were deleted or lost: {holes}",
            _LIST_NEIGHBOURS.format(table=scan.table, condition="stream_seq > previous_seq + 1"),
        )
    if negative.count:
        yield found.error(
            f"{counted(negative.count, 'event has', 'events have')} "
            f"a negative stream_seq, which stands for no event: {negative}",
            f"SELECT stream_id, stream_seq, global_seq FROM {scan.table} WHERE stream_seq < 0;",
        )
    if late.count:
        yield found.warning(
            f"{counted(late.count, 'stream does', 'streams do')} "
            f"not start at 0, the first events were deleted or never were: {late}",
            _LIST_NEIGHBOURS.format(table=scan.table, condition="previous_seq IS NULL AND stream_seq > 0"),
        )
    if not holes.count and not negative.count and not late.count:
        yield found.ok(f"{counted(scan.events, 'event')} of {counted(scan.streams, 'stream')}: numbered without a hole")


def order(scan: EventScan) -> Iterator[Finding]:
    """Check that the events of a stream are in the order of global_seq."""
    found = About("stream-order")
    inverted = scan.faults["inverted"]
    if inverted.count:
        yield found.error(
            f"{counted(inverted.count, 'event comes', 'events come')} "
            f"before the previous one in the stream, by global_seq: {inverted}",
            _LIST_NEIGHBOURS.format(table=scan.table, condition="global_seq < previous_global_seq"),
        )
    else:
        yield found.ok("the order of each stream is that of global_seq")


def times(scan: EventScan) -> Iterator[Finding]:
    """Check that each event has a time that can be read, and has passed."""
    found = About("created-at")
    unreadable, future = scan.faults["unreadable"], scan.faults["future"]
    if unreadable.count and not scan.timed:
        yield found.error(f"{counted(unreadable.count, 'event has', 'events have')} no created_at: {unreadable}")
    elif unreadable.count:
        yield found.error(
            f"{counted(unreadable.count, 'event has', 'events have')} "
            f"a created_at that is missing, infinite or out of range: {unreadable} "
            "(the remedy takes the time of the event before)",
            _MEND_TIME.format(table=scan.table, condition=_UNREADABLE),
        )
    if future.count:
        yield found.warning(
            f"{counted(future.count, 'event has', 'events have')} a created_at in the future: {future} "
            "(the remedy takes the time of the event before)",
            _MEND_TIME.format(table=scan.table, condition=_FUTURE),
        )
    if not unreadable.count and not future.count:
        yield found.ok(f"every event has a created_at{' that has passed' if scan.timed else ''}")


def names(scan: EventScan) -> Iterator[Finding]:
    """Check that streams and types have names that the store would accept."""
    found = About("names")
    nameless, reserved = scan.faults["nameless"], scan.faults["reserved"]
    if nameless.count:
        yield found.warning(
            f"{counted(nameless.count, 'event has', 'events have')} an empty stream id or type: {nameless}",
            f"SELECT global_seq, stream_id, stream_seq, event_type FROM {scan.table} "
            "WHERE stream_id = '' OR event_type = '';",
        )
    if reserved.count:
        yield found.warning(
            f"{counted(reserved.count, 'event is', 'events are')} "
            f"in streams whose id starts with $, kept for {shown('$all')} and its like: "
            f"{reserved}",
            f"SELECT DISTINCT stream_id FROM {scan.table} WHERE starts_with(stream_id, '$');",
        )
    if not nameless.count and not reserved.count:
        yield found.ok("no stream id or type is empty or reserved")


CHECKS = (numbering, order, times, names)
