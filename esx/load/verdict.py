"""Judging a run: whether the store kept exactly what it acknowledged, and delivered each event once and in order.

The run's events are read once, stream by stream, in constant memory, and compared with the ledger of what the
writers were told.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from esx.eventstore import EventStore
from esx.load.ledger import Ledger, StreamRecord, fingerprint
from esx.load.model import run_prefix
from esx.text import counted

_NAMED = 3  # streams named in the evidence
_LOOKED_INTO = 20  # streams read again to say what is wrong with them
_MOST_ROWS = 100_000  # of one such stream
_MASK = (1 << 128) - 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a run passed, how many of its events are `stored`, and why in a few lines."""

    passed: bool
    stored: int
    evidence: tuple[str, ...]

    def __str__(self) -> str:
        return "pass" if self.passed else "fail"


@dataclass(slots=True)
class Delivery:
    """What one subscriber received. `reached` says that it came to the end of the run's events."""

    delivered: int = 0
    duplicates: int = 0
    disordered: int = 0
    fingerprint: int = 0
    reached: bool = False

    def take(self, stream_seq: int, event_id: UUID | None) -> None:
        """Count one event and add it to the fingerprint."""
        self.delivered += 1
        if event_id is not None:
            self.fingerprint = (self.fingerprint + fingerprint(stream_seq, event_id.int)) & _MASK


@dataclass(slots=True)
class Findings:
    """What the database holds of a run, compared with the ledger. `head` is the highest global_seq of its events."""

    stored: int = 0
    first: int = 0
    """The version of a stream's first event."""
    streams: int = 0
    head: int = 0
    fingerprint: int = 0
    acknowledged: int = 0
    unknown: int = 0
    unknown_stored: int = 0
    torn: int = 0
    """Appends of unknown outcome that are stored in part, more than once, or in another stream."""
    dropped_unknown: int = 0
    holes: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    """Streams in which a version is stored twice."""
    differing: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Numbers of events stored, without those of unknown outcome, and acknowledged, by stream where they differ."""
    losers: int = 0
    strangers: int = 0
    repeated: int = 0


async def examine(store: EventStore, run: str, ledger: Ledger) -> Findings:
    """Read all events of a run and compare them with its ledger. Raises the store's errors."""
    prefix = run_prefix(run)
    first = await store.first_version()
    found = Findings(
        first=first, acknowledged=ledger.events, unknown=len(ledger.unknown), dropped_unknown=ledger.dropped_unknown
    )
    open_ids = {event_id: unknown for unknown in ledger.unknown for event_id in unknown.ids}
    seen: Counter[int] = Counter()
    unseen = set(ledger.streams)
    current: str | None = None
    events = total = next_version = 0

    def close() -> None:
        if current is None:
            return
        found.streams += 1
        number = _number(current, prefix)
        unseen.discard(number)
        record = ledger.streams.get(number) or StreamRecord()
        if events != record.events or total & _MASK != record.fingerprint:
            found.differing[current] = (events, record.events)

    async for page in store.stored_ids(prefix):
        for stream_id, version, global_seq, event_id in page:
            if stream_id != current:
                close()
                current, events, total, next_version = stream_id, 0, 0, first
            if version != next_version:
                kind = found.twice if version < next_version else found.holes
                if not kind or kind[-1] != stream_id:
                    kind.append(stream_id)
            next_version = version + 1
            found.stored += 1
            found.head = max(found.head, global_seq)
            number = 0 if event_id is None else event_id.int
            mark = fingerprint(version, number)
            found.fingerprint += mark
            if open_ids and number in open_ids:
                # In another stream than its own it is as wrong as one too many.
                seen[number] += 1 if stream_id == f"{prefix}{open_ids[number].stream}" else 2
            else:
                events += 1
                total += mark
    close()
    found.fingerprint &= _MASK
    for number in unseen:
        if ledger.streams[number].events:
            found.differing[f"{prefix}{number}"] = (0, ledger.streams[number].events)
    stored = {open_ids[event_id] for event_id in seen}
    found.unknown_stored = len(stored)
    found.torn = sum(1 for unknown in stored if any(seen[event_id] != 1 for event_id in unknown.ids))
    await _look_into(store, found, ledger)
    return found


def _number(stream_id: str, prefix: str) -> int:
    """Return a stream's number, -1 for another stream than the scenario's."""
    text = stream_id[len(prefix) :]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1


