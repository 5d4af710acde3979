"""Decoding a payload that is no JSON: by its first bytes, then by what fits. Nothing that is stored is ever run.

It takes up to seconds for megabytes: call it for an event that is shown, in a thread, never for a list.
"""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from esx.fold.value import dump
from esx.payload import Undecoded, json_of, looks_like
from esx.payloads.compressed import DECOMPRESSORS
from esx.payloads.erlang import erlang_terms
from esx.payloads.limits import MOST_BYTES, Undecodable, words
from esx.payloads.messagepack import messagepack
from esx.payloads.protobuf import protobuf
from esx.payloads.yaml_events import YamlMissing, yaml_documents

MISSING = "to decode it: pip install pyyaml"
_LAYERS = 3


@dataclass(frozen=True, slots=True)
class Decoded:
    """What is shown of a payload that is no JSON.

    `how` says in one line how it was decoded, or why not. `json` is the JSON text of it, else `text` is what people can
    read of it, else both are None, and `raw` are the bytes to show.
    """

    how: str
    raw: bytes
    json: str | None = None
    text: str | None = None


def decode(payload: Undecoded) -> Decoded:
    """Decode a payload as far as its format tells."""
    raw = payload.raw
    if len(raw) > MOST_BYTES:
        return Decoded(f"{payload.note}: esx decodes up to {MOST_BYTES:,} bytes", raw)
    return _decode(raw, _LAYERS, "")


def _decode(raw: bytes, layers: int, around: str) -> Decoded:
    """Decode bytes; `around` names the compression that they were in."""
    form = looks_like(raw)
    payload = Undecoded.of(raw)
    note = f"{around}{payload.note}"
    if around and not isinstance(text := json_of(raw), Undecoded):
        return Decoded(f"decoded from {around}JSON", raw, json=text)
    try:
        if form in DECOMPRESSORS:
            if not layers:
                raise Undecodable("it is compressed too many times")
            return _decode(DECOMPRESSORS[form](raw), layers - 1, f"{around}{form}, ")
        if form == "YAML":
            return Decoded(f"decoded from {around}YAML", raw, json=dump(yaml_documents(raw)))
        if form == "Erlang terms":
            return Decoded(f"looks like {around}Erlang terms", raw, json=dump(erlang_terms(raw)))
    except YamlMissing:
        return Decoded(f"{note}: {MISSING}", raw, text=words(raw))
    except Undecodable as error:
        # A map of three in MessagePack can begin as a term does.
        guessed = _guess(raw, around) if form == "Erlang terms" else None
        return guessed or Decoded(f"{note}: {error}", raw, text=words(raw))
    if form == "Java serialization":
        name = _java_class(raw)
        return Decoded(f"{note[:-1]} of {name})" if name else note, raw)
    text = words(raw)
    if text is not None and text.strip():
        return Decoded(f"{around}XML as text" if form == "XML" else f"{note}: shown as text", raw, text=text)
    return _guess(raw, around) or Decoded(note, raw)


def _guess(raw: bytes, around: str) -> Decoded | None:
    guesses: tuple[tuple[str, Callable[[bytes], Any]], ...] = (
        ("MessagePack", messagepack),
        ("protobuf, without schema", protobuf),
    )
    for name, decoder in guesses:
        try:
            return Decoded(f"looks like {around}{name}", raw, json=dump(decoder(raw)))
        except Undecodable:
            continue
    return None


def _java_class(raw: bytes) -> str | None:
    """Return the name of the class that a stream of Java's serialization begins with."""
    # Its version, then an object whose class is described: by the length of the name, and the name.
    if raw[2:6] != b"\x00\x05sr" or len(raw) < 8:
        return None
    [size] = struct.unpack(">H", raw[6:8])
    name = words(raw[8 : 8 + size])
    return name if name and len(raw) >= 8 + size and size <= 200 else None


def as_json(decoded: Decoded) -> str:
    """Return what was decoded as JSON: a text as a string, and null for bytes."""
    if decoded.json is not None:
        return decoded.json
    return "null" if decoded.text is None else json.dumps(decoded.text, ensure_ascii=False)
