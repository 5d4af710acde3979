"""How the commands print events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esx.cli.odd import tell_odd_event
from esx.times import iso

if TYPE_CHECKING:
    from collections.abc import Iterable

    from esx.cli.common import Lines
    from esx.store import Event
    from esx.store.barrier import Gap


def print_events(lines: Lines, events: Iterable[Event], *, as_json: bool) -> None:
    """Print events, as NDJSON or as one line each for people."""
    for event in events:
        tell_odd_event(event)
        lines.json(event.to_json()) if as_json else lines.text(event_line(event))


def event_line(event: Event) -> str:
    """Return an event as one line: global_seq, time, stream and stream_seq, type, data, and metadata if any."""
    metadata = f"  {event.metadata_json}" if event.metadata_json else ""
    return (
        f"{event.global_seq:>8}  {iso(event.created_at)}  {event.stream_id}@{event.stream_seq}  "
        f"{event.event_type}  {event.data_json}{metadata}"
    )


def describe_gap(gap: Gap) -> str:
    """Return which numbers a gap misses and who may hold it: that somebody is writing does not say which numbers."""
    numbers = f"{gap.first}" if gap.first == gap.last else f"{gap.first} to {gap.last}"
    writers = ", ".join(
        f"{writer.who} ({writer.application or 'no name'}, {writer.state or 'state unknown'}"
        f"{f', since {writer.since:%H:%M:%S}Z' if writer.since else ''})"
        for writer in gap.writers
    )
    return f"global_seq {numbers} may still appear, and may be held by {writers or 'a transaction that is not seen'}"


def ended_before(position: int, gap: Gap) -> str:
    """Return why output ends at `position`, before a gap, and how to get the rest."""
    return f"ended at the safe position {position}: {describe_gap(gap)}; once that has ended, --from {position} goes on"
