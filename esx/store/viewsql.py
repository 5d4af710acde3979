"""The query of a view as text, to be run with psql: every value in it is a quoted literal."""

from __future__ import annotations

import re
from datetime import datetime
from textwrap import dedent
from typing import TYPE_CHECKING

from esx.store.barrier import Filter
from esx.store.glob import glob_prefix, glob_to_regex
from esx.store.views import EventsView, EventView, FeedView, StreamsView, TrailView
from esx.text import iso_utc, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esx.store.layout import Layout
    from esx.store.views import View


def sql_of(view: View, layout: Layout, limit: int | None = None) -> str:
    """Return the query whose rows are those of `view`, at most `limit`. It ends with a semicolon.

    Raises InvalidQuery for a glob that is none.
    """
    if isinstance(view, StreamsView):
        text = _recent(view, layout) if view.recent else _by_name(view, layout)
    elif isinstance(view, EventsView):
        text = _events(view, layout)
    elif isinstance(view, EventView):
        text = _select(layout, [f"e.global_seq = {view.global_seq}"], "e.global_seq")
    elif isinstance(view, FeedView):
        text = _select(layout, [f"e.global_seq > {view.after}", *_chosen(view.where)], "e.global_seq")
    else:
        assert isinstance(view, TrailView)
        members = ", ".join(map(str, view.members)) or "NULL"
        text = _select(layout, [f"e.global_seq IN ({members})"], "e.global_seq")
    return f"{text}\nLIMIT {limit};" if limit is not None else f"{text};"


def literal(value: str | int | datetime | None) -> str:
    """Return a value as a literal of PostgreSQL's, whatever is in it.

    What a terminal would obey or hide is escaped, so that the text can be pasted there too.
    """
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        return f"'{iso_utc(value)}'::timestamptz"
    if "\\" not in value and visible(value) == value:
        return f"'{value.replace(chr(39), chr(39) * 2)}'"
    return "E'" + "".join(map(_escaped, value)) + "'"


def _escaped(char: str) -> str:
    if char in "\\'":
        return char * 2
    if visible(char) == char:
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no text
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _select(layout: Layout, conditions: Sequence[str], order: str) -> str:
    where = "\n  AND ".join(conditions)
    return f"SELECT {layout.columns()}\nFROM {layout.called} e\nWHERE {where}\nORDER BY {order}"


def _chosen(where: Filter) -> list[str]:
    conditions, arguments = where.sql(1)
    # In one pass: an argument may look like a parameter itself.
    return [re.sub(r"\$(\d+)", lambda match: literal(arguments[int(match[1]) - 1]), each) for each in conditions]


def _events(view: EventsView, layout: Layout) -> str:
    key = "e.global_seq" if view.stream_id is None else "e.stream_seq"
    conditions = [] if view.stream_id is None else [f"e.stream_id = {literal(view.stream_id)}"]
    if view.start is not None:
        conditions.append(f"{key} {'<=' if view.backwards else '>='} {view.start}")
    conditions += _chosen(Filter(event_type=view.where.event_type, where=view.where.where))
    if view.since is not None:
        conditions.append(f"e.created_at >= {literal(view.since)}")
    if view.until is not None:
        conditions.append(f"e.created_at < {literal(view.until)}")
    return _select(layout, conditions or ["true"], f"{key} DESC" if view.backwards else key)


def _stream_conditions(view: StreamsView, column: str) -> list[str]:
    conditions = [f"starts_with({column}, {literal(view.prefix)})"] if view.prefix else []
    if view.match is not None:
        conditions.append(f"{column} ~ {literal(glob_to_regex(view.match))}")
    if view.contains is not None:
        conditions.append(f"strpos({column}, {literal(view.contains)}) > 0")
    return conditions or ["true"]


def _recent(view: StreamsView, layout: Layout) -> str:
    conditions = "\n  AND ".join(_stream_conditions(view, "e.stream_id"))
    return (
        dedent(f"""\
        SELECT e.stream_id, e.stream_seq AS version,
               e.stream_seq - (SELECT min(f.stream_seq) FROM {layout.called} f WHERE f.stream_id = e.stream_id) + 1
                   AS events,
               e.event_type AS last_event_type, e.created_at AS last_created_at, e.global_seq AS last_global_seq
        FROM {layout.called} e
        WHERE NOT EXISTS (SELECT 1 FROM {layout.called} n
                          WHERE n.stream_id = e.stream_id AND n.stream_seq > e.stream_seq)
          AND """)
        + f"{conditions}\nORDER BY e.global_seq DESC"
    )


def _by_name(view: StreamsView, layout: Layout) -> str:
    """Skip from stream to stream along the unique index, so that a limit bounds what is read."""
    prefix = glob_prefix(view.match) if view.match is not None else view.prefix
    # Only where ids sort by bytes are those with a prefix one range.
    first = f"e.stream_id >= {literal(prefix)}" if prefix and layout.byte_order else "true"
    within = f"starts_with(ids.stream_id, {literal(prefix)})" if prefix and layout.byte_order else "true"
    conditions = "\n  AND ".join(_stream_conditions(view, "ids.stream_id"))
    table = layout.called
    text = f"""\
        WITH RECURSIVE ids (stream_id) AS (
            (SELECT e.stream_id FROM {table} e WHERE @first ORDER BY e.stream_id LIMIT 1)
            UNION ALL
            SELECT (SELECT e.stream_id FROM {table} e WHERE e.stream_id > ids.stream_id ORDER BY e.stream_id LIMIT 1)
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
    parts = {"@first": first, "@within": within, "@conditions": conditions}
    return re.sub("|".join(parts), lambda match: parts[match[0]], dedent(text))
