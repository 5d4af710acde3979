"""Many events at once: import, export, and deleting the events of a load test."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING

from esx.errors import OrderUnknown, StoreFailed
from esx.filters import Filter
from esx.layouts.detection import order_unknown
from esx.model import UNNUMBERED, Event
from esx.postgres.values import fetch, fetchval
from esx.store.feed.facet import Feeds
from esx.store.read.pages import StoredId, starts_with
from esx.store.stream_ids import as_stored, lowest

if TYPE_CHECKING:
    from esx.store.bulk.chunks import ChunkBounds
    from esx.store.bulk.copy import ImportedEvent
    from esx.store.bulk.erase import Mark, Marked
    from esx.store.bulk.export import Export
    from esx.store.bulk.import_ import Imported

_IDS_PAGE = 5000


class Bulk(Feeds):
    """Moves, checks and deletes events by the thousand."""

    async def import_events(self, rows: Iterable[ImportedEvent]) -> int:
        """Store events with their own stream_seq and created_at, all or none, and return how many.

        They get new global sequence numbers in the order given. Raises StreamTaken if a (stream_id, stream_seq) is
        taken.
        """
        from esx.store.bulk.copy import copy_in

        layout = (await self._load()).layout
        layout.check_appends()
        async with self._writing() as connection:
            return await copy_in(connection, layout, rows)

    async def import_ndjson(
        self,
        pieces: Iterable[bytes] | AsyncIterable[bytes],
        *,
        keep_global_seq: bool = False,
        renumber: bool = False,
        faithful: bool = False,
        no_stream: str | None = None,
        no_type: str | None = None,
        dollar_prefix: str | None = None,
        from_kurrent: bool = False,
        bounds: ChunkBounds | None = None,
        on_progress: Callable[[Imported], None] | None = None,
    ) -> Imported:
        """Store events given as NDJSON, in chunks of one transaction each, within `bounds`, and return how many.

        `pieces` are the bytes of the lines, cut anywhere: an open binary file, or an `export`. A line has stream_id,
        event_type and data, and optionally metadata, stream_seq (in all lines or in none; else counted per stream from
        0), created_at (else now) and event_id (else derived from the line, the same each time). The order of the lines
        becomes the global order, with new numbers. `keep_global_seq` keeps the given numbers: they must ascend, be
        above all numbers that the store has drawn, and leave a sixteenth of the sequence's numbers free. `renumber`
        counts stream_seq from 0 again. `faithful` makes an empty store equal to the exported one: global_seq,
        stream_seq, created_at and event_id are kept, with all gaps, so each line must have them.

        Lines of another tool's store may have ``first``, the number of a stream's first event, which is taken off their
        stream_seq, and ``data_note`` or ``metadata_note`` about a payload that is no JSON. An event of no stream goes
        into the stream `no_stream`, one of no type gets the type `no_type`, and `dollar_prefix` comes before stream ids
        that begin with $; without these such lines are refused. `Imported.changes` counts what is not as in the lines.

        With `from_kurrent` a line is an event of KurrentDB: a `RecordedEvent` of kurrentdbclient as an object with its
        fields, payloads as text, or an entry of an Atom feed with ``embed=body``. KurrentDB's own events are left out;
        with `dollar_prefix` those of streams that begin with $ are kept, if their types do not. The numbers of the
        global order are new.

        Lines whose events are stored already are skipped, so an import that was interrupted can be run again. Raises
        ImportFailed for a line that cannot be stored, whose place in its stream is taken by another event, or that
        would leave a hole in its stream; with `faithful` StoreNotEmpty if the store has other events than the beginning
        of this import.
        """
        from esx.store.bulk.chunks import ChunkBounds
        from esx.store.bulk.import_ import Importer

        if faithful and renumber:
            raise ValueError("a faithful import keeps stream_seq, so it cannot renumber")
        if from_kurrent and (faithful or keep_global_seq):
            raise ValueError("positions of KurrentDB are places in its log, and cannot be kept as global_seq")
        self._check_writable()
        layout = (await self._load()).layout
        if layout.foreign is not None:
            raise StoreFailed(f"{layout.refuses_appends}; an import goes into esx's own table, which `esx init` makes")
        layout.check_appends()
        importer = Importer(
            self._writing,
            layout,
            keep_global_seq=keep_global_seq,
            renumber=renumber,
            faithful=faithful,
            no_stream=no_stream,
            no_type=no_type,
            dollar_prefix=dollar_prefix,
            from_kurrent=from_kurrent,
            bounds=bounds or ChunkBounds(),
            on_progress=on_progress,
        )
        return await importer.run(pieces)

    async def export(
        self,
        *,
        after: int = -1,
        where: Filter | None = None,
        patience: float = 0.5,
        snapshot: bool = False,
        decode: Callable[[Event], Event] | None = None,
    ) -> Export:
        """Return the events after global_seq `after` as NDJSON in global order, up to the safe position.

        No event can appear at or below that position any more. It waits for open writers up to `patience` seconds, and
        ends before the first gap that they may still fill. Iterate over the result for pieces of bytes, in constant
        memory. Raises OrderUnknown where no position is safe. With `snapshot` it then gives the events that are there
        now, in the order of global_seq, or stream by stream where there are no numbers. An event that is committed
        later can have its place between these.

        `decode` is called, in a thread, for each event of a store whose payloads may be no JSON, and returns it with
        other payloads. It needs a global order, and takes many times as long.
        """
        from esx.store.bulk.export import Export, settle

        async with self._reading() as (connection, layout):
            reason = await order_unknown(connection, layout)
            gap = None
            if reason is not None and (not snapshot or (after >= 0 and not layout.numbered)):
                raise OrderUnknown(reason)
            if decode is not None and not layout.numbered:
                raise OrderUnknown(f"decoding goes by global_seq: {reason}")
            after = max(after, layout.before_first)
            if reason is None:
                until, gap = await settle(connection, layout, after, patience, self.feed_settings)
            elif layout.numbered:
                until = await fetchval(connection, f"SELECT coalesce(max(global_seq), -1) FROM {layout.numbers}")
            else:
                until = UNNUMBERED
        return Export(
            self._connection,
            layout,
            after=after,
            until=until,
            gap=gap,
            where=where,
            snapshot=reason,
            decode=decode if layout.packed else None,
        )

    async def count_commits(self, prefix: str) -> int:
        """Return how many transactions stored the events of streams whose id starts with `prefix`; it reads them all.

        Raises StoreFailed for the store of another tool.
        """
        async with self._reading() as (connection, layout):
            layout.check_appends()
            return int(
                await fetchval(
                    connection,
                    f"SELECT count(DISTINCT e.xmin::text) FROM {layout.table} e WHERE {starts_with(layout, 'e')}",
                    as_stored(layout, prefix),
                )
            )

    async def stored_ids(self, prefix: str, *, page: int = _IDS_PAGE) -> AsyncIterator[list[StoredId]]:
        """Yield the places and ids of all events of streams whose id starts with `prefix`, in pages.

        They are in the order of stream_id and stream_seq. A page is read at a time, in constant memory.
        """
        after: StoredId | None = None
        while True:
            async with self._reading() as (connection, layout):
                key = (lowest(layout), -1, -1) if after is None else after[:3]
                rows = await fetch(
                    connection,
                    f"SELECT e.stream_id::text, e.stream_seq, e.global_seq, {layout.event_id or 'NULL::uuid'} "
                    f"FROM {layout.table} e WHERE {starts_with(layout, 'e')} "
                    "AND (e.stream_id, e.stream_seq) >= ($2, $3) "
                    "AND (e.stream_id, e.stream_seq, e.global_seq) > ($2, $3, $4) "
                    "ORDER BY e.stream_id, e.stream_seq, e.global_seq LIMIT $5",
                    as_stored(layout, prefix),
                    *key,
                    page,
                )
            found = list(map(StoredId._make, rows))
            if found:
                yield found
            if len(found) < page:
                return
            after = found[-1]

    async def count_events(self, prefix: str) -> int:
        """Return how many events the streams whose id starts with `prefix` have, by counting them all."""
        async with self._reading() as (connection, layout):
            query = f"SELECT count(*) FROM {layout.table} e WHERE {starts_with(layout, 'e')}"
            return int(await fetchval(connection, query, as_stored(layout, prefix)))

    async def stream_outside(self, prefix: str) -> str | None:
        """Return the id of a stream that does not start with `prefix`, None if there is none."""
        async with self._reading() as (connection, layout):
            one = f"SELECT stream_id::text FROM {layout.table} WHERE"
            query = f"{one} NOT starts_with(stream_id::text, $1) LIMIT 1"
            if layout.byte_order:
                query = (
                    f"({one} stream_id < $1 ORDER BY stream_id LIMIT 1) UNION ALL "
                    f"({one} stream_id >= $1 || {layout.last()} ORDER BY stream_id LIMIT 1) LIMIT 1"
                )
            found: str | None = await fetchval(connection, query, as_stored(layout, prefix))
        return found

    async def marked(self, prefix: str, mark: Mark, on_progress: Callable[[int], None] | None = None) -> Marked:
        """Look at each event that `delete_marked` would delete, and return how many there are.

        Raises NotMarked, and StoreFailed where nothing can be deleted.
        """
        from esx.store.bulk.erase import Eraser

        async with self._reading() as (connection, layout):
            layout.check_appends()
            return await Eraser(connection, layout, prefix, mark).look(on_progress)

    async def delete_marked(
        self, prefix: str, mark: Mark, on_progress: Callable[[int], None] | None = None, *, batch: int | None = None
    ) -> int:
        """Delete the events of the streams whose id starts with `prefix`, and return how many there were.

        It is for the events of a load test. All of them must have `mark` in their metadata; else none is deleted, and
        NotMarked is raised. Each batch of `batch` events (None: 5,000) is a transaction, after which `on_progress` gets
        the number deleted so far; after an interruption the rest can be deleted later. Their numbers stay as dead gaps
        in global_seq. A projection that has handled these events keeps its results. The conflicts that were recorded on
        these streams are deleted too, which takes the right to delete from that table if there are any.
        """
        from esx.store.bulk.erase import BATCH, Eraser

        async with self._writing() as connection:
            layout = (await self._look(connection)).layout
            layout.check_appends()
            eraser = Eraser(connection, layout, prefix, mark, batch or BATCH)
            await eraser.look()
            return await eraser.delete(on_progress)
