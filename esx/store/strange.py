"""Columns of types that are none of PostgreSQL's own, such as citext: how their values are compared.

Guarded sessions find operators in pg_catalog alone, and there ``citext = text`` is found as a comparison of texts,
which is another one than the index has, and another answer. So the operators are taken from the type's default operator
class, as an index does, and written with their schema. The queries of the store are written for text; for a store
with such a column each is changed before it is sent, in one place (`esx.store.connection.Session`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OPERATORS = ("<", "<=", "=", ">=", ">")
"""In the order of the strategies of a B-tree."""
_VALUE = r"(?:\$\d+|'[^']*'|[a-z_]\w*\.[a-z_]\w*)(?:::text)?"


class Strange(NamedTuple):
    """A column whose type is none of PostgreSQL's own: `type` as SQL writes it, and its operators, schema and name."""

    column: str
    type: str
    operators: tuple[str, ...]
    """As OPERATOR(...) names them, in the order of the strategies of a B-tree: <, <=, =, >=, >."""


def rewriter(columns: Sequence[Strange]) -> Callable[[str], str] | None:
    """Return what makes of a query one that compares these columns as their indexes do; None if there are none."""
    if not columns:
        return None
    rules = [_Rule(column) for column in columns]

    @lru_cache(maxsize=1000)
    def rewrite(query: str) -> str:
        for rule in rules:
            query = rule(query)
        return query

    return rewrite


class _Rule:
    def __init__(self, strange: Strange) -> None:
        self._type = strange.type
        self._operators = dict(zip(OPERATORS, strange.operators, strict=True))
        column = rf"(?:\b[a-z_]\w*\.)?\b{strange.column}"
        self._plain = re.compile(rf"(?P<left>{column}) (?P<operator><=|>=|<>|=|<|>) (?P<right>{_VALUE})(?=[\s),]|$)")
        # Keyset pages: the column first, then numbers.
        self._row = re.compile(
            rf"\((?P<left>{column}), (?P<others>[\w., ]+)\) (?P<operator>>=|>) "
            rf"\((?P<right>\$\d+(?:::text)?), (?P<values>[$\w:, ]+)\)"
        )

    def __call__(self, query: str) -> str:
        return self._plain.sub(self._one, self._row.sub(self._several, query))

    def _one(self, found: re.Match[str]) -> str:
        return self._compared(found["left"], found["operator"], found["right"])

    def _several(self, found: re.Match[str]) -> str:
        left, right = found["left"], found["right"]
        # Of a row with nulls nothing is certain either way, as in the comparison of rows.
        return (
            f"({self._compared(left, '>', right)} OR {self._compared(left, '=', right)} "
            f"AND ({found['others']}) {found['operator']} ({found['values']}))"
        )

    def _compared(self, left: str, operator: str, right: str) -> str:
        value = f"{right.removesuffix('::text')}::{self._type}"
        if operator == "<>":
            return f"NOT ({left} OPERATOR({self._operators['=']}) {value})"
        return f"{left} OPERATOR({self._operators[operator]}) {value}"
