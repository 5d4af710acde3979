"""What a store's traffic was like."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from esx.store.base import Facet

if TYPE_CHECKING:
    from esx.store.traffic.sample import TrafficSample


class TrafficReads(Facet):
    """Samples the history."""

    async def traffic(
        self, since: datetime | None = None, *, on_progress: Callable[[str], None] | None = None
    ) -> TrafficSample | None:
        """Return a sample of the events from `since` on (None: of all), some 180,000 of them; None without events.

        `esx load learn` makes a load test of it (docs/learn.md). `on_progress` gets texts about the progress. Raises
        OrderUnknown in a store without a global order, and InvalidQuery where created_at has no times.
        """
        from esx.store.traffic.sample import read_traffic

        return await self._read(read_traffic, since, on_progress=on_progress)
