"""Taking JSON text apart without decoding it, so that numbers keep every digit."""

import contextlib
import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import NoReturn

from esx.model import JsonText
from esx.text import visible

_SPACE = re.compile(r"[ \t\n\r]*")
_BYTE_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]++|\\.)*+"')
_SCALAR = re.compile(rb'[^\s"{}\[\],:]++')
_NESTING = re.compile(rb'"(?:[^"\\\x00-\x1f]++|\\.)*+"|[{}\[\]]')
# Numbers stay text: only their place matters here, and a very long one would be refused (CVE-2020-10735).
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)


def check_json(text: str) -> JsonText:
    """Return `text` as JsonText if it is one JSON value. Raises ValueError saying what is wrong and where.

    What is nested deeper than Python reads is not checked: that is no limit of JSON, and PostgreSQL will judge it.
    """
    with contextlib.suppress(RecursionError):
        _check(text)
    return JsonText(text.strip())


def split_object(text: str) -> dict[str, JsonText]:
    """Return the members of the JSON object `text`, each value as its own text.

    Raises ValueError if `text` is not one JSON object, or repeats a name.
    """
    try:
        _check(text)
    except RecursionError:
        return {name: JsonText(value.decode()) for name, value in split_members(text.strip().encode()).items()}
    at = _skip(text, 0)
    if text[at] != "{":
        raise ValueError("not a JSON object")
    members: dict[str, JsonText] = {}
    at = _skip(text, at + 1)
    while text[at] != "}":
        name, at = scanstring(text, at + 1, True)
        at = _skip(text, _skip(text, at) + 1)
        _, end = _DECODER.raw_decode(text, at)
        if name in members:
            raise ValueError(f"{name!r} is there twice")
        members[name] = JsonText(text[at:end])
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return members


def split_members(line: bytes) -> dict[str, bytes]:
    """Return the members of a JSON object, each value as the bytes it is, in time linear in its length.

    Values are delimited, not checked, at any depth. Raises ValueError if `line` is not an object, or repeats a name.
    """
    if line[:1] != b"{":
        raise ValueError("it is not a JSON object")
    members: dict[str, bytes] = {}
    at = _skip_bytes(line, 1)
    if line[at : at + 1] == b"}":
        at += 1
    else:
        while True:
            match = _STRING.match(line, at)
            if match is None:
                _wrong(line, at, "a name in double quotes")
            name = json.loads(match.group().decode())
            at = _skip_bytes(line, match.end())
            if line[at : at + 1] != b":":
                _wrong(line, at, "a colon")
            start = _skip_bytes(line, at + 1)
            end = _value_end(line, start)
            if name in members:
                raise ValueError(f"{visible(name, limit=80)!r} is there twice")
            members[name] = line[start:end]
            at = _skip_bytes(line, end)
            separator = line[at : at + 1]
            if separator == b"}":
                at += 1
                break
            if separator != b",":
                _wrong(line, at, "a comma or a closing brace")
            at = _skip_bytes(line, at + 1)
    if line[at:].strip(b" \t\r\n"):
        _wrong(line, at, "the end of the line")
    return members


def _value_end(line: bytes, start: int) -> int:
    match = _STRING.match(line, start) or _SCALAR.match(line, start)
    if match is not None:
        return match.end()
    if line[start : start + 1] not in (b"{", b"["):
        _wrong(line, start, "a value")
    depth = 0
    for token in _NESTING.finditer(line, start):
        char = line[token.start()]
        if char in b"{[":
            depth += 1
        elif char in b"}]":
            depth -= 1
            if depth == 0:
                return token.end()
    return _wrong(line, len(line), "a closing bracket")


def _wrong(line: bytes, at: int, expected: str) -> NoReturn:
    if at >= len(line):
        raise ValueError(f"it is not JSON: it ends where {expected} is expected (was it cut short?)")
    if line[at : at + 1] == b'"':
        raise ValueError(
            f"it is not JSON: the string at byte {at + 1} has no end, or a control character in it (was it cut short?)"
        )
    raise ValueError(f"it is not JSON: {expected} is expected at byte {at + 1}")


def _skip_bytes(line: bytes, at: int) -> int:
    match = _BYTE_SPACE.match(line, at)
    assert match is not None
    return match.end()


def _check(text: str) -> None:
    json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
