"""Payloads that a store keeps as bytes: JSON where they are JSON, else what can be told of them."""

import json
from collections import deque
from collections.abc import Sequence
from typing import cast

import msgspec

STARTS = (
    (b"\x78\x01", "zlib"),
    (b"\x78\x5e", "zlib"),
    (b"\x78\x9c", "zlib"),
    (b"\x78\xda", "zlib"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xac\xed", "Java serialization"),
    # With the tag of a term: the first byte alone is also that of a map of three in MessagePack.
    *((bytes((0x83, tag)), "Erlang terms") for tag in (70, 77, 80, 82, 88, 89, 90, *range(97, 122))),
    (b"---", "YAML"),
    (b"<", "XML"),
    (b"Obj\x01", "Avro"),
    (b"\xc3\x01", "Avro"),
    (b"large object ", "a large object that cannot be read"),
)
"""The first bytes of formats, and what these are called."""


class Undecoded(str):
    """A payload that is no JSON: the text ``null`` for whoever expects JSON, with the bytes that are stored."""

    __slots__ = ("raw",)
    raw: bytes

    @classmethod
    def of(cls, raw: bytes) -> "Undecoded":
        """Return the payload for these bytes."""
        payload = cls("null")
        payload.raw = raw
        return payload

    @property
    def note(self) -> str:
        """What it is, in one line: ``1,234 bytes, not JSON (looks like zlib)``."""
        kind = looks_like(self.raw)
        return f"{len(self.raw):,} bytes, not JSON{f' (looks like {kind})' if kind else ''}"


def looks_like(raw: bytes) -> str | None:
    """Return the name of the format that the first bytes suggest, None if they suggest none."""
    return next((name for start, name in STARTS if raw.startswith(start)), None)


def jsons_of(values: Sequence[bytes | str | None]) -> Sequence[str | None]:
    """Return the JSON texts of payloads as they were read: bytes that are no JSON become an `Undecoded`."""
    if values.count(None) == len(values):
        return cast("Sequence[None]", values)
    try:
        # All that it accepts is JSON. It refuses some, such as deep JSON and halves of surrogate pairs.
        deque(map(_QUICK, cast("Sequence[bytes]", values)), 0)
        return list(map(bytes.decode, cast("Sequence[bytes]", values)))
    except (msgspec.MsgspecError, ValueError, RecursionError, TypeError):
        return list(map(json_of, values))


def json_of(value: bytes | str | None) -> str | None:
    """Return the JSON text of a payload as it was read: bytes that are no JSON become an `Undecoded`."""
    if not isinstance(value, bytes):
        return value
    try:
        text = value.decode()
        if "\0" in text:
            return Undecoded.of(value)
        _DECODER.decode(text)
    except RecursionError:
        return text
    except ValueError:
        return Undecoded.of(value)
    return text


def _refuse(name: str) -> None:
    raise ValueError(name)


# The values are not needed; an integer can have more digits than Python reads.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse)
_QUICK = msgspec.json.Decoder(msgspec.Raw).decode
