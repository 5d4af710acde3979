"""Rewrites a JSONPath so that PostgreSQL can evaluate it quickly, and use an index for it.

A filter's path runs over an event's data, with ``$metadata`` as a variable; no index can serve that. Most paths look at
data or metadata only. Those are rewritten for that column with the operators ``@@`` (a predicate, such as
``$.amount > 10``) and ``@?`` (any other path), which indexes can serve. The result stays the same.
"""

import re
from dataclasses import dataclass

import asyncpg

from esx.errors import InvalidQuery
from esx.postgres.driver_errors import first_line
from esx.postgres.literals import literal

_STRING = r'"(?:[^"\\]|\\.)*"'
_TOKEN = re.compile(rf"(?P<variable>\${_STRING})|(?P<string>{_STRING})|(?P<root>\$)")
_KEYS = rf"(?:\.{_STRING}|\[\*\])+"
_VALUE = rf"(?:{_STRING}|-?[0-9][0-9.eE+-]*|true|false|null)"
_EQUALITY = re.compile(rf"\(\${_KEYS} == {_VALUE}\)|\${_KEYS}\?\(@(?:{_KEYS})? == {_VALUE}\)")
_PROBE = """
    SELECT path::text,
           coalesce(jsonb_typeof(jsonb_path_query_first('{}', path, '{"metadata": {}}', true)), ''),
           coalesce(jsonb_path_query_first('{}', path, '{"metadata": null}', true) NOT IN ('false', 'null'), false)
    FROM (SELECT $1::jsonpath AS path) given
"""


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A path as PostgreSQL understands it.

    `text` is the path over `column`, "data" or "metadata"; where it looks at both, `column` is None and `text` as it
    was given. `predicate` says that the path itself is true or false. `lax` is PostgreSQL's usual mode.
    """

    text: str
    column: str | None
    predicate: bool
    lax: bool

    def condition(self, parameter: int) -> str:
        """Return the exact condition on an event ``e``; `text` is the argument of its parameter."""
        if self.column is None:
            variables = "jsonb_build_object('metadata', e.metadata::jsonb)"
            found = f"jsonb_path_query_first(e.data::jsonb, ${parameter}::jsonpath, {variables}, true)"
        elif self.predicate:
            return f"e.{self.column}::jsonb @@ ${parameter}::jsonpath"
        else:
            found = f"jsonb_path_query_first(e.{self.column}::jsonb, ${parameter}::jsonpath, '{{}}', true)"
        return f"{found} NOT IN ('false', 'null')"

    def indexable(self, parameter: int) -> str | None:
        """Return a condition that an index may serve, and that holds if `condition` holds; None if there is none."""
        operator = self._operator
        return None if operator is None else f"e.{self.column}::jsonb {operator} ${parameter}::jsonpath"

    def index(self, on: str, keys: str) -> str | None:
        """Return the statement for an index that serves this path in the order of `keys`, if there is one.

        `on` is what it is to be on, as `Layout.index_on` gives it.
        """
        operator = self._operator
        if operator is None:
            return None
        if self.lax and _EQUALITY.fullmatch(self.text):
            return f"CREATE INDEX {on} USING gin ({self.column} jsonb_path_ops)"
        return f"CREATE INDEX {on} ({keys}) WHERE {self.column} {operator} {literal(self.text)}"

    @property
    def _operator(self) -> str | None:
        if self.column is None:
            return None
        if self.predicate:
            return "@@"
        # In strict mode @? is unknown if anything is missing, even after a match.
        return "@?" if self.lax else None


async def read_path(connection: asyncpg.Connection, text: str) -> JsonPath:
    """Return the JSONPath that `text` is. Raises InvalidQuery if PostgreSQL does not accept it."""
    try:
        row = await connection.fetchrow(_PROBE, text)
    except (asyncpg.SyntaxOrAccessError, asyncpg.DataError, asyncpg.FeatureNotSupportedError) as error:
        raise InvalidQuery(_refusal(text, first_line(error))) from None
    assert row is not None
    shown, kind, passes_without = row
    variables = {token["variable"] for token in _TOKEN.finditer(shown)} - {None}
    if variables - {'$"metadata"'}:
        raise InvalidQuery(_refusal(text, "the only variable there is is $metadata"))
    core = shown.removeprefix("strict ")
    predicate = kind in ("boolean", "null") and core.startswith(("(", "!(", "exists ("))
    lax = core == shown
    has_root = any(token["root"] for token in _TOKEN.finditer(shown))
    if not variables:
        return JsonPath(shown, "data", predicate, lax)
    if has_root or passes_without:
        # An event without metadata passes, which no condition on the column can express.
        return JsonPath(text, None, predicate, lax)
    return JsonPath(_TOKEN.sub(lambda token: "$" if token["variable"] else token[0], shown), "metadata", predicate, lax)


def _refusal(text: str, reason: str) -> str:
    shown = text if len(text) <= 200 else text[:199] + "…"
    return f"{shown!r} is not a JSONPath that PostgreSQL takes: {reason}"
