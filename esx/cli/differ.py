"""Printing events with what changed since the one before: `esx read --diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esx.cli.events import event_head, short_head, tell_odd_event
from esx.fold.diff import MISSING, diff
from esx.fold.value import dump, jsonpath, parse
from esx.payload import Undecoded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from esx.cli.output import OutputLines
    from esx.eventstore import EventStore
    from esx.fold.diff import Change
    from esx.model import Event

_SCAN = 5000
"""How many events one query looks at for the previous event of a type."""
_MARKS = {"added": "+", "removed": "-", "changed": "~"}


class Differ:
    """Compares each event with the one before it in its stream, or with the last one of its type.

    `all_events` says that it is given all events of the stream, without a filter. `short` lines above the changes
    leave out the stream, and the parts of a second.
    """

    def __init__(self, store: EventStore, *, same_type: bool, all_events: bool = True, short: bool = False) -> None:
        self._store = store
        self._same_type = same_type
        self._all_events = all_events
        self._head = short_head if short else event_head
        # The last event, by type with `same_type`; saves a query for each event when reading forwards.
        self._last: dict[str, Event] = {}

    async def print(self, lines: OutputLines, event: Event, *, as_json: bool) -> None:
        """Print an event with its changes: as one object with a list ``diff``, or as lines for people."""
        tell_odd_event(event)
        previous = await self._previous(event)
        old: Any = MISSING if previous is None else parse(previous.data_json)
        changes = diff(old, parse(event.data_json))
        if as_json:
            lines.json(f'{event.to_json()[:-1]}, "diff": [{", ".join(change.to_json() for change in changes)}]}}')
            return
        unread = isinstance(event.data_json, Undecoded) or (previous and isinstance(previous.data_json, Undecoded))
        note = "  (not compared: the data are no JSON)" if unread else ""
        lines.text(f"{self._head(event)}{self._against(previous)}{note}", *([] if unread else _change_lines(changes)))

    async def _previous(self, event: Event) -> Event | None:
        key = event.event_type if self._same_type else ""
        last = self._last.get(key)
        self._last[key] = event
        if self._all_events and last is not None and last.stream_seq < event.stream_seq:
            return last
        if not self._same_type:
            return await self._store.previous_event(event.stream_id, event.stream_seq)
        # Each step covers at most _SCAN events, as a stream has no more events than numbers.
        for before in range(event.stream_seq, 0, -_SCAN):
            found = await self._store.previous_event(event.stream_id, before, event_type=event.event_type, scan=_SCAN)
            if found is not None:
                return found
        return None

    def _against(self, previous: Event | None) -> str:
        if previous is None and self._same_type:
            return "  (the first of this type)"
        if previous is None:
            return "  (the first)"
        return f"  (against @{previous.stream_seq})" if self._same_type else ""


def _change_lines(changes: Iterable[Change]) -> Iterable[str]:
    for change in changes:
        sides = [dump(side) for side in (change.old, change.new) if side is not MISSING]
        yield f"          {_MARKS[change.op]} {jsonpath(change.path)}  {' → '.join(sides)}"
