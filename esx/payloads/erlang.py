"""Erlang's external term format: https://www.erlang.org/doc/apps/erts/erl_ext_dist.

Atoms become text, true, false and null; tuples become lists. Processes, references and functions are not decoded.
"""

import struct
from typing import Any

from esx.payloads.compressed import inflated
from esx.payloads.limits import ByteReader, Undecodable, finite, hexed, integer, named, words

_ATOMS = {"true": True, "false": False, "nil": None, "undefined": None, "null": None}


def erlang_terms(raw: bytes) -> Any:
    """Return the term as a value for JSON. Raises Undecodable where the bytes are none, or out of bounds."""
    if raw[:1] != b"\x83":
        raise Undecodable("it is no term")
    if raw[1:2] == b"P":  # compressed, after the size that it has then
        raw = b"\x83" + inflated(raw[6:])
    reader = ByteReader(raw)
    reader.take(1)
    found = _term(reader, 0)
    if not reader.ended:
        raise Undecodable("more follows its end")
    return found


def _term(reader: ByteReader, depth: int) -> Any:
    reader.budget.spend(depth)
    tag = reader.number(1)
    match tag:
        case 97 | 98:
            return reader.number(1) if tag == 97 else reader.number(4, signed=True)
        case 70:
            return finite(struct.unpack(">d", reader.take(8))[0])
        case 100 | 118 | 115 | 119:
            return _atom(reader.take(reader.number(2 if tag in (100, 118) else 1)), tag >= 118)
        case 104 | 105:
            return [_term(reader, depth + 1) for _ in range(reader.number(1 if tag == 104 else 4))]
        case 106:
            return []
        case 107:  # small numbers, which may be meant as text
            return list(reader.take(reader.number(2)))
        case 108:
            found = [_term(reader, depth + 1) for _ in range(reader.number(4))]
            tail = _term(reader, depth + 1)
            return found if tail == [] else {"list": found, "tail": tail}
        case 109:
            binary = reader.take(reader.number(4))
            text = words(binary)
            return hexed(binary) if text is None else text
        case 110 | 111:
            size = reader.number(1 if tag == 110 else 4)
            negative = bool(reader.number(1))
            return integer(reader.take(size), negative=negative)
        case 116:
            return named((_term(reader, depth + 1), _term(reader, depth + 1)) for _ in range(reader.number(4)))
        case _:
            raise Undecodable(f"it has a term of the kind {tag}")


def _atom(raw: bytes, utf8: bool) -> Any:
    try:
        name = raw.decode("utf-8" if utf8 else "latin-1")
    except UnicodeDecodeError:
        raise Undecodable("an atom is not UTF-8") from None
    return _ATOMS.get(name, name)
