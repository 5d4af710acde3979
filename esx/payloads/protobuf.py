"""What can be told of a message of protobuf without its schema: https://protobuf.dev/programming-guides/encoding.

Fields have numbers instead of names. Whether bytes are a text, a message or bytes is a guess.
"""

import struct
from typing import Any

from esx.payloads.limits import ByteReader, Undecodable, hexed, words

_HIGHEST = 10_000
"""No field is likely to have a higher number; random bytes often do."""


def protobuf(raw: bytes) -> Any:
    """Return the fields by number. Raises Undecodable where it is unlikely to be a message, or out of bounds."""
    reader = ByteReader(raw)
    message = _Message(reader)
    found = message.fields(0)
    if not found or message.opaque * 2 > len(raw):
        raise Undecodable("it is unlikely to be a message")
    return found


class _Message:
    """Reads the fields of a message; `opaque` counts the bytes that tell nothing."""

    def __init__(self, reader: ByteReader) -> None:
        self._cursor = reader
        self.opaque = 0

    def fields(self, depth: int) -> dict[str, Any]:
        """Return the fields, those that are repeated as lists."""
        reader = self._cursor
        found: dict[str, list[Any]] = {}
        while not reader.ended:
            reader.budget.spend(depth)
            tag = self._varint()
            number, kind = tag >> 3, tag & 7
            if not 0 < number <= _HIGHEST:
                raise Undecodable("it has no such field")
            found.setdefault(str(number), []).append(self._value(kind, depth))
        return {number: values[0] if len(values) == 1 else values for number, values in found.items()}

    def _value(self, kind: int, depth: int) -> Any:
        reader = self._cursor
        if kind == 0:
            return self._varint()
        if kind == 2:
            return self._nested(reader.take(self._varint()), depth)
        if kind in (1, 5):
            raw = reader.take(8 if kind == 1 else 4)
            return _fixed(raw)
        raise Undecodable("it has no such kind of field")

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._cursor.number(1)
            value |= (byte & 127) << shift
            if byte < 128:
                if byte == 0 and shift:
                    raise Undecodable("a number is longer than it needs to be")
                return value
        raise Undecodable("a number is too long")

    def _nested(self, raw: bytes, depth: int) -> Any:
        text = words(raw)
        # A text seldom begins with a control character, a message often does.
        if text is not None and raw[:1] >= b" ":
            return text
        if not raw:
            return ""
        inner = _Message(ByteReader(raw, self._cursor.budget))
        try:
            found = inner.fields(depth + 1)
        except Undecodable:
            pass
        else:
            self.opaque += inner.opaque
            return found
        if text is not None:
            return text
        self.opaque += len(raw)
        return hexed(raw)


def _fixed(raw: bytes) -> Any:
    """Return eight or four bytes as an integer, or as the number with a fraction that they are more likely to be."""
    whole = int.from_bytes(raw, "little", signed=True)
    [real] = struct.unpack("<d" if len(raw) == 8 else "<f", raw)
    return real if 1e-6 < abs(real) < 1e15 else whole
