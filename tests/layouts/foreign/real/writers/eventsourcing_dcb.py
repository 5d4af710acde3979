"""eventsourcing (Python), DCB: events with one tag, which is what a stream is elsewhere, and JSON as the data."""

from __future__ import annotations

import json

from eventsourcing.dcb.api import DCBAppendCondition, DCBEvent, DCBQuery, DCBQueryItem
from eventsourcing.dcb.application import DCBApplication
from eventsourcing.persistence import IntegrityError

from tests.layouts.foreign.real.writers.eventsourcing import postgres
from tests.layouts.foreign.real.writers.story import STORY, say


def main() -> None:
    last: dict[str, int] = {}
    refused = 0
    with DCBApplication(postgres("eventsourcing.dcb.postgres_tt")) as shop:
        for step in STORY:
            tag = f"{step.category}-{step.id}"
            events = [DCBEvent(event["type"], json.dumps(event["data"]).encode(), [tag]) for event in step.events]
            condition = DCBAppendCondition(DCBQuery([DCBQueryItem(tags=[tag])]), last.get(tag, 0) - step.stale)
            try:
                last[tag] = shop.recorder.append(events, condition)
            except IntegrityError:
                refused += 1
        events = [
            {
                "stream": found.event.tags[0],
                "version": found.position,
                "global": found.position,
                "type": found.event.type,
                "data": json.loads(found.event.data),
                "metadata": None,
            }
            for found in shop.recorder.read()
        ]
    say(refused, events)


if __name__ == "__main__":
    main()
