"""Recorded conflicts: reading them, and how recording goes."""

from collections.abc import Iterable

from esx.filters import Filter
from esx.store.base import Facet
from esx.store.conflicts.commuting import Commuting
from esx.store.conflicts.conflict import ConflictSurvey, RecordedConflict


class ConflictReads(Facet):
    """Tells why appends conflicted, where that was recorded (docs/conflicts.md)."""

    async def conflicts(
        self, where: Filter | None = None, *, commutes: Iterable[tuple[str, str]] = ()
    ) -> ConflictSurvey:
        """Return which types of events lost to which: how often, on which streams, when.

        `where` chooses among the conflicts: by stream, time, and by a type, user or correlation id of either side.
        `commutes` are pairs of globs of event types that may be stored in either order, such as
        ``("Deposited", "Deposited")``; then each pair tells how many of its conflicts commute.

        At most 100,000 rows are kept, and read. Raises InvalidQuery, also for a filter by JSONPath, as conflicts keep
        no data, and StoreFailed without the table.
        """
        from esx.store.conflicts.reading import survey

        return await self._read(survey, where or Filter(), Commuting(commutes))

    async def newest_conflicts(
        self, where: Filter | None = None, *, limit: int = 100, commutes: Iterable[tuple[str, str]] = ()
    ) -> list[RecordedConflict]:
        """Return single conflicts, the newest first, at most `limit` (up to 10,000); else as `conflicts`."""
        from esx.store.conflicts.reading import newest

        return await self._read(newest, where or Filter(), limit, Commuting(commutes))
