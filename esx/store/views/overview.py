"""The views of what is in a store at a glance: its types, what happened in a time window, and its consumers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from esx.filter_language import filter_text
from esx.filters import Filter
from esx.layouts.category import category_sql
from esx.layouts.layout import Layout
from esx.postgres.literals import literal
from esx.store.filter_sql import literal_filter_sql, stored_filter
from esx.store.views.view import Store, View, joined
from esx.text import iso_utc


@dataclass(frozen=True, slots=True)
class TypesView(View):
    """The event types, as rows that were read before: an estimate is not the same twice.

    `lines` are the rows as JSON. With `full` the command counts all events, as the query does.
    """

    limited = False
    lines: tuple[str, ...] = ()
    full: bool = False

    @property
    def name(self) -> str:
        """What a file with the rows may be called."""
        return "types"

    async def rows(self, store: Store) -> AsyncIterator[bytes]:  # noqa: ARG002
        """Yield the types that were read."""
        yield joined(self.lines)

    def arguments(self, options: Sequence[str]) -> list[str]:
        """Return ``types`` with its options."""
        return ["types", *(["--full"] if self.full else []), *options]

    def select(self, layout: Layout) -> str:
        """Return the query for the types, which counts all events."""
        return (
            "SELECT e.event_type, count(*) AS events, min(e.global_seq) AS first_global_seq,\n"
            "       max(e.global_seq) AS last_global_seq\n"
            f"FROM {layout.shown_as} e\nGROUP BY e.event_type\nORDER BY events DESC, e.event_type"
        )


@dataclass(frozen=True, slots=True)
class SummaryView(View):
    """What happened from `since` on and before `until`, by category and type, against the window before."""

    limited = False
    since: datetime
    until: datetime
    where: Filter = field(default_factory=Filter)

    @property
    def name(self) -> str:
        """What a file with the rows may be called."""
        return "summary"

    async def rows(self, store: Store) -> AsyncIterator[bytes]:
        """Yield a row for each category and type."""
        found = await store.happened(self.since, self.until, where=self.where)
        yield joined([row.to_json() for row in found.rows])

    def arguments(self, options: Sequence[str]) -> list[str]:
        """Return ``summary`` with its options."""
        words = [filter_text(self.where)] if self.where else []
        return ["summary", f"--since={iso_utc(self.since)}", f"--until={iso_utc(self.until)}", *options, *words]

    def select(self, layout: Layout) -> str:
        """Return the query for the counts of both windows."""
        since, until = literal(self.since), literal(self.until)
        before = literal(self.since - (self.until - self.since))
        category = category_sql(layout, "e.stream_id::text")
        conditions = [
            f"e.created_at >= {before}",
            f"e.created_at < {until}",
            *literal_filter_sql(stored_filter(layout, self.where)),
        ]
        where = "\n  AND ".join(conditions)
        return (
            f"SELECT {category} AS category, e.event_type,\n"
            f"       count(*) FILTER (WHERE e.created_at >= {since}) AS events,\n"
            f"       count(*) FILTER (WHERE e.created_at < {since}) AS before\n"
            f"FROM {layout.shown_as} e\nWHERE {where}\n"
            "GROUP BY 1, 2\nORDER BY events DESC, before DESC, category, event_type"
        )


@dataclass(frozen=True, slots=True)
class ConsumersView(View):
    """The consumers, as rows that were read before: they do not stand still. `lines` are the rows as JSON.

    If some of them are `others`, of another tool, no query of one table reads them.
    """

    limited = False
    lines: tuple[str, ...] = ()
    others: bool = False

    @property
    def queried(self) -> bool:  # type: ignore[override]
        """Whether a query for psql reads the same rows."""
        return not self.others

    @property
    def name(self) -> str:
        """What a file with the rows may be called."""
        return "consumers"

    async def rows(self, store: Store) -> AsyncIterator[bytes]:  # noqa: ARG002
        """Yield the consumers that were read."""
        yield joined(self.lines)

    def arguments(self, options: Sequence[str]) -> list[str]:
        """Return ``consumers`` with its options."""
        return ["consumers", *options]

    def select(self, layout: Layout) -> str:
        """Return the query for what is recorded of the consumers."""
        return (
            "SELECT name, kind, position, paused, rate, last_error, error_seq, updated_at\n"
            f"FROM {layout.ours('consumers')}\nORDER BY name"
        )
