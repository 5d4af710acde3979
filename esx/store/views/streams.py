"""The view of streams."""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, replace
from textwrap import dedent

from esx.filters import EVERY_STREAM, StreamFilter
from esx.glob import glob_to_regex
from esx.layouts.category import column_category
from esx.layouts.layout import Layout
from esx.postgres.literals import literal
from esx.store.stream_ids import filter_as_stored
from esx.store.views.view import Store, View, ndjson


@dataclass(frozen=True, slots=True)
class StreamsView(View):
    """The streams that pass `where`, by name or by `recent` activity."""

    where: StreamFilter = EVERY_STREAM
    recent: bool = False

    @property
    def name(self) -> str:
        """What a file with the rows may be called."""
        return "streams"

    def rows(self, store: Store) -> AsyncIterator[bytes]:
        """Yield the streams."""
        return ndjson(store.streams(**asdict(self.where), recent=self.recent))

    def arguments(self, options: Sequence[str]) -> list[str]:
        """Return ``streams`` with its options."""
        chosen = [f"--{option}={text}" for option, text in asdict(self.where).items() if text not in ("", None)]
        chosen += ["--sort=recent"] if self.recent else []
        return ["streams", *chosen, *options]

    def select(self, layout: Layout) -> str:
        """Return the query for the streams."""
        stored = replace(self, where=filter_as_stored(layout, self.where))
        return stored._recent(layout) if self.recent else stored._by_name(layout)

    def _conditions(self, layout: Layout, column: str) -> str:
        where = self.where
        conditions = [f"starts_with({column}::text, {literal(where.prefix)})"] if where.prefix else []
        if where.match is not None:
            conditions.append(f"{column}::text ~ {literal(glob_to_regex(where.match))}")
        if where.contains is not None:
            conditions.append(f"strpos({column}::text, {literal(where.contains)}) > 0")
        if where.category is not None:
            conditions.append(f"{column_category(layout, column)} = {literal(where.category)}")
        return "\n  AND ".join(conditions or ["true"])

    def _recent(self, layout: Layout) -> str:
        table = layout.shown_as
        return (
            dedent(f"""\
            SELECT e.stream_id, e.stream_seq AS version,
                   e.stream_seq - (SELECT min(f.stream_seq) FROM {table} f WHERE f.stream_id = e.stream_id) + 1
                       AS events,
                   e.event_type AS last_event_type, e.created_at AS last_created_at, e.global_seq AS last_global_seq
            FROM {table} e
            WHERE NOT EXISTS (SELECT 1 FROM {table} n
                              WHERE n.stream_id = e.stream_id AND n.stream_seq > e.stream_seq)
              AND """)
            + f"{self._conditions(layout, 'e.stream_id')}\nORDER BY e.global_seq DESC"
        )

    def _by_name(self, layout: Layout) -> str:
        """Skip from stream to stream along the unique index, so that a limit bounds what is read."""
        prefix = self.where.start
        first = within = "true"
        if prefix and layout.byte_order:  # only then are ids with a prefix one range
            first = f"e.stream_id >= {literal(prefix)}"
            within = f"starts_with(ids.stream_id::text, {literal(prefix)})"
        table = layout.shown_as
        text = f"""\
            WITH RECURSIVE ids (stream_id) AS (
                (SELECT e.stream_id FROM {table} e WHERE @first ORDER BY e.stream_id LIMIT 1)
                UNION ALL
                SELECT (SELECT e.stream_id FROM {table} e WHERE e.stream_id > ids.stream_id
                        ORDER BY e.stream_id LIMIT 1)
                FROM ids WHERE ids.stream_id IS NOT NULL AND @within
            )
            SELECT ids.stream_id, last.stream_seq AS version, last.stream_seq - first.stream_seq + 1 AS events,
                   last.event_type AS last_event_type, last.created_at AS last_created_at,
                   last.global_seq AS last_global_seq
            FROM ids
            CROSS JOIN LATERAL (SELECT e.* FROM {table} e WHERE e.stream_id = ids.stream_id
                                ORDER BY e.stream_seq DESC LIMIT 1) last
            CROSS JOIN LATERAL (SELECT e.stream_seq FROM {table} e WHERE e.stream_id = ids.stream_id
                                ORDER BY e.stream_seq LIMIT 1) first
            WHERE @conditions"""
        # In one pass, because the inserted text may contain one of these names.
        parts = {"@first": first, "@within": within, "@conditions": self._conditions(layout, "ids.stream_id")}
        return re.sub("|".join(parts), lambda match: parts[match[0]], dedent(text))
