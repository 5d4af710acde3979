"""The columns of an event as lines, without data and metadata."""

import json

from esx.model import UNNUMBERED, Event
from esx.text import ago, size_of, visible
from esx.times import iso
from esx.tui.cells import fit, tint_of, wrap
from esx.tui.event.blocks import TextBlock
from esx.tui.event.jsonlayout import Span

_LABEL = 11
_LONGEST_ID = 400


def heading(title: str, text: str = "") -> TextBlock:
    """Return a line above JSON text, with its size where that is large."""
    size = f"  {size_of(len(text))}" if len(text) >= 1000 else ""
    return TextBlock([[Span(title, "heading"), Span(size, "label")]])


def _number(number: int) -> str:
    return "–" if number == UNNUMBERED else str(number)


def columns(event: Event, width: int) -> list[list[Span]]:
    """Return lines with a label and a value for each column; long values take several lines."""
    shown_type = visible(event.event_type, limit=_LONGEST_ID)
    created = iso(event.created_at)
    when = created if event.created_at is None else f"{created}  {_when(ago(event.created_at))}"
    if _LABEL + len(when) <= width:
        created = when
    fields = [
        ("global_seq", _number(event.global_seq), "number"),
        ("stream_id", visible(event.stream_id, limit=_LONGEST_ID), "strong"),
        ("stream_seq", _number(event.stream_seq), "number"),
        ("event_type", shown_type, f"type:{tint_of(shown_type, event.stream_id)}"),
        ("created_at", created, ""),
        ("event_id", "none" if event.event_id is None else str(event.event_id), ""),
    ]
    lines: list[list[Span]] = []
    for label, value, role in fields:
        pieces = wrap(value, max(width - _LABEL, 8))
        lines.append([Span(label.ljust(_LABEL), "label"), Span(pieces[0], role)])
        lines += [[Span(" " * _LABEL), Span(piece, role)] for piece in pieces[1:]]
    return lines


def column_values(event: Event, width: int) -> dict[int, str]:
    """Return the JSON to copy for each line of `columns`, by line number."""
    values = [
        _number(event.global_seq),
        event.stream_id,
        _number(event.stream_seq),
        event.event_type,
        iso(event.created_at),
    ]
    values.append(str(event.event_id))
    copies: dict[int, str] = {}
    at = -1
    for line, spans in enumerate(columns(event, width)):
        at += 1 if spans[0].text.strip() else 0
        copies[line] = json.dumps(values[at], ensure_ascii=False)
    return copies


def summary(event: Event, width: int) -> list[list[Span]]:
    """Return the columns in two lines."""
    return [
        [Span(fit(visible(event.stream_id, limit=_LONGEST_ID), width), "strong")],
        [
            Span("global ", "label"),
            Span(_number(event.global_seq), "number"),
            Span("  stream ", "label"),
            Span(_number(event.stream_seq), "number"),
            Span(f"  {_when(ago(event.created_at))}", "label"),
        ],
    ]


def _when(short: str) -> str:
    if short == "-":
        return "no time"
    return "just now" if short == "now" else short.removeprefix("+") + (" ahead" if short.startswith("+") else " ago")
