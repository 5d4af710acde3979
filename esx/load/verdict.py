"""Judging a run: whether the store kept exactly what it acknowledged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esx.load.model import run_prefix

if TYPE_CHECKING:
    from esx.load.model import LoadCounts
    from esx.store import EventStore, StreamSummary

_NAMED = 3  # culprits named in the evidence
_SEARCHED = 1_000_000  # events read to name them


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a run passed, how many of its events are `stored`, and why in a few lines."""

    passed: bool
    stored: int
    evidence: tuple[str, ...]

    def __str__(self) -> str:
        return "pass" if self.passed else "fail"


async def judge(store: EventStore, run: str, total: LoadCounts) -> Verdict:
    """Compare what the store holds of a run with what its writers were told.

    Every acknowledged append must be stored, nothing else but appends whose outcome is unknown, and each stream's
    versions must run from 0 without a hole. Raises the store's errors if it cannot be read.
    """
    prefix = run_prefix(run)
    stored = await store.count_events(prefix)
    streams = versions = 0
    late: list[str] = []
    async for stream in store.streams(prefix=prefix):
        streams += 1
        versions += stream.version + 1
        # `events` counts from the first to the last, so it falls short where the first is not version 0.
        if stream.events != stream.version + 1:
            late.append(stream.stream_id)
    counted, counting = _count(stored, total)
    dense = versions == stored and not late
    if dense:
        order = f"versions are contiguous from 0 in all {streams:,} streams" if streams else "no streams were made"
    else:
        culprits = late or await _holed(store, prefix)
        order = (
            f"versions add up to {versions:,} events in {streams:,} streams, but {stored:,} are stored"
            f"{_named(culprits)}"
        )
    return Verdict(counted and dense, stored, (counting, order))


def _count(stored: int, total: LoadCounts) -> tuple[bool, str]:
    known, unknown = total.successes, total.unknown
    said = f"{known:,} appends acknowledged, {stored:,} events stored"
    if not known:
        return False, f"{said}: nothing could be appended, so nothing was tested"
    if stored < known:
        return False, f"{said}: {known - stored:,} lost"
    if stored > known + unknown:
        return False, f"{said}: {stored - known - unknown:,} stored that no writer was told of"
    if unknown:
        return True, f"{said}: of {unknown:,} unknown outcomes {stored - known:,} had been stored"
    return True, said


async def _holed(store: EventStore, prefix: str) -> list[str]:
    """Return the first streams that have a hole."""
    found: list[str] = []
    searched = 0
    async for stream in store.streams(prefix=prefix):
        searched += stream.events
        if searched > _SEARCHED:
            break
        if await _rows(store, stream) != stream.version + 1:
            found.append(stream.stream_id)
            if len(found) > _NAMED:
                break
    return found


async def _rows(store: EventStore, stream: StreamSummary) -> int:
    rows = 0
    async for _ in store.read(stream.stream_id):
        rows += 1
    return rows


def _named(streams: list[str]) -> str:
    if not streams:
        return ""
    more = ", ..." if len(streams) > _NAMED else ""
    return f": events are missing in {', '.join(streams[:_NAMED])}{more}"
