"""Makes events of rows, also of rows whose data are bytes."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar, cast

from esx.layouts.layout import PREVIEW, Layout
from esx.model import Event, EventPreview
from esx.payload import json_of, looks_like

_DATA_OF, _METADATA_OF = attrgetter("data_json"), attrgetter("metadata_json")
Found = TypeVar("Found", Event, EventPreview)


def event_of(layout: Layout, kind: type[Found] = Event) -> Callable[[Sequence[Any]], Found]:  # type: ignore[assignment]
    """Return the function that makes an event, or a preview of one, of a row of this layout."""
    if not layout.packed:
        # As `kind._make` does, without a call of Python for each row.
        return cast("Callable[[Sequence[Any]], Found]", partial(tuple.__new__, kind))
    unpack = _unpacked if layout.moment is None else partial(_unpacked, moment=layout.moment)
    return cast("Callable[[Sequence[Any]], Found]", unpack if kind is Event else _preview)


def characters(events: Sequence[Event]) -> int:
    """Return how many characters of JSON the events hold."""
    size = sum(map(len, map(_DATA_OF, events)))
    return size + sum(map(len, filter(None, map(_METADATA_OF, events))))


def _unpacked(row: Sequence[Any], moment: Callable[[bytes], datetime | None] | None = None) -> Event:
    global_seq, stream_id, stream_seq, event_type, data, metadata, created_at, event_id = row
    return Event._make(
        (
            global_seq,
            stream_id,
            stream_seq,
            event_type,
            json_of(data) or "null",
            None if metadata is None else json_of(metadata),
            created_at if moment is None or data is None else moment(data),
            event_id,
        )
    )


def _preview(row: Sequence[Any]) -> EventPreview:
    preview = EventPreview._make(row)
    start = preview.data_start
    if not isinstance(start, bytes):
        return preview
    text = start.decode("utf-8", "replace")[: PREVIEW + 1]
    if text[:1] not in ("{", "[", '"'):
        kind = looks_like(start)
        text = f"{preview.data_bytes:,} bytes{f', {kind}' if kind else ''}"
    return preview._replace(data_start=text)
