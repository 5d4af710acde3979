"""MessagePack, strictly: https://github.com/msgpack/msgpack/blob/master/spec.md.

Not by the package msgpack: it allocates as many elements as an array says it has, again in each array within it, so
that a few kilobytes can take all memory.
"""

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

from esx.payloads.limits import ByteReader, Undecodable, finite, hexed, named

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WORDS = {0xC0: None, 0xC2: False, 0xC3: True}


def messagepack(raw: bytes) -> Any:
    """Return the value of the bytes. Raises Undecodable where they are not one map or array, or out of bounds."""
    if not (raw and (0x80 <= raw[0] <= 0x9F or 0xDC <= raw[0] <= 0xDF)):
        raise Undecodable("it is no map and no array")
    reader = ByteReader(raw)
    found = _value(reader, 0)
    if not reader.ended:
        raise Undecodable("more follows its end")
    return found


def _value(reader: ByteReader, depth: int) -> Any:
    reader.budget.spend(depth)
    tag = reader.number(1)
    if tag <= 0x7F or tag >= 0xE0:
        return tag if tag <= 0x7F else tag - 256
    if tag <= 0x8F:
        return _map(reader, tag & 15, depth)
    if tag <= 0x9F:
        return _array(reader, tag & 15, depth)
    if tag <= 0xBF:
        return _text(reader.take(tag & 31))
    if tag in _WORDS:
        return _WORDS[tag]
    # The sizes are 1, 2, 4 and 8 bytes in this order, from the tag on that the group begins with.
    if 0xC4 <= tag <= 0xC6:
        return hexed(reader.take(reader.number(1 << tag - 0xC4)))
    if 0xC7 <= tag <= 0xC9:
        return _extension(reader, reader.number(1 << tag - 0xC7))
    if tag in (0xCA, 0xCB):
        form, size = (">f", 4) if tag == 0xCA else (">d", 8)
        return finite(struct.unpack(form, reader.take(size))[0])
    if 0xCC <= tag <= 0xD3:
        return reader.number(1 << (tag & 3), signed=tag >= 0xD0)
    if 0xD4 <= tag <= 0xD8:
        return _extension(reader, 1 << tag - 0xD4)
    if 0xD9 <= tag <= 0xDB:
        return _text(reader.take(reader.number(1 << tag - 0xD9)))
    if tag in (0xDC, 0xDD):
        return _array(reader, reader.number(4 if tag == 0xDD else 2), depth)
    if tag in (0xDE, 0xDF):
        return _map(reader, reader.number(4 if tag == 0xDF else 2), depth)
    raise Undecodable("a value begins with 0xc1")


def _array(reader: ByteReader, size: int, depth: int) -> list[Any]:
    return [_value(reader, depth + 1) for _ in range(size)]


def _map(reader: ByteReader, size: int, depth: int) -> dict[str, Any]:
    return named((_value(reader, depth + 1), _value(reader, depth + 1)) for _ in range(size))


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Undecodable("a text is not UTF-8") from None


def _extension(reader: ByteReader, size: int) -> Any:
    kind = reader.number(1, signed=True)
    raw = reader.take(size)
    if kind == -1 and size in (4, 8, 12):
        return _moment(raw)
    return {f"extension {kind}": hexed(raw)}


def _moment(raw: bytes) -> str:
    if len(raw) == 4:
        nanos, seconds = 0, int.from_bytes(raw)
    elif len(raw) == 8:
        nanos, seconds = int.from_bytes(raw) >> 34, int.from_bytes(raw) & (1 << 34) - 1
    else:
        nanos, seconds = int.from_bytes(raw[:4]), int.from_bytes(raw[4:], signed=True)
    try:
        return (_EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)).isoformat()
    except OverflowError:
        return f"{seconds} s since 1970"
