"""Where an id is among all stream ids, estimated from PostgreSQL's statistics, for scrollbars and jumps."""

from bisect import bisect_left
from collections.abc import Sequence

import asyncpg

from esx.layouts.layout import Layout
from esx.layouts.table_tree import below
from esx.postgres.literals import literal
from esx.postgres.values import as_bytes, fetchrow

_DIGITS = 8
"""How many characters after the shared start of two bounds decide where a name is between them."""
AFTER_PREFIX = "\U0010ffff" * 16
"""Appended to a prefix, on a scale it comes after every id with the prefix; in SQL `Layout.last` does that."""
_LOW, _HIGH = 0x2D, 0x7B
"""Most characters of ids are from ``-`` to ``z``."""


class NameScale:
    """Maps ids to fractions of the list of all ids, and back; `bounds` divide it into equal parts.

    The bounds are from the last ANALYZE, and weighted by the number of events of a stream: good enough for a scrollbar.
    """

    def __init__(self, bounds: Sequence[str]) -> None:
        self._bounds = bounds
        # Compared as the index compares them: by bytes.
        self._keys = [as_bytes(bound) for bound in bounds]

    def rank(self, name: str) -> float:
        """Return the fraction, 0 to 1, of ids that come before `name`."""
        keys = self._keys
        at = bisect_left(keys, as_bytes(name))
        if at == 0:
            return 0.0
        if at == len(keys):
            return 1.0
        low, high = self._bounds[at - 1], self._bounds[at]
        shared = _shared(low, high)
        bottom, top, own = (_number(text[shared:]) for text in (low, high, name))
        part = (own - bottom) / (top - bottom) if top > bottom else 0.0
        return (at - 1 + max(0.0, min(part, 1.0))) / (len(keys) - 1)

    def name_at(self, fraction: float) -> str:
        """Return a text that comes after about this fraction of the ids. It may not be an id."""
        place = max(0.0, min(fraction, 1.0)) * (len(self._bounds) - 1)
        at = min(int(place), len(self._bounds) - 2)
        low, high = self._bounds[at], self._bounds[at + 1]
        shared = _shared(low, high)
        bottom, top = _number(low[shared:]), _number(high[shared:])
        return low[:shared] + _text(bottom + (top - bottom) * (place - at))


def _shared(low: str, high: str) -> int:
    return next(
        (at for at, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), min(len(low), len(high))
    )


def _number(text: str) -> float:
    """Return `text` as a fraction whose digits are its characters."""
    base = _HIGH - _LOW + 1
    value, unit = 0.0, 1.0
    for char in text[:_DIGITS]:
        unit /= base
        value += unit * max(0, min(ord(char) - _LOW + 1, base - 1))
    return value


def _text(value: float) -> str:
    base = _HIGH - _LOW + 1
    out = []
    for _ in range(_DIGITS):
        value *= base
        digit = int(value)
        value -= digit
        if digit == 0:
            break
        out.append(chr(_LOW + digit - 1))
    return "".join(out)


async def name_scale(connection: asyncpg.Connection, layout: Layout) -> NameScale | None:
    """Return the scale of the table's stream ids; None if ids do not sort by bytes, or before the first ANALYZE."""
    if not layout.byte_order or layout.keys is not None or layout.name_table is not None:
        return None
    row = await fetchrow(
        connection,
        f"WITH RECURSIVE {below(f'SELECT {layout.oid}::oid')} SELECT s.histogram_bounds::text::text[] "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname "
        # Statistics of the whole table, if it has parts: PostgreSQL keeps some of the parent alone too.
        "CROSS JOIN (SELECT sum(greatest(p.reltuples, 0)) FILTER (WHERE p.relkind = 'r') AS rows, "
        "count(*) > 1 AS parts FROM below JOIN pg_class p ON p.oid = below.oid) t "
        f"WHERE c.oid = {layout.oid} AND s.attname = {literal(layout.stored('stream_id'))} AND s.inherited = t.parts",
    )
    if row is None or row[0] is None or len(row[0]) < 2:
        return None
    return NameScale(row[0])
