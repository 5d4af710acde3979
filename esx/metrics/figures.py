"""Reads what is measured of a store: at each request, and the findings of the doctor now and then."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from esx.doctor import Severity
from esx.errors import OrderUnknown
from esx.eventstore import EventStore
from esx.store.consume.others import OtherConsumers
from esx.store.consume.report import ConsumerReport
from esx.store.health import Health
from esx.text import visible

OTHER = "other"
"""The category that stands for all that have no label of their own."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured. `safe` is None where no position is safe; `findings` None before the doctor has looked.

    `held` is None where it is not known since when a writer has been writing, as on a standby.
    `appended` counts the events by category since the exporter began, `uncounted` those that are still to be counted.
    """

    health: Health
    safe: int | None
    held: float | None
    consumers: list[ConsumerReport]
    others: OtherConsumers
    appended: dict[str, int]
    findings: dict[Severity, int] | None


@dataclass(slots=True)
class Observer:
    """Measures a store.

    At most `categories` categories get a label, those that come first; the others count together. The doctor looks
    every `doctor_every` seconds; 0 is never.
    """

    store: EventStore
    categories: int = 50
    doctor_every: float = 300.0
    clock: Callable[[], float] = time.monotonic
    _counted: int | None = None
    _appended: Counter[str] = field(default_factory=Counter)
    _findings: dict[Severity, int] | None = None
    _next_look: float = 0.0

    async def measure(self) -> Measured:
        """Measure now. Raises EsxError."""
        health = await self.store.health()
        safe = None
        if health.numbered and health.order_unknown is None:
            try:
                safe = (await self.store.feed_from_end()).position
            except OrderUnknown:
                safe = None
        if safe is not None:
            await self._count(safe)
        if self.doctor_every and self.clock() >= self._next_look:
            self._next_look = self.clock() + self.doctor_every
            found = Counter(finding.severity for finding in await self.store.doctor())
            self._findings = {severity: found[severity] for severity in Severity}
        return Measured(
            health=health,
            safe=safe,
            held=_held(health),
            consumers=await self.store.consumers(),
            others=await self.store.other_consumers(),
            appended=dict(self._appended),
            findings=self._findings,
        )

    async def _count(self, safe: int) -> None:
        """Count what was appended since the last time. It begins with what comes after the first."""
        if self._counted is None or safe < self._counted:
            self._counted = safe
            return
        if safe == self._counted:
            return
        self._counted, counts = await self.store.count_appended(self._counted, safe)
        for category, count in counts.items():
            name = visible(category, limit=100)
            if name not in self._appended and len(self._appended) >= self.categories:
                name = OTHER
            self._appended[name] += count


def _held(health: Health) -> float | None:
    since = [writer.since for writer in health.writers if writer.since]
    # A standby does not know the locks of the primary.
    if health.recovering or len(since) < len(health.writers):
        return None
    return max(((health.at - each).total_seconds() for each in since), default=0.0)
