"""Makes events of rows, also of rows whose data are bytes."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, TypeVar, cast

from esx.layouts.layout import PREVIEW, Layout
from esx.model import Event, EventPreview
from esx.payload import jsons_of, looks_like

_DATA_OF, _METADATA_OF = map(itemgetter, map(Event._fields.index, ("data_json", "metadata_json")))
Found = TypeVar("Found", Event, EventPreview)
Row = Sequence[Any]


def events_of(layout: Layout, kind: type[Found] = Event) -> Callable[[Sequence[Row]], Iterator[Found]]:  # type: ignore[assignment]
    """Return the function that makes events, or previews of them, of rows of this layout, each when it is asked for.

    So those that are dropped at once do not make Python search for garbage among all of a page.
    """
    # As `kind._make` does, without a call of Python for each row.
    made = partial(map, partial(tuple.__new__, kind))
    if not layout.packed:
        return made
    if kind is not Event:
        return cast("Callable[[Sequence[Row]], Iterator[Found]]", partial(map, _preview))
    moments = layout.moments

    def unpacked(rows: Sequence[Row]) -> Iterator[Found]:
        if not rows:
            return iter(())
        # By columns, as a call of Python for each row takes longer than all that is done.
        *place, data, metadata, created_at, ids = zip(*rows, strict=True)
        times = created_at if moments is None else moments(data)
        texts = jsons_of(data)
        if None in data:
            texts = ["null" if text is None else text for text in texts]
        return made(zip(*place, texts, jsons_of(metadata), times, ids, strict=True))

    return unpacked


def characters(events: Sequence[Event]) -> int:
    """Return how many characters of JSON the events hold."""
    size = sum(map(len, map(_DATA_OF, events)))
    return size + sum(map(len, filter(None, map(_METADATA_OF, events))))


def start_text(start: str | bytes | None, size: int) -> str | None:
    """Return the start of an event's data as a text, of what `Layout.data_start` reads; None for large data."""
    if not isinstance(start, bytes):
        return start if start is not None or size else "null"
    text = start.decode("utf-8", "replace")[: PREVIEW + 1]
    if text[:1] not in ("{", "[", '"'):
        kind = looks_like(start)
        text = f"{size:,} bytes{f', {kind}' if kind else ''}"
    return text


def _preview(row: Sequence[Any]) -> EventPreview:
    preview = EventPreview._make(row)
    return preview._replace(data_start=start_text(preview.data_start, preview.data_bytes))
