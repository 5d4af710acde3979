"""The data of an event in a few words for a list: ``amount 50.00 · method card · items [2]``."""

from typing import Any

from esx.fold.value import Number, dump, parse
from esx.text import visible

_MOST_READ = 20_000
"""Longer data are not parsed for a line that shows little of them."""
_MEMBERS = 24


def brief(payload: str, limit: int = 400) -> str:
    """Return JSON in about `limit` characters, safe for a terminal: members with their values, the outermost first.

    What is no object, or very long, is shown as its text.
    """
    if len(payload) > _MOST_READ:
        return visible(payload, limit=limit)
    try:
        value = parse(payload)
    except ValueError:
        return visible(payload, limit=limit)
    if not isinstance(value, dict) or not value:
        return visible(payload, limit=limit)
    parts = [f"{visible(name, limit=60)} {_short(member, limit)}" for name, member in list(value.items())[:_MEMBERS]]
    more = ["…"] if len(value) > _MEMBERS else []
    return visible(" · ".join([*parts, *more]), limit=limit)


def _short(value: Any, limit: int) -> str:
    """Return a value without its quotes, a list as how many it has, an object as its members' names."""
    if isinstance(value, list):
        return f"[{len(value)}]"
    if isinstance(value, dict):
        names = ", ".join(visible(name, limit=40) for name in list(value)[:4])
        return f"{{{names}{', …' if len(value) > 4 else ''}}}"
    if isinstance(value, str) and not isinstance(value, Number):
        return visible(value, limit=limit) if value else '""'
    return dump(value)