async def _look_into(store: EventStore, found: Findings, ledger: Ledger) -> None:
    """Find out what the extra events are, in the first streams that have some."""
    extra = [stream for stream, (events, acknowledged) in found.differing.items() if events > acknowledged]
    open_ids = {event_id for unknown in ledger.unknown for event_id in unknown.ids}
    for stream_id in extra[:_LOOKED_INTO]:
        events, acknowledged = found.differing[stream_id]
        ids: set[int] = set()
        strangers = repeated = 0
        async for event in store.read(stream_id, limit=_MOST_ROWS):
            number = 0 if event.event_id is None else event.event_id.int
            strangers += not ledger.was_issued(number)
            repeated += number in ids and number not in open_ids
            ids.add(number)
        found.strangers += strangers
        found.repeated += repeated
        found.losers += max(events - acknowledged - strangers - repeated, 0)


def conclude(found: Findings, deliveries: Sequence[Delivery] = ()) -> Verdict:
    """Return the verdict: each acknowledged event stored exactly once and nothing else, versions without a hole.

    Of an append whose outcome is unknown all events or none may be stored. Each subscriber must have received each
    event once and in order.
    """
    checks = [_kept(found), _contiguous(found)]
    if found.unknown or found.dropped_unknown:
        checks.append(_resolved(found))
    if deliveries:
        checks.append(_delivered(found, deliveries))
    return Verdict(all(passed for passed, _ in checks), found.stored, tuple(text for _, text in checks))


def _kept(found: Findings) -> tuple[bool, str]:
    said = f"{counted(found.acknowledged, 'event')} acknowledged, {found.stored:,} stored"
    if not found.acknowledged:
        return False, f"{said}: nothing could be appended, so nothing was tested"
    if not found.differing:
        return True, f"{said}: every acknowledged event exactly once, and no other"
    wrong: list[str] = []
    lost = sum(max(acknowledged - events, 0) for events, acknowledged in found.differing.values())
    extra = sum(max(events - acknowledged, 0) for events, acknowledged in found.differing.values())
    changed = [stream for stream, (events, acknowledged) in found.differing.items() if events == acknowledged]
    if lost:
        wrong.append(f"{lost:,} lost")
    if extra:
        kinds = [
            f"{count:,} {what}"
            for count, what in (
                (found.losers, "of appends that were refused"),
                (found.repeated, "a second time"),
                (found.strangers, "that no writer of the run made"),
            )
            if count
        ]
        wrong.append(f"{extra:,} too many{' (' + ', '.join(kinds) + ')' if kinds else ''}")
    if changed:
        wrong.append(f"{counted(len(changed), 'stream')} with other events than acknowledged")
    return False, f"{said}: {', '.join(wrong)}{_named(list(found.differing))}"


def _contiguous(found: Findings) -> tuple[bool, str]:
    if found.holes:
        return False, f"versions are missing in {counted(len(found.holes), 'stream')}{_named(found.holes)}"
    if found.twice:
        return False, f"a version is stored twice in {counted(len(found.twice), 'stream')}{_named(found.twice)}"
    if not found.streams:
        return True, "no streams were made"
    where = f"{'all ' if found.streams > 1 else ''}{counted(found.streams, 'stream')}"
    return True, f"versions are contiguous from {found.first} in {where}"


def _resolved(found: Findings) -> tuple[bool, str]:
    said = f"of {counted(found.unknown, 'append')} of unknown outcome {found.unknown_stored:,} had been stored"
    if found.dropped_unknown:
        return False, f"{said}; {found.dropped_unknown:,} more were too many to keep their ids"
    if found.torn:
        return False, f"{said}, {found.torn:,} of them in part, twice or elsewhere"
    return True, f"{said}, the others not, by their event ids"


def _delivered(found: Findings, deliveries: Sequence[Delivery]) -> tuple[bool, str]:
    who = counted(len(deliveries), "subscriber")
    wrong: list[str] = []
    for name, count in (
        ("did not come to the end", sum(not each.reached for each in deliveries)),
        ("got events again", sum(each.duplicates > 0 for each in deliveries)),
        ("got events out of order", sum(each.disordered > 0 for each in deliveries)),
        (
            "got other events than are stored",
            sum(
                each.reached and (each.delivered != found.stored or each.fingerprint != found.fingerprint)
                for each in deliveries
            ),
        ),
    ):
        if count:
            wrong.append(f"{count:,} {name}")
    if wrong:
        return False, f"of {who} {', '.join(wrong)}"
    what = f"{'all ' if found.stored > 1 else ''}{counted(found.stored, 'event')}"
    return True, f"the feed gave {who} {what}, each once and in order"


def _named(streams: list[str]) -> str:
    if not streams:
        return ""
    more = ", ..." if len(streams) > _NAMED else ""
    return f": {', '.join(streams[:_NAMED])}{more}"
