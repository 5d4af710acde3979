"""Whether values that were read from a file are of the types that their dataclass says, and of a sane size."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_MOST = 1e18
"""No figure is as large, nor infinite; neither is what is not a number less than that."""


def check_shape(value: Any) -> None:
    """Raise ValueError naming the first field of a dataclass whose value is not of its type, at any depth."""
    if not is_dataclass(value):
        raise ValueError(f"{value!r} is not what was expected")
    kind: Any = type(value)
    hints = _hints(kind)
    for field in fields(value):
        if not _fits(getattr(value, field.name), hints[field.name]):
            raise ValueError(f"its {field.name} cannot be understood")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(key, arguments[0]) and _fits(each, arguments[1]) for key, each in value.items()
        )
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(each, arguments[0]) for each in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MOST
    if is_dataclass(hint):
        if not isinstance(value, hint):  # type: ignore[arg-type]
            return False
        check_shape(value)
        return True
    return origin is not None or isinstance(value, hint)
