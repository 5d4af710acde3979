"""Many events at once: import, export, and what a load test left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esx.store import bulk
from esx.store.bulk_export import Export, settle
from esx.store.bulk_import import Imported, Importer
from esx.store.erase import Eraser
from esx.store.facets.base import Base
from esx.store.relation import check_order

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable

    from esx.store.barrier import Filter
    from esx.store.erase import Mark, Marked
    from esx.store.reading import StoredId

_IDS_PAGE = 5000


class Bulk(Base):
    """Moves, checks and deletes events by the thousand."""

    async def import_events(self, rows: Iterable[bulk.ImportedEvent]) -> int:
        """Store events with their own stream_seq and created_at, all or none, and return how many.

        They get new global sequence numbers in the order given. For filling a store; raises StreamTaken if
        a (stream_id, stream_seq) is taken.
        """
        layout, _, _ = await self._load()
        layout.check_appends()
        async with self._writing() as connection:
            return await bulk.copy_in(connection, layout, rows)

    async def import_ndjson(
        self,
        pieces: Iterable[bytes] | AsyncIterable[bytes],
        *,
        keep_global_seq: bool = False,
        renumber: bool = False,
        faithful: bool = False,
        on_progress: Callable[[Imported], None] | None = None,
    ) -> Imported:
        """Store events given as NDJSON, in chunks of one transaction each, and return how many.

        `pieces` make up the lines and may be cut anywhere: an open binary file, or an `export`. A line holds
        stream_id, event_type and data, and if wanted metadata, stream_seq (else counted per stream from 0, for all
        lines or for none), created_at (else now) and event_id (else made from the rest, the same every time).
        The order of the lines becomes the global order, with new numbers; `keep_global_seq` keeps those given, which
        must ascend, be above all that the store has handed out, and leave a sixteenth of the sequence's numbers free.
        `renumber` counts stream_seq anew. `faithful` makes of an empty store the one that was exported: global_seq,
        stream_seq, created_at and event_id are kept as they are, with all gaps, so no line may lack one of them.

        Lines whose event is stored already are skipped, so an import that was cut short is simply run again.
        Raises ImportFailed for a line that cannot be stored, whose place in its stream is taken by another event,
        or that would leave a hole in its stream; with `faithful` StoreNotEmpty if the store holds anything but the
        beginning of this import.
        """
        if faithful and renumber:
            raise ValueError("a faithful import keeps stream_seq, so it cannot renumber")
        self._check_writable()
        layout, _, _ = await self._load()
        layout.check_appends()
        importer = Importer(
            self._writing,
            layout,
            keep_global_seq=keep_global_seq,
            renumber=renumber,
            faithful=faithful,
            on_progress=on_progress,
        )
        return await importer.run(pieces)

    async def export(self, *, after: int = 0, where: Filter | None = None, patience: float = 0.5) -> Export:
        """Return the events after global_seq `after` as NDJSON in global order, up to the safe position.

        Nothing can appear any more at or below that position: writers that are open now are waited for, up to
        `patience` seconds, and after that the export ends before the first gap that they may fill. Iterate over
        the result for pieces of bytes; memory stays the same at any size. Raises OrderUnknown where there is no such
        position.
        """
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            await check_order(connection, layout)
            until, gap = await settle(connection, layout, after, patience)
        return Export(self._connection, layout, after=after, until=until, gap=gap, where=where)

    async def stored_ids(self, prefix: str, *, page: int = _IDS_PAGE) -> AsyncIterator[list[StoredId]]:
        """Yield where each event of the streams is whose id starts with `prefix`, in pages, stream by stream in order.

        Reads them all, a page at a time in constant memory.
        """
        after: StoredId | None = None
        while True:
            async with self._connection() as connection:
                _, _, reader = await self._tools(connection)
                found = await reader.ids_page(connection, prefix, after, page)
            if found:
                yield found
            if len(found) < page:
                return
            after = found[-1]

    async def count_events(self, prefix: str) -> int:
        """Return how many events the streams whose id starts with `prefix` have, by counting them all."""
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.count_events(connection, prefix)

    async def stream_outside(self, prefix: str) -> str | None:
        """Return the id of some stream that does not start with `prefix`, None if all streams do."""
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.stream_outside(connection, prefix)

    async def marked(self, prefix: str, mark: Mark, on_progress: Callable[[int], None] | None = None) -> Marked:
        """Return what `delete_marked` would delete, having looked at each event; raises NotMarked as that does."""
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await Eraser(connection, layout, prefix, mark).look(on_progress)

    async def delete_marked(self, prefix: str, mark: Mark, on_progress: Callable[[int], None] | None = None) -> int:
        """Delete the events of the streams whose id starts with `prefix`, and return how many they were.

        For what a load test left. All must carry `mark` in their metadata, otherwise none is deleted: raises
        NotMarked. It goes in batches, each a transaction, of which `on_progress` is told; if it is broken off, the
        rest can be deleted later. The numbers of what is deleted stay as dead gaps in global_seq. A projection that
        has handled these events keeps what it made of them.
        """
        async with self._writing() as connection:
            layout, _, _ = await self._tools(connection)
            layout.check_appends()
            eraser = Eraser(connection, layout, prefix, mark)
            await eraser.look()
            return await eraser.delete(on_progress)
