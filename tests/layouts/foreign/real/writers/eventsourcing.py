"""eventsourcing (Python): an application with two kinds of aggregates."""

from __future__ import annotations

import json
import os
from typing import Any
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import IntegrityError

from tests.layouts.foreign.real.writers.story import STORY, say


class Told(Aggregate):  # type: ignore[misc]
    """An aggregate to which anything happens."""

    def __init__(self, id: UUID) -> None:
        self._id = id

    class Happened(Aggregate.Event):  # type: ignore[misc]
        what: str
        data: Any
        metadata: Any


class Cart(Told):
    pass


class Order(Told):
    pass


def postgres(module: str) -> dict[str, str]:
    """Return the settings with which it uses the database."""
    return {
        "PERSISTENCE_MODULE": module,
        "POSTGRES_DBNAME": os.environ["PGDATABASE"],
        "POSTGRES_HOST": os.environ["PGHOST"],
        "POSTGRES_PORT": os.environ["PGPORT"],
        "POSTGRES_USER": os.environ["PGUSER"],
        "POSTGRES_PASSWORD": "",
    }


def main() -> None:
    kinds = {"cart": Cart, "order": Order}
    before: dict[str, Any] = {}
    refused = 0
    with Application(postgres("eventsourcing.postgres")) as shop:
        for step in STORY:
            if step.stale:
                aggregate = before[step.id]
            elif step.id in before:
                aggregate = shop.repository.get(UUID(step.id))
            else:
                aggregate = kinds[step.category](UUID(step.id))
                shop.save(aggregate)
                before[step.id] = shop.repository.get(UUID(step.id))
            for event in step.events:
                aggregate.trigger_event(
                    Told.Happened, what=event["type"], data=event["data"], metadata=event["metadata"]
                )
            try:
                shop.save(aggregate)
            except IntegrityError:
                refused += 1
        events = [
            {
                "stream": str(noted.originator_id),
                "version": noted.originator_version,
                "global": noted.id,
                "type": noted.topic,
                "data": json.loads(noted.state),
                "metadata": None,
                "at": shop.mapper.to_domain_event(noted).timestamp.isoformat(),
            }
            for noted in shop.recorder.select_notifications(start=1, limit=100)
        ]
    say(refused, events)


if __name__ == "__main__":
    main()
