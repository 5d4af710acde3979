"""Values and names in SQL."""

import re
from datetime import datetime

from esx.text import iso_utc, visible

_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")


def literal(value: str | int | datetime | None) -> str:
    """Return a value as a literal to read and paste; characters that a terminal obeys or hides are escaped."""
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        return f"'{iso_utc(value)}'::timestamptz"
    if "\\" not in value and visible(value) == value:
        return f"'{value.replace(chr(39), chr(39) * 2)}'"
    return f"E'{''.join(map(_escaped, value))}'"


def _escaped(char: str) -> str:
    if char in "\\'":
        return char * 2
    if visible(char) == char:
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no text
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def identifier(name: str) -> str:
    """Return a name as an SQL identifier."""
    return name if _PLAIN_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def quoted(text: str) -> str:
    """Return a text as a literal for queries that esx sends: it means the same with all settings of a session."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
