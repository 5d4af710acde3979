"""Taking JSON text apart without decoding it, so that numbers keep every digit."""

from __future__ import annotations

import contextlib
import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]

from esx.store.model import JsonText

_SPACE = re.compile(r"[ \t\n\r]*")
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
        # Which tells members apart at any depth, and checks less.
        from esx.store.bulk_lines import split_members

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


def _check(text: str) -> None:
    json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
