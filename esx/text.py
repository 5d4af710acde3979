"""Showing text that nobody vouches for: ids, types and payloads can hold anything.

What reaches a terminal must neither be obeyed by it (control sequences) nor reorder it (bidirectional
overrides), and must stay on its own line.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from esx.moment import FarTime

_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)}
_PICTURES[0x7F] = "\u2421"
# C1 controls are obeyed by some terminals; line and paragraph separators break lines; the rest reorder or hide
# text ("Trojan Source", CVE-2021-42574), take as many cells as the terminal likes (variation selectors), or cannot be
# encoded at all (surrogates).
_ESCAPED = [
    *range(0x80, 0xA0),
    0x00AD,
    0x061C,
    0x180E,
    *range(0x200B, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xFE00, 0xFE10),
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xD800, 0xE000),
    *range(0x1D173, 0x1D17B),
    *range(0xE0000, 0xE0080),
    *range(0xE0100, 0xE01F0),
]
_TABLE: dict[int, str] = _PICTURES | {
    code: (f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}") for code in _ESCAPED
}
# What Python's surrogateescape makes of a byte that is no text: see `bytes_from_shown`.
_BYTE = "\ufffd\\x"
_TABLE |= {0xDC00 + byte: f"{_BYTE}{byte:02x}" for byte in range(0x80, 0x100)}
_SHOWN_BYTE = re.compile(r"\ufffd\\x([89a-f][0-9a-f])")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_TABLE_KEEPING_LINES = {code: shown for code, shown in _TABLE.items() if code not in (0x09, 0x0A)}


def visible(text: str, *, limit: int | None = None) -> str:
    """Return `text` on one line with nothing in it that a terminal would obey.

    Control characters become control pictures (U+2400 block), invisible and reordering characters become
    ``\\uXXXX`` escapes, a byte that is no text becomes ``\ufffd\\xNN``. With `limit`, at most that many characters of
    `text` are looked at, and an ellipsis marks the cut, so that a 100 MB value costs no more than a short one.
    """
    if limit is not None and len(text) > limit:
        text = text[: max(limit - 1, 0)] + "…"
    # Whatever else the table holds, Python takes for not printable; looking is ten times as fast as translating.
    if text.isprintable() and (text.isascii() or not _SELECTORS.search(text)):
        return text
    return text.translate(_TABLE)


def visible_lines(text: str) -> str:
    """Like `visible`, keeping line feeds and tabs: for text already laid out over lines."""
    return text.translate(_TABLE_KEEPING_LINES)


def bytes_from_shown(text: str) -> str:
    """Return `text` with the bytes that `visible` shows in it, as ``\ufffd\\xNN``, as the store's own names hold them.

    A name whose bytes are no text is handed over as Python hands over such a file name: each byte that is none is one
    of the characters U+DC80 to U+DCFF (PEP 383), which no text in PostgreSQL can hold.
    """
    return _SHOWN_BYTE.sub(lambda byte: chr(0xDC00 + int(byte[1], 16)), text) if _BYTE in text else text


def is_text(text: str) -> bool:
    """Return whether there is nothing in `text` that UTF-8 cannot hold, as a byte that was no text."""
    return text.isascii() or _SURROGATE.search(text) is None


def encodable(json: str) -> str:
    """Return JSON so that it can be written as UTF-8: a byte that is no text stands in it as `visible` shows it."""
    return json if is_text(json) else _SURROGATE.sub(_escaped_in_json, json)


def _escaped_in_json(found: re.Match[str]) -> str:
    code = ord(found[0])
    # A lone surrogate is no JSON that everybody reads.
    return f"{_BYTE.replace(chr(92), chr(92) * 2)}{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def iso_utc(moment: datetime | None) -> str:
    """Return `moment` as ISO 8601 in UTC with microseconds, e.g. ``2026-08-07T14:00:00.123456Z``; ``-`` for none.

    A time that Python cannot hold is written as PostgreSQL does, e.g. ``infinity``.
    """
    if moment is None:
        return "-"
    if isinstance(moment, FarTime):
        return moment.text
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """Return how long ago `moment` was in at most four characters, e.g. ``now``, ``42s``, ``3m``; ``-`` for none."""
    if moment is None:
        return "-"
    if isinstance(moment, FarTime):
        return moment.age
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    sign = "+" if seconds <= -1 else ""
    seconds = abs(seconds)
    if seconds < 1:
        return "now"
    for size, unit in ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{sign}{int(seconds // size)}{unit}"
    return f"{sign}{int(seconds)}s"


def lapse(seconds: float) -> str:
    """Return a time span in two units at most, e.g. ``12 ms``, ``1.5 s``, ``3 min 20 s``, ``2 d 4 h``."""
    sign = "-" if seconds < 0 else ""
    seconds = abs(seconds)
    if seconds < 0.9995:
        return f"{sign}{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{sign}{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, small, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{sign}{whole // size} {unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{sign}{whole} s"


def round_estimate(count: int) -> int:
    """Return an estimate with no more digits than it deserves: two."""
    return round(count, 2 - len(str(abs(count))))


def short_count(count: int) -> str:
    """Return a count in at most six characters: ``99,999``, ``120k``, ``1.2M``."""
    if count < 100_000:
        return f"{count:,}"
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            shown = count / size
            return f"{shown:.1f}{unit}" if shown < 10 else f"{shown:.0f}{unit}"
    return str(count)
