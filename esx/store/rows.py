"""Makes events of rows, also of rows whose data are bytes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, TypeVar, cast, overload

from esx.layouts.layout import PREVIEW, Layout
from esx.model import Event, EventPreview
from esx.payload import jsons_of, looks_like

_DATA_OF, _METADATA_OF = map(itemgetter, map(Event._fields.index, ("data_json", "metadata_json")))
_AS_TUPLE = itemgetter(slice(None))
"""A tuple of a row: Python goes through a record of asyncpg in twice the time."""
_LONG = 200
"""Of a page with more events `about_characters` looks at every `_STEP`-th; a prime, as events often come in cycles."""
_STEP = 13
Found = TypeVar("Found", Event, EventPreview)
Row = Sequence[Any]


def events_of(layout: Layout, kind: type[Found] = Event) -> Callable[[Sequence[Row]], Iterator[Found]]:  # type: ignore[assignment]
    """Return the function that makes events, or previews of them, of rows of this layout, each when it is asked for.

    So those that are dropped at once do not make Python search for garbage among all of a page.
    """
    if not layout.packed:
        return partial(_made, kind)
    if kind is not Event:
        return cast("Callable[[Sequence[Row]], Iterator[Found]]", partial(map, _preview))
    return lambda rows: _made(kind, zip(*_decoded(layout, rows), strict=True))


def _made(kind: type[Found], rows: Iterable[Row]) -> Iterator[Found]:
    # As `kind._make` does, without a call of Python for each row.
    return map(tuple.__new__, repeat(kind), map(_AS_TUPLE, rows))


class PageEvents(Sequence[Event]):
    """The events of a page of rows, each made when it is asked for, and made again when it is asked for again.

    So an event that is dropped before the next one costs Python no search for garbage, and payloads in bytes are
    decoded only if somebody reads events.
    """

    __slots__ = ("_columns", "_layout", "_length", "_rows")

    def __init__(self, layout: Layout, rows: Sequence[Row]) -> None:
        self._layout = layout
        self._rows = rows
        """The rows, none once they are decoded."""
        self._columns: Sequence[Sequence[Any]] | None = None
        self._length = len(rows)

    def characters(self, step: int = 1) -> int:
        """Return how many characters of JSON every `step`-th event holds; of payloads in bytes, how many bytes."""
        if not self._length:
            return 0
        if self._columns is None:
            rows = self._rows[::step]
            texts = chain(map(_DATA_OF, rows), map(_METADATA_OF, rows))
        else:
            texts = chain(_DATA_OF(self._columns)[::step], _METADATA_OF(self._columns)[::step])
        return sum(map(len, filter(None, texts)))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Event]:
        if self._layout.packed and self._columns is None:
            self._columns = _decoded(self._layout, self._rows)
            self._rows = ()
        rows = self._rows if self._columns is None else zip(*self._columns, strict=True)
        return _made(Event, rows)

    @overload
    def __getitem__(self, place: int) -> Event: ...
    @overload
    def __getitem__(self, place: slice) -> list[Event]: ...
    def __getitem__(self, place: int | slice) -> Event | list[Event]:
        chosen = place if isinstance(place, slice) else slice(place, place + 1 or None)
        if self._columns is None:
            events = list(events_of(self._layout)(self._rows[chosen]))
        else:
            events = list(map(Event._make, zip(*(column[chosen] for column in self._columns), strict=True)))
        return events if isinstance(place, slice) else events[0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PageEvents | list | tuple) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


def characters(events: Sequence[Event]) -> int:
    """Return how many characters of JSON the events hold, as `PageEvents` says."""
    return events.characters() if isinstance(events, PageEvents) else sum(event.characters for event in events)


def about_characters(events: Sequence[Event]) -> int:
    """Return about how many: of a long page only some events are looked at, as to look at all takes its time."""
    if not isinstance(events, PageEvents):
        return characters(events)
    step = _STEP if len(events) > _LONG else 1
    return events.characters(step) * step


def _decoded(layout: Layout, rows: Sequence[Row]) -> Sequence[Sequence[Any]]:
    """Return the columns of events whose payloads are read as bytes."""
    if not rows:
        return ()
    # By columns, as a call of Python for each row takes longer than all that is done.
    *place, data, metadata, created_at, ids = zip(*rows, strict=True)
    times = created_at if layout.moments is None else layout.moments(data)
    texts = jsons_of(data)
    if None in data:
        texts = ["null" if text is None else text for text in texts]
    return (*place, texts, jsons_of(metadata), times, ids)


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
