"""The rows of the lists, made from the store's values: small for any size of payload."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from esx.model import UNNUMBERED, Event, EventPreview, StreamSummary
from esx.payload import Undecoded
from esx.store.read.categories import CategorySummary
from esx.text import size_of, visible

PREVIEW = 400
"""How many characters of an event's texts a row keeps."""


def shown_start(start: str | None, size: int) -> str:
    """Return what a list shows of data that begin with `start`; of data that are too large for a list, their size."""
    return f"… {size_of(size)} stored" if start is None else start


class EventRow(NamedTuple):
    """An event in a list. The rest of it is read when the event is opened."""

    global_seq: int
    stream: str
    stream_seq: int
    event_type: str
    created_at: datetime | None
    preview: str

    @classmethod
    def of(cls, event: Event) -> EventRow:
        """Return the row for `event`, its texts safe to show and cut to what a line can hold."""
        data = event.data_json
        return cls._of(event, data.note if isinstance(data, Undecoded) else data)

    @classmethod
    def of_preview(cls, event: EventPreview) -> EventRow:
        """Return the row for a preview; data that is too large shows its size."""
        return cls._of(event, shown_start(event.data_start, event.data_bytes))

    def shows(self, event: Event) -> bool:
        """Return whether it is the row of that event."""
        place = (event.global_seq, visible(event.stream_id, limit=PREVIEW), event.stream_seq)
        return place == (self.global_seq, self.stream, self.stream_seq)

    @classmethod
    def _of(cls, event: Event | EventPreview, data: str) -> EventRow:
        stream, kind, preview = (visible(text, limit=PREVIEW) for text in (event.stream_id, event.event_type, data))
        return cls(event.global_seq, stream, event.stream_seq, kind, event.created_at, preview)


class StreamRow(NamedTuple):
    """A stream in a list, or a `category` of streams; with neither, the row of all streams.

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


def numbered(global_seq: int) -> int | None:
    """Return the number of an event, None where there is no global order."""
    return None if global_seq == UNNUMBERED else global_seq
