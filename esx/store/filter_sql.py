"""A filter as conditions of a query."""

import re

from esx.filters import Filter
from esx.glob import glob_literal, glob_to_regex
from esx.postgres.literals import literal
from esx.postgres.values import json_text


def filter_sql(where: Filter, first: int) -> tuple[list[str], list[str]]:
    """Return the conditions on an event ``e``, and the arguments of their parameters, numbered from `first`.

    Raises InvalidQuery for a malformed glob.
    """
    conditions: list[str] = []
    arguments: list[str] = []
    for column, pattern in (("stream_id", where.stream), ("event_type", where.event_type)):
        if pattern is not None:
            exact = glob_literal(pattern)
            operator, cast = ("~", "::text") if exact is None else ("=", "")
            conditions.append(f"e.{column}{cast} {operator} ${first + len(arguments)}::text")
            arguments.append(glob_to_regex(pattern) if exact is None else exact)
    if where.where is not None:
        conditions.append(
            f"coalesce(jsonb_path_query_first({_jsonb('e.data')}, ${first + len(arguments)}::jsonpath, "
            f"jsonb_build_object('metadata', {_jsonb('e.metadata')}), true) NOT IN ('false', 'null'), false)"
        )
        arguments.append(where.where)
    return conditions, arguments


def literal_filter_sql(where: Filter) -> list[str]:
    """Return the conditions on an event ``e`` with their values as literals, for a query without arguments."""
    conditions, arguments = filter_sql(where, 1)
    # In one pass, because an argument may look like a parameter.
    return [re.sub(r"\$(\d+)", lambda match: literal(arguments[int(match[1]) - 1]), each) for each in conditions]


def _jsonb(column: str) -> str:
    # An export cannot run its query again, as `readable` does.
    return f"CASE WHEN pg_typeof({column}) = 'json'::regtype THEN ({json_text(column)})::jsonb ELSE {column}::jsonb END"
