"""The columns of lists of streams and of events."""

from esx.text import ago, round_estimate, short_count, visible
from esx.tui.cells import Cell, tint_of
from esx.tui.lists.column import ListColumn
from esx.tui.lists.dates import time_column
from esx.tui.lists.previews import Previews
from esx.tui.lists.rows import EventRow, StreamRow


def stream_columns(*, by_category: bool = False) -> list[ListColumn[StreamRow]]:
    """Return the columns of a list of streams; a category counts its streams, a stream its events."""
    return [
        ListColumn(
            "stream", lambda row: Cell(row.label, "strong" if row.summary is None else ""), share=3, middle=True
        ),
        ListColumn(
            "count" if by_category else "events", lambda row: Cell(_count(row), "number"), 7, right=True, needs=24
        ),
        ListColumn("last type", _last_type, share=2, needs=40),
        ListColumn(
            "last",
            lambda row: Cell(ago(row.summary.last_created_at) if row.summary else "", "muted"),
            width=4,
            right=True,
            needs=16,
            ages=True,
        ),
    ]


def _count(row: StreamRow) -> str:
    if row.summary is not None:
        return short_count(row.summary.events)
    if row.category is None:
        return ""
    streams = row.category.streams
    if streams.exact:
        return short_count(streams.count)
    return "~" + short_count(round_estimate(streams.count)) if streams.known else short_count(streams.low) + "+"


def _last_type(row: StreamRow) -> Cell:
    if row.category is not None:
        return Cell("stream" if row.category.streams.exact and row.category.streams.count == 1 else "streams", "muted")
    return _typed(visible(row.summary.last_event_type, limit=200), row.summary.stream_id) if row.summary else Cell("")


def event_columns(*, in_all: bool) -> list[ListColumn[EventRow]]:
    """Return the columns of a list of events, of one stream or of all."""
    number = ListColumn[EventRow](
        "global" if in_all else "seq",
        lambda row: Cell(str(row.global_seq if in_all else row.stream_seq), "number"),
        width=6,
        right=True,
    )
    previews = Previews()
    stream = ListColumn[EventRow]("stream", lambda row: Cell(row.stream), share=3, middle=True)
    rest = [
        ListColumn[EventRow]("type", lambda row: _typed(row.event_type, row.stream), share=3),
        time_column(lambda row: row.created_at, needs=80 if in_all else 60),
        ListColumn[EventRow]("ago", lambda row: Cell(ago(row.created_at), "muted"), 4, right=True, ages=True),
        ListColumn[EventRow](
            "data", lambda row: Cell(previews.text(row), "muted"), needs=40, rest=True, prepare=previews.prepare
        ),
    ]
    return [number, stream, *rest] if in_all else [number, *rest]


def _typed(name: str, stream_id: str) -> Cell:
    return Cell(name, tint=tint_of(name, stream_id))
