"""What the lists show, as plain rows made from the store's values: small, whatever the size of a payload."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from esx.text import visible
from esx.tui.cells import size_of

if TYPE_CHECKING:
    from datetime import datetime

    from esx.store.categories import CategorySummary
    from esx.store.model import Event, EventPreview, StreamSummary

PREVIEW = 400
"""How many characters of an event's texts a row keeps."""


class EventRow(NamedTuple):
    """An event in a list. The rest of it is read when it is looked at."""

    global_seq: int
    stream: str
    stream_seq: int
    event_type: str
    created_at: datetime | None
    preview: str

    @classmethod
    def of(cls, event: Event) -> EventRow:
        """Return the row for `event`, its texts safe to show and cut to what a line can hold."""
        return cls(
            event.global_seq,
            visible(event.stream_id, limit=PREVIEW),
            event.stream_seq,
            visible(event.event_type, limit=PREVIEW),
            event.created_at,
            visible(event.data_json, limit=PREVIEW),
        )

    @classmethod
    def of_preview(cls, event: EventPreview) -> EventRow:
        """Return the row for a preview; data too large for one show their size."""
        start = f"… {size_of(event.data_bytes)} stored" if event.data_start is None else event.data_start
        return cls(
            event.global_seq,
            visible(event.stream_id, limit=PREVIEW),
            event.stream_seq,
            visible(event.event_type, limit=PREVIEW),
            event.created_at,
            visible(start, limit=PREVIEW),
        )


class StreamRow(NamedTuple):
    """A stream in a list, or a `category` of them; with neither, the row that stands for all streams.

    `under` is the place of the open category that a stream is listed under.
    """

    label: str
    summary: StreamSummary | None
    category: CategorySummary | None = None
    is_open: bool = False
    under: str | None = None

    @classmethod
    def of(cls, summary: StreamSummary) -> StreamRow:
        """Return the row for a stream."""
        return cls(visible(summary.stream_id, limit=PREVIEW), summary)

    @classmethod
    def within(cls, summary: StreamSummary, place: str) -> StreamRow:
        """Return the row for a stream under its category."""
        return cls("  " + visible(summary.stream_id, limit=PREVIEW), summary, under=place)

    @classmethod
    def heading(cls, category: CategorySummary, *, is_open: bool) -> StreamRow:
        """Return the row for a category."""
        label = visible(category.category, limit=PREVIEW) or "(none)"
        return cls(f"{'▾' if is_open else '▸'} {label}", None, category, is_open)


ALL_STREAMS = StreamRow("$all", None)
