"""What is in a store at a glance: types, and time windows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from esx.errors import InvalidQuery
from esx.filters import Filter
from esx.layouts.layout import Layout
from esx.postgres.session import Session
from esx.store.base import Facet
from esx.store.read.event_list import EventList
from esx.store.read.order_check import LOOK
from esx.store.search.span import AFTER_ALL, NumberSpan, find_span

if TYPE_CHECKING:
    from esx.store.overview.summary import WindowSummary
    from esx.store.overview.types import TypeSurvey


class Overviews(Facet):
    """Looks over a store, at a bounded cost."""

    async def types(
        self, *, since: datetime | None = None, full: bool = False, samples: int | None = None
    ) -> TypeSurvey:
        """Return the event types with their counts, times, rates and categories, and a sample of each.

        Some 5,000 events are looked at, and the data of up to `samples` (None: 100) of each type are read; all events
        of a small store are counted. With `full`, all events are counted. `since` leaves out what stands before the
        place where the global order reaches that time. Raises OrderUnknown in a store without a global order, and
        InvalidQuery.
        """
        from esx.store.overview.types import SHAPED, survey_types

        async def look(connection: Session, layout: Layout) -> TypeSurvey:
            layout.check_numbered()
            span = NumberSpan(layout.before_first, AFTER_ALL - 1, False, None)
            if since is not None:
                found = await find_span(connection, layout, EventList(), since, None, look=LOOK)
                span = found._replace(end=AFTER_ALL - 1)
            most = SHAPED if samples is None else samples
            return await survey_types(connection, layout, span, full=full, samples=most)

        return await self._read(look)

    async def happened(
        self, since: datetime, until: datetime | None = None, *, where: Filter | None = None
    ) -> WindowSummary:
        """Return what happened from `since` on and before `until` (None: now), and in the window before it.

        Up to 200,000 events of a window are counted; beyond, they are estimated from 10,000 draws. `where` chooses
        among the events. Raises InvalidQuery, and OrderUnknown in a store without a global order.
        """
        from esx.store.overview.summary import summarise

        end = until or datetime.now(UTC)
        if since >= end:
            raise InvalidQuery("the window ends before it begins: --since has to be before --until")
        return await self._read(summarise, since, end, where or Filter())
