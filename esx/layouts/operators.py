"""Operators for columns whose types are not PostgreSQL's own, such as citext.

Guarded sessions find operators in pg_catalog only. There ``citext = text`` is a comparison of texts, with another
result than the index has. So esx takes the operators of the type's default operator class, as an index does, and writes
them with their schema. The queries of the store are written for text; for a store with such a column each query is
changed before it is sent, in one place (`esx.postgres.session.Session`).
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

OPERATORS = ("<", "<=", "=", ">=", ">")
"""In the order of the strategies of a B-tree."""
_VALUE = r"(?:\$\d+|E?'(?:[^'\\]|''|\\.)*'|[a-z_]\w*\.[a-z_]\w*)(?:::text)?"


class CustomColumn(NamedTuple):
    """A column whose values are not compared as texts; `type` is the name of its type in SQL."""

    column: str
    type: str
    operators: tuple[str, ...]
    """With their schemas, as in OPERATOR(...), in the order of `OPERATORS`."""


def rewriter(columns: Sequence[CustomColumn]) -> Callable[[str], str] | None:
    """Return a function that changes a query to compare these columns as their indexes do; None without columns."""
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
    def __init__(self, custom: CustomColumn) -> None:
        self._type = custom.type
        self._operators = dict(zip(OPERATORS, custom.operators, strict=True))
        column = rf"(?:\b[a-z_]\w*\.)?\b{custom.column}"
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
        # For a row with nulls the result is NULL, as in the comparison of rows.
        return (
            f"({self._compared(left, '>', right)} OR {self._compared(left, '=', right)} "
            f"AND ({found['others']}) {found['operator']} ({found['values']}))"
        )

    def _compared(self, left: str, operator: str, right: str) -> str:
        value = f"{right.removesuffix('::text')}::{self._type}"
        if operator == "<>":
            return f"NOT ({left} OPERATOR({self._operators['=']}) {value})"
        return f"{left} OPERATOR({self._operators[operator]}) {value}"
