"""Whether a history is one in which nothing was lost, stored twice or handed out in another order.

Pure functions over what was written down and what the servers held: see `test_check`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

from esx import ANY, NO_STREAM, STREAM_EXISTS
from tests.faults.history import CHANGED, STOPPED, Seen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from tests.faults.history import Call, Failover, History, Part, Reading, Row

LOST = "lost"
DOUBLED = "doubled"
REORDERED = "out of order"
TORN = "torn"
FOREIGN = "from nowhere"
REFUSED = "refused, but stored"
ELSEWHERE = "elsewhere than acknowledged"
SILENT = "went on in another history"
FALSE_ALARM = "false alarm"
ENDED = "ended by itself"
CANCELLED = "ended by a cancelled statement"
ASTRAY = "ended by a standby"
SURPRISE = "unexpected error"


class Finding(NamedTuple):
    """Something that must not be. `kind` is one of the constants above."""

    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


class Verdict(NamedTuple):
    """`lost_in_failover` is how many acknowledged events asynchronous replication has lost, as it may."""

    findings: list[Finding]
    lost_in_failover: int


def check(history: History) -> Verdict:
    """Check all there is to check. The last table is what was left in the end, after all readers had seen it."""
    tables = [Table(rows) for rows in history.tables]
    findings = [Finding(SURPRISE, text) for text in history.surprises]
    findings += [Finding(_ending(text), text) for text in history.ended]
    lost = 0
    for table in tables:
        findings += check_table(table)
        findings += check_origin(history.calls, table)
        findings += check_order(history.calls, table)
    for era, failover in enumerate(history.failovers):
        findings += check_failover(failover, tables[era], tables[era + 1])
    for call in history.calls:
        found, gone = check_call(call, tables, history.failovers)
        findings += found
        lost += gone
    for reading in history.readings:
        findings += check_reading(reading, tables)
    # A read model lives and dies with the table beside it, so the projection is judged by the last one alone.
    stored = [Seen(row.global_seq, row.event_id) for row in tables[-1].rows]
    found_there = difference(history.projected, stored, complete=True)
    if found_there:
        findings.append(Finding(found_there.kind, f"the projection's table: {found_there.what}"))
    return Verdict(findings, lost)


class Table:
    """The events of one server, by id as well."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.by_id: defaultdict[UUID, list[Row]] = defaultdict(list)
        for row in rows:
            self.by_id[row.event_id].append(row)

    def has(self, event_id: UUID) -> bool:
        return event_id in self.by_id


def check_table(table: Table) -> Iterator[Finding]:
    """Each event once, each stream without a hole, and in the order of the global numbers."""
    for event_id, rows in table.by_id.items():
        if len(rows) > 1:
            yield Finding(DOUBLED, f"event {event_id} is stored at {[row.global_seq for row in rows]}")
    following: Counter[str] = Counter()
    number = 0
    for row in table.rows:
        if row.global_seq <= number:
            yield Finding(REORDERED, f"the table gave {row.global_seq} after {number}")
        number = row.global_seq
        if row.stream_seq != following[row.stream_id]:
            yield Finding(
                REORDERED, f"{row.stream_id} goes on with {row.stream_seq} at {number}, not {following[row.stream_id]}"
            )
        following[row.stream_id] = row.stream_seq + 1


def check_origin(calls: Sequence[Call], table: Table) -> Iterator[Finding]:
    """Whether somebody has asked for each event."""
    asked = {event_id for call in calls for event_id in call.ids}
    for row in table.rows:
        if row.event_id not in asked:
            yield Finding(FOREIGN, f"nobody has appended {row}")


def check_order(calls: Sequence[Call], table: Table) -> Iterator[Finding]:
    """Whether, in each stream, a call that began when another had been acknowledged stands behind that one."""
    acknowledged = [call for call in calls if call.outcome == "acknowledged" and _whole(call, table) is not None]
    # All beginnings and ends of the calls to a stream, in the order in which they were.
    moments: defaultdict[str, list[tuple[int, int, bool]]] = defaultdict(list)
    for call in acknowledged:
        for part in call.parts:
            places = [table.by_id[event_id][0].stream_seq for event_id in part.ids]
            moments[part.stream_id] += [(call.began, places[0], True), (call.ended, places[-1], False)]
    for stream, ticks in moments.items():
        highest = -1
        for _, place, begins in sorted(ticks):
            if begins and place <= highest:
                yield Finding(
                    REORDERED, f"what was appended to {stream} at {place} began after {highest} was acknowledged"
                )
            elif not begins:
                highest = max(highest, place)


def check_failover(failover: Failover, before: Table, after: Table) -> Iterator[Finding]:
    """Whether a promoted standby came with nothing but what its primary had, and has kept that."""
    old, new = set(before.rows), set(after.rows)
    for row in failover.inherited:
        if row not in old:
            yield Finding(FOREIGN, f"the promoted standby has {row}, which its primary had not")
        if row not in new:
            yield Finding(LOST, f"{row} was there when the standby was promoted, and is not now")


