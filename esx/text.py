"""Shows untrusted text: ids, types and payloads can contain anything.

A terminal must not obey the text (control sequences) or reorder it (bidirectional overrides), and the text must stay on
its line.
"""

import re
import shlex
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from esx.moment import FarTime

_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)}
_PICTURES[0x7F] = "\u2421"
# Some terminals obey C1 controls; line and paragraph separators break lines; the others reorder or hide text ("Trojan
# Source", CVE-2021-42574), have a width that depends on the terminal (variation selectors), or cannot be encoded
# (surrogates).
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
    """Return `text` on one line, without anything that a terminal would obey.

    Control characters become control pictures (U+2400 block), invisible and reordering characters become
    ``\\uXXXX`` escapes, a byte that is no text becomes ``\ufffd\\xNN``. With `limit`, at most that many characters of
    `text` are looked at, and an ellipsis marks the cut, so that a 100 MB value costs no more than a short one.
    """
    if limit is not None and len(text) > limit:
        text = text[: max(limit - 1, 0)] + "…"
    # Python calls all other characters of the table not printable, and this check is ten times as fast as translating.
    if text.isprintable() and (text.isascii() or not _SELECTORS.search(text)):
        return text
    return text.translate(_TABLE)


def visible_lines(text: str) -> str:
    """Do as `visible`, but keep line feeds and tabs, for text that is laid out over lines."""
    return text.translate(_TABLE_KEEPING_LINES)


def bytes_from_shown(text: str) -> str:
    """Return `text` with the bytes that `visible` shows as ``\ufffd\\xNN`` in the form of the store's names.

    In a name with bytes that are no text, each such byte is one of the characters U+DC80 to U+DCFF (PEP 383), as in
    Python's file names. No text in PostgreSQL can contain these.
    """
    return _SHOWN_BYTE.sub(lambda byte: chr(0xDC00 + int(byte[1], 16)), text) if _BYTE in text else text


def shell_word(text: str) -> str:
    """Return `text` as one word for a shell.

    Characters that a terminal would obey are written as ``$'\\x1b'``, for bash, zsh and ksh.
    """
    if visible(text) == text:
        return shlex.quote(text)
    escaped = (
        "".join(f"\\x{byte:02x}" for byte in char.encode()) if visible(char) != char or char in "\\'" else char
        for char in text
    )
    return f"$'{''.join(escaped)}'"


def is_text(text: str) -> bool:
    """Return whether UTF-8 can encode `text`; it cannot if it has bytes that are no text."""
    return text.isascii() or _SURROGATE.search(text) is None


def encodable(json: str) -> str:
    """Return JSON that can be written as UTF-8: a byte that is no text is written as `visible` shows it."""
    return json if is_text(json) else _SURROGATE.sub(_escaped_in_json, json)


def as_written(text: str) -> str:
    """Return text that can be written as UTF-8: a byte that is no text is written as `visible` shows it."""
    return text if is_text(text) else _SURROGATE.sub(lambda found: visible(found[0]), text)


def _escaped_in_json(found: re.Match[str]) -> str:
    code = ord(found[0])
    # Not all parsers of JSON read a lone surrogate.
    return f"{_BYTE.replace(chr(92), chr(92) * 2)}{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def either(names: Iterable[str]) -> str:
    """Return names as a list for a message: ``a, b or c``."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def iso_utc(moment: datetime | None) -> str:
    """Return `moment` as ISO 8601 in UTC with microseconds, e.g. ``2026-08-07T14:00:00.123456Z``; ``-`` for none.

    A time that Python cannot hold is written as PostgreSQL does, e.g. ``infinity``.
    """
    if moment is None:
        return "-"
    if isinstance(moment, FarTime):
        return moment.text
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


class _Told:
    clock: Callable[[], datetime] | None = None


def tell_ages_by(clock: Callable[[], datetime] | None) -> None:
    """Tell from now on how old things are by another clock, such as that of a recording; None: by this machine's."""
    _Told.clock = clock


def present() -> datetime:
    """Return the time by which ages are told, in UTC."""
    return datetime.now(UTC) if _Told.clock is None else _Told.clock()


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """Return how long ago `moment` was in at most four characters, e.g. ``now``, ``42s``, ``3m``; ``-`` for none."""
    if moment is None:
        return "-"
    if isinstance(moment, FarTime):
        return moment.age
    seconds = ((now or present()) - moment).total_seconds()
    sign = "+" if seconds <= -1 else ""
    seconds = abs(seconds)
    if seconds < 1:
        return "now"
    for size, unit in ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{sign}{int(seconds // size)}{unit}"
    return f"{sign}{int(seconds)}s"


def counted(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun: ``1 stream``, ``2,000 streams``; `many` is the noun for several if not with -s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def age(moment: datetime | None) -> float | None:
    """Return how many seconds ago `moment` was, less than 0 if it is still to come; None where that is not known."""
    if moment is None or isinstance(moment, FarTime):
        return None
    return (present() - moment).total_seconds()


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
    """Return an estimate with two significant digits."""
    return round(count, 2 - len(str(abs(count))))


def size_of(count: float) -> str:
    """Return a number of bytes as text: ``812 B``, ``4.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def short_count(count: int) -> str:
    """Return a count in at most six characters: ``99,999``, ``120k``, ``1.2M``."""
    if count < 100_000:
        return f"{count:,}"
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            shown = count / size
            return f"{shown:.1f}{unit}" if shown < 10 else f"{shown:.0f}{unit}"
    return str(count)


def rate_text(rate: float | None) -> str:
    """Return a rate in the unit in which it is a number of some size: ``12/s``, ``3.5/min``, ``2/d``."""
    if rate is None:
        return "-"
    for unit, seconds in (("s", 1), ("min", 60), ("h", 3600), ("d", 86400)):
        if rate * seconds >= 1:
            return f"{rate * seconds:.{0 if rate * seconds >= 10 else 1}f}/{unit}"
    return "0" if rate == 0 else "<1/d"


def change_text(now: int, before: int) -> str:
    """Return how a count has changed: ``+50%``, ``new``, ``none now``, ``=``, from tenfold on ``x12``."""
    if now == before:
        return "="
    if not before:
        return "new"
    if not now:
        return "none now"
    if now >= before * 10:
        return f"x{now / before:.0f}"
    return f"{(now - before) / before:+.0%}"


_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Iterable[float], width: int, *, top: float = 0.0) -> str:
    """Return values as bars in exactly `width` cells, the newest on the right; more values than that are averaged.

    The lowest bar is 0 to an eighth of `top`, or of the highest value if `top` is 0. A space is no value yet.
    """
    if width <= 0:
        return ""
    values = list(values)
    size = -(-len(values) // width) or 1
    first = len(values) % size
    pieces = [values[:first]] if first else []
    pieces += [values[at : at + size] for at in range(first, len(values), size)]
    # Averages, so that a piece with fewer values is not lower than the others.
    heights = [sum(piece) / len(piece) for piece in pieces]
    highest = top or max(heights, default=0.0) or 1.0
    return "".join(_BARS[min(int(height / highest * 8), 7)] for height in heights).rjust(width)
