"""The SQL for the line of an event, as `Event.to_json` writes it: PostgreSQL makes the lines of an export."""

from itertools import starmap

from esx.layouts.layout import Layout
from esx.payload import STARTS
from esx.postgres.values import moment_text

PREFIX = b'{"global_seq": '
"""How each line begins."""


def line_sql(layout: Layout) -> str:
    """Return the expression for the line of an event ``e``."""
    event_id = "NULL::uuid" if layout.event_id is None else f"e.{layout.event_id}"
    stream, _, event_type = layout.place("e")
    return f"""
        '{PREFIX.decode()}' || {"e.global_seq" if layout.numbered else "'null'"}
        || ', "stream_id": ' || coalesce(to_json({stream})::text, 'null')
        || ', "stream_seq": ' || coalesce(e.stream_seq::text, 'null') || '{_first(layout)}'
        || ', "event_type": ' || coalesce(to_json({event_type})::text, 'null')
        || ', "data": ' || coalesce({_payload("e.data")}, 'null')
        || ', "metadata": ' || coalesce({_payload("e.metadata")}, 'null')
        || ', "created_at": ' || coalesce({_moment("e.created_at")}, 'null')
        || ', "event_id": ' || coalesce(to_json({event_id})::text, 'null')
        || {_notes(layout)} {"".join(starmap(_link, layout.link_columns.items()))} || '}}'
    """


def plain_line_sql() -> str:
    """Return the same for a table whose columns are as in schema.sql, which PostgreSQL makes faster: without casts."""
    usual = "e.created_at >= '0001-01-01Z'::timestamptz AND e.created_at < '10000-01-01Z'::timestamptz"
    return f"""concat(
        '{PREFIX.decode()}', e.global_seq, ', "stream_id": ', to_json(e.stream_id), ', "stream_seq": ', e.stream_seq,
        ', "event_type": ', to_json(e.event_type), ', "data": ', e.data,
        ', "metadata": ', coalesce(e.metadata, 'null'::jsonb), ', "created_at": "',
        CASE WHEN {usual} THEN to_char(e.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
             ELSE {moment_text("e.created_at")} END, '", "event_id": "', e.event_id, '"}}')
    """


def _first(layout: Layout) -> str:
    """Return what a line says of the number of a stream's first event, which esx's own streams do not need."""
    return "" if layout.first == 0 else f', "first": {layout.first}'


def _payload(column: str) -> str:
    # A column of type json keeps the text as it was sent, which may have several lines.
    return (
        f"CASE WHEN pg_typeof({column}) = 'json'::regtype THEN translate({column}::text, E'\\t\\n\\r', '   ') "
        f"ELSE {column}::jsonb::text END"
    )


def _moment(column: str) -> str:
    # A column of type text may hold anything.
    return (
        f"CASE WHEN pg_typeof({column}) = 'text'::regtype THEN to_json({column}::text)::text "
        f"""ELSE '"' || {moment_text(f"{column}::timestamptz")} || '"' END"""
    )


def _link(name: str, column: str) -> str:
    """Return the expression for an id of a trail that is not in the metadata, where an event has it."""
    return f"""|| coalesce(', "{name}": ' || to_json(e.{column}::text)::text, '')"""


def _notes(layout: Layout) -> str:
    """Return the expression for what is said of payloads that are no JSON."""
    if not layout.packed:
        return "''"
    return " || ".join(_note(name) for name in ("data", "metadata"))


def _note(column: str) -> str:
    raw = f"e.{column}_raw"
    kinds = " ".join(
        f"WHEN substring({raw} FROM 1 FOR {len(start)}) = decode('{start.hex()}', 'hex') THEN ' (looks like {kind})'"
        for start, kind in STARTS
    )
    size = f"to_char(octet_length({raw}), 'FM999,999,999,990')"
    return (
        f'CASE WHEN e.{column} IS NULL AND {raw} IS NOT NULL THEN \', "{column}_note": "\' || {size} '
        f"|| ' bytes, not JSON' || CASE {kinds} ELSE '' END || '\"' ELSE '' END"
    )
