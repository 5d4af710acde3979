"""What writers were told, in some fifty bytes for each stream, so that a run of any length fits in memory.

Of acknowledged events only a count and a fingerprint are kept, by stream: the sum, modulo 2^128, of a hash of each
event's id and version. The database's events give the same sum if they are the same events at the same versions, and
otherwise with a chance of about 1 in 2^128. So an event that was lost, stored twice, moved, or stored although its
writer was told of a conflict, is found. Appends whose outcome is unknown are few, and kept by their ids.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any
from uuid import UUID, uuid4

from esx.store.conflicts.conflict import ConflictRecording

_MASK = (1 << 128) - 1
_STEP = 0x9E3779B97F4A7C15F39CC0605CEDC835
_MIX = 0xA3EC647659359ACD6D0F27BD9CEDE3B1
_RECORD = struct.Struct("<IQ16sQQ")
_KEPT_UNKNOWN = 100_000
_ID_BITS = 40  # bits of an event id that hold its number; the rest belong to the process


def fingerprint(version: int, event_id: int) -> int:
    """Return the hash of one event: fingerprints are added up modulo 2^128."""
    mixed = (event_id + (version + 1) * _STEP) & _MASK
    mixed ^= mixed >> 61
    mixed = mixed * _MIX & _MASK
    return mixed ^ (mixed >> 59)


class StreamRecord:
    """One stream's acknowledged events, and its appends that counted."""

    __slots__ = ("conflicts", "events", "fingerprint", "successes")

    def __init__(self, events: int = 0, fingerprint: int = 0, successes: int = 0, conflicts: int = 0) -> None:
        self.events = events
        self.fingerprint = fingerprint
        self.successes = successes
        self.conflicts = conflicts


@dataclass(frozen=True, slots=True)
class Unknown:
    """An append whose outcome the writer was not told."""

    stream: int
    ids: tuple[int, ...]


class EventIds:
    """Makes the event ids of one process: numbers that go on from a random base."""

    def __init__(self) -> None:
        self.base = uuid4().int >> _ID_BITS << _ID_BITS
        self.issued = 0

    def next(self) -> UUID:
        """Return a new id."""
        self.issued += 1
        return UUID(int=self.base + self.issued)


class Ledger:
    """What the writers of a run, or of one of its processes, were told. Ledgers add up exactly."""

    def __init__(self) -> None:
        self.streams: dict[int, StreamRecord] = {}
        self.unknown: list[Unknown] = []
        self.dropped_unknown = 0
        """Unknown outcomes that were not kept, because there were too many."""
        self.issued: dict[int, int] = {}
        """How many ids there are after each base."""
        self.recording: ConflictRecording | None = None
        """How the recording of conflicts went, None if they were not."""

    def record(self, stream: int) -> StreamRecord:
        """Return the stream's record, a new one if there is none."""
        found = self.streams.get(stream)
        if found is None:
            found = self.streams[stream] = StreamRecord()
        return found

    def stored(self, stream: int, last_version: int, ids: Sequence[UUID]) -> StreamRecord:
        """Note that events were acknowledged, the last of them at that version; return the stream's record."""
        record = self.record(stream)
        record.events += len(ids)
        for version, event_id in enumerate(ids, last_version - len(ids) + 1):
            record.fingerprint += fingerprint(version, event_id.int)
        record.fingerprint &= _MASK
        return record

    def lost_sight(self, stream: int, ids: Iterable[UUID]) -> None:
        """Note an append whose outcome is unknown."""
        if len(self.unknown) >= _KEPT_UNKNOWN:
            self.dropped_unknown += 1
        else:
            self.unknown.append(Unknown(stream, tuple(event_id.int for event_id in ids)))

    @property
    def events(self) -> int:
        """How many events were acknowledged."""
        return sum(record.events for record in self.streams.values())

    def was_issued(self, event_id: int) -> bool:
        """Return whether a writer of the run made that event id."""
        number = event_id & ((1 << _ID_BITS) - 1)
        return 0 < number <= self.issued.get(event_id - number, 0)

    def add(self, other: Ledger) -> None:
        """Add another ledger to this one."""
        for stream, theirs in other.streams.items():
            ours = self.record(stream)
            ours.events += theirs.events
            ours.fingerprint = (ours.fingerprint + theirs.fingerprint) & _MASK
            ours.successes += theirs.successes
            ours.conflicts += theirs.conflicts
        self.unknown.extend(other.unknown)
        self.dropped_unknown += other.dropped_unknown
        for base, issued in other.issued.items():
            self.issued[base] = max(issued, self.issued.get(base, 0))
        if other.recording is not None:
            self.recording = other.recording.plus(self.recording)

    def to_wire(self) -> dict[str, Any]:
        """Return the ledger as plain values and bytes, for a worker's message."""
        return {
            "streams": b"".join(self._packed()),
            "unknown": [[each.stream, [_bytes(event_id) for event_id in each.ids]] for each in self.unknown],
            "dropped_unknown": self.dropped_unknown,
            "issued": [[_bytes(base), issued] for base, issued in self.issued.items()],
            "recording": None if self.recording is None else list(astuple(self.recording)),
        }

    def _packed(self) -> Iterator[bytes]:
        for stream, record in self.streams.items():
            mark = _bytes(record.fingerprint)
            yield _RECORD.pack(stream, record.events, mark, record.successes, record.conflicts)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Ledger:
        """Return the ledger that `to_wire` encoded."""
        ledger = cls()
        for stream, events, mark, successes, conflicts in _RECORD.iter_unpack(wire["streams"]):
            ledger.streams[stream] = StreamRecord(events, int.from_bytes(mark, "big"), successes, conflicts)
        ledger.unknown = [
            Unknown(stream, tuple(int.from_bytes(each, "big") for each in ids)) for stream, ids in wire["unknown"]
        ]
        ledger.dropped_unknown = wire["dropped_unknown"]
        ledger.issued = {int.from_bytes(base, "big"): issued for base, issued in wire["issued"]}
        ledger.recording = None if wire["recording"] is None else ConflictRecording(*wire["recording"])
        return ledger


def _bytes(number: int) -> bytes:
    return number.to_bytes(16, "big")
