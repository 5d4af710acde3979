"""Amounts, and JSON that keeps their two decimal places: ``12.50`` stays ``12.50``."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from esx.store.model import JsonText

_quote = json.encoder.encode_basestring
_CENT = Decimal("0.01")
ZERO = Decimal("0.00")


def cents(amount: int) -> Decimal:
    """Return so many cents as an amount."""
    return Decimal(amount).scaleb(-2)


def percent(amount: Decimal, rate: int, of: int = 100) -> Decimal:
    """Return `rate` / `of` of an amount, rounded to a cent."""
    return (amount * rate / of).quantize(_CENT)


def encode(value: Any) -> JsonText:
    """Return `value` as JSON text, every Decimal in it with two places (`json.dumps` has no way to say that)."""
    return JsonText(_write(value))


def decode(text: str) -> Any:
    """Return the value of JSON text, its fractions as Decimal."""
    return json.loads(text, parse_float=Decimal)


def _write(value: Any) -> str:
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, dict):
        return "{" + ", ".join([f"{_quote(key)}: {_write(item)}" for key, item in value.items()]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join([_write(item) for item in value]) + "]"
    if isinstance(value, Decimal):
        return format(value, ".2f")
    if type(value) is int:
        return str(value)
    return json.dumps(value, allow_nan=False)
