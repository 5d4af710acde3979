"""JSON as Python values that keep every digit, at any depth: without recursion and without float.

A number is a `Number`, which is its own text. Objects are dicts, arrays are lists; of a repeated key the last value
counts, as for jsonb.
"""

import dataclasses
import json
import re
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any
from uuid import UUID

Path = tuple[str | int, ...]
"""The place of a value: names of members and indexes of elements, the outermost first."""

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(r'[ \t\n\r]*(?:(?P<mark>["{}\[\],:])|(?P<number>-?\d[\d.eE+-]*)|(?P<word>true|false|null))')
_WORDS = {"true": True, "false": False, "null": None}
_quote = json.encoder.encode_basestring


class Number(str):
    """A JSON number as its own text."""

    __slots__ = ()


def parse(text: str) -> Any:
    """Return the value of JSON text. Raises ValueError if it is not JSON."""
    try:
        return json.loads(text, parse_int=Number, parse_float=Number, parse_constant=_refuse)
    except RecursionError:
        return _parse_deep(text)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _parse_deep(text: str) -> Any:
    """Parse text that is nested deeper than json allows."""
    root: list[Any] = []
    stack: list[Any] = [root]
    names: list[str | None] = [None]
    at = 0
    end = len(text.rstrip(" \t\n\r"))
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"not JSON at character {at}")
        at = match.end()
        mark = match["mark"]
        if mark in ("}", "]"):
            stack.pop()
            names.pop()
            if not stack:
                raise ValueError(f"not JSON at character {at}")
            continue
        if mark in (",", ":"):
            continue
        value: Any
        if mark == '"':
            value, at = scanstring(text, at, True)
            if isinstance(stack[-1], dict) and names[-1] is None:
                names[-1] = value
                continue
        elif mark is not None:
            value = {} if mark == "{" else []
        else:
            value = Number(match["number"]) if match["number"] is not None else _WORDS[match["word"]]
        holder = stack[-1]
        if isinstance(holder, dict):
            holder[names[-1]] = value
            names[-1] = None
        else:
            holder.append(value)
        if mark in ("{", "["):
            stack.append(value)
            names.append(None)
    if len(stack) != 1 or len(root) != 1:
        raise ValueError("not one JSON value")
    return root[0]


def dump(value: Any) -> str:
    """Return a value as JSON text on one line, as PostgreSQL writes it.

    Besides values of `parse` it takes those of reducers: ints, floats, Decimals, tuples, sets, dataclasses, enums,
    dates, times and UUIDs. Raises TypeError for other types.
    """
    pieces: list[str] = []
    # Still to be written, the next at the end: text, a value (in a list of its own), or the id of a container that ends
    # here.
    todo: list[str | list[Any] | int] = [[value]]
    inside: set[int] = set()
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            pieces.append(item)
            continue
        if isinstance(item, int):
            inside.remove(item)
            continue
        plain = _plain(item[0])
        if not isinstance(plain, dict | list):
            pieces.append(_scalar(plain))
            continue
        if id(item[0]) in inside:
            raise TypeError("what contains itself has no form in JSON")
        inside.add(id(item[0]))
        todo.append(id(item[0]))
        if isinstance(plain, dict):
            todo.append("}" if plain else "{}")
            for place, (name, member) in reversed(list(enumerate(plain.items()))):
                todo += ([member], f"{', ' if place else '{'}{_quote(_name(name))}: ")
        else:
            todo.append("]" if plain else "[]")
            for place in range(len(plain) - 1, -1, -1):
                todo += ([plain[place]], ", " if place else "[")
    return "".join(pieces)


def _plain(value: Any) -> Any:
    """Return a dict, a list, or a value without parts."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value.value if isinstance(value, Enum) else value


def _name(name: object) -> str:
    return name if isinstance(name, str) else _scalar(_plain(name)).strip('"')


def _scalar(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, int):
        # str(int) refuses more than 4,300 digits.
        return f"{Decimal(value):f}"
    if isinstance(value, float | Decimal):
        if not Decimal(value).is_finite():
            raise TypeError(f"{value} has no form in JSON")
        return str(value)
    if isinstance(value, datetime | date | time):
        return _quote(value.isoformat())
    if isinstance(value, UUID):
        return _quote(str(value))
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


def jsonpath(path: Path, root: str = "$") -> str:
    """Return a path as PostgreSQL's JSONPath: ``$.items[2]."unit price"``."""
    pieces = [root]
    for step in path:
        if isinstance(step, int):
            pieces.append(f"[{step}]")
        elif _PLAIN_NAME.fullmatch(step):
            pieces.append(f".{step}")
        else:
            pieces.append(f".{_quote(step)}")
    return "".join(pieces)