def check_call(call: Call, tables: Sequence[Table], failovers: Sequence[Failover]) -> tuple[list[Finding], int]:
    """Check what became of one call; return with that how many of its events a failover has lost, as it may."""
    findings = [
        Finding(FOREIGN, f"{_told(call)} is there before it began")
        for table in tables[: call.first_era]
        if any(table.has(event_id) for event_id in call.ids)
    ]
    for table in tables[call.first_era :]:
        torn = _torn(call, table)
        if torn:
            return [*findings, Finding(TORN, f"{_told(call)}: {torn}")], 0
    if call.outcome == "refused":
        # Refused by the last server it came to: a former one may have stored it, and lost it with the answer.
        if any(_whole(call, table) for table in tables[call.last_era :]):
            findings.append(Finding(REFUSED, _told(call)))
        return findings, 0
    stored = [_whole(call, table) for table in tables]
    # The last era in which it can have been stored.
    homes = [era for era in range(call.first_era, call.last_era + 1) if stored[era]]
    if call.outcome == "acknowledged":
        homes = [era for era in homes if _as_told(call, stored[era] or [])]
        if not homes:
            found = next((rows for rows in stored if rows), None)
            if found is None:
                return [*findings, Finding(LOST, _told(call))], 0
            return [*findings, Finding(ELSEWHERE, f"{_told(call)} is at {found}")], 0
    home = homes[0] if homes else call.last_era
    there = stored[home]
    for era in range(home + 1, len(tables)):
        now = stored[era]
        if now == there or (era <= call.last_era and now and (call.outcome == "unknown" or _as_told(call, now))):
            there = now
        elif now:
            findings.append(Finding(ELSEWHERE, f"{_told(call)} was at {there} and is at {now}"))
            break
        elif call.outcome == "acknowledged" and call.ended <= failovers[era - 1].known:
            findings.append(Finding(LOST, f"{_told(call)} had reached the standby"))
            break
        else:
            there = None
    gone = call.outcome == "acknowledged" and not there
    return findings, len(call.ids) if gone else 0


def check_reading(reading: Reading, tables: Sequence[Table]) -> list[Finding]:
    """Whether a subscription gave each event that it should, once and in order."""
    eras = range(reading.first_era, reading.last_era + 1)
    expected = [[Seen(row.global_seq, row.event_id) for row in tables[era].rows if reading.wants(row)] for era in eras]
    findings = []
    if reading.ended not in (None, STOPPED, CHANGED):
        text = f"{reading.name}: {reading.ended}: {reading.error}"
        findings.append(Finding(_ending(text), text))
    if reading.ended is None:
        found = difference(reading.seen, expected[-1], complete=True)
    else:
        candidates = [difference(reading.seen, rows, complete=False) for rows in expected]
        found = candidates[-1] if all(candidates) else None
        if reading.ended == CHANGED and len(eras) == 1:
            findings.append(Finding(FALSE_ALARM, f"{reading.name}: {reading.error}"))
    if found is not None:
        # It may as well have overlooked an event, but has no right to go on, so that is what it is called.
        kind = SILENT if len(eras) > 1 else found.kind
        findings.append(Finding(kind, f"{reading.name} (after {reading.after}): {found.what}"))
    return findings


def difference(seen: Sequence[Seen], stored: Sequence[Seen], *, complete: bool) -> Finding | None:
    """Return the first thing wrong with what was seen of what is stored: all of it, or only its beginning."""
    if list(seen) == list(stored[: None if complete else len(seen)]):
        return None
    last = 0
    ids = set()
    for event in seen:
        if event.event_id in ids:
            return Finding(DOUBLED, f"{event} came twice")
        if event.global_seq <= last:
            return Finding(REORDERED, f"{event} came after {last}")
        ids.add(event.event_id)
        last = event.global_seq
    for event, there in zip(seen, stored, strict=False):
        if event != there:
            known = event in set(stored)
            return Finding(LOST, f"{there} did not come, but {event}") if known else Finding(FOREIGN, f"{event} came")
    if len(seen) > len(stored):
        return Finding(FOREIGN, f"{seen[len(stored)]} came")
    return Finding(LOST, f"{stored[len(seen)]} did not come, nor what is after it")


def _ending(text: str) -> str:
    """Return which kind of end it was that a reader or a projection came to."""
    if "cancelled the query" in text or "user request" in text:
        return CANCELLED
    return ASTRAY if "read-only transaction" in text else ENDED


def _torn(call: Call, table: Table) -> str | None:
    """Return what is wrong with a call of which something is there; None if it is there as a whole or not at all."""
    there = [event_id for event_id in call.ids if table.has(event_id)]
    if not there:
        return None
    if len(there) != len(call.ids):
        return f"{len(there)} of {len(call.ids)} events are there"
    number = 0
    for part in call.parts:
        rows = [table.by_id[event_id][0] for event_id in part.ids]
        first = rows[0].stream_seq
        for place, row in enumerate(rows):
            if (row.stream_id, row.stream_seq) != (part.stream_id, first + place):
                return f"event {place} is at {row}, the first at {rows[0]}"
            if row.global_seq <= number:
                return f"{row} comes after {number}"
            number = row.global_seq
        if not _fits(part, first):
            return f"it expected {part.expected}, and is at {first}"
    return None


def _fits(part: Part, first: int) -> bool:
    if part.expected is ANY:
        return True
    if part.expected is NO_STREAM:
        return first == 0
    if part.expected is STREAM_EXISTS:
        return first > 0
    return part.expected == first - 1


def _whole(call: Call, table: Table) -> list[Row] | None:
    """Return where all events of a call are."""
    if not all(table.has(event_id) for event_id in call.ids):
        return None
    return [table.by_id[event_id][0] for event_id in call.ids]


def _as_told(call: Call, rows: Sequence[Row]) -> bool:
    """Return whether the last event of each part is where the client was told."""
    ends = []
    end = 0
    for part in call.parts:
        end += len(part.ids)
        ends.append((rows[end - 1].stream_id, rows[end - 1].stream_seq, rows[end - 1].global_seq))
    return ends == [tuple(result) for result in call.results]


def _told(call: Call) -> str:
    streams = ", ".join(f"{part.stream_id} ({len(part.ids)}, expected {part.expected})" for part in call.parts)
    answer = call.error or [tuple(result) for result in call.results]
    return f"{call.outcome} {call.kind} to {streams}: {answer}"
