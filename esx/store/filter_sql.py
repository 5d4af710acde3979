"""A filter as conditions of a query."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from esx.errors import InvalidQuery
from esx.filters import Filter, MetadataMatch, Pattern
from esx.layouts.layout import Layout
from esx.postgres.literals import literal
from esx.postgres.values import json_text
from esx.store.stream_ids import as_stored


def filter_sql(where: Filter, first: int) -> tuple[list[str], list[str | datetime]]:
    """Return the conditions on an event ``e``, and the arguments of their parameters, numbered from `first`.

    Raises InvalidQuery for a malformed glob.
    """
    conditions: list[str] = []
    arguments: list[str | datetime] = []

    def add(value: str | datetime) -> int:
        arguments.append(value)
        return first + len(arguments) - 1

    for column, pattern in (("stream_id", where.stream_pattern), ("event_type", where.type_pattern)):
        if pattern is not None:
            conditions.append(matches(f"e.{column}", pattern, add(pattern.text)))
    conditions += [path_sql(add(path)) for path in where.paths]
    conditions += [member_sql(member, add(member_pattern(member).text)) for member in where.members]
    conditions += [_mention_sql(text, add, any_case=where.any_case) for text in where.mentions]
    for operator, moment in ((">=", where.since), ("<", where.until)):
        if moment is not None:
            conditions.append(f"coalesce(e.created_at {operator} ${add(moment)}::timestamptz, false)")
    return conditions, arguments


def stored_filter(layout: Layout, where: Filter) -> Filter:
    """Return the filter with the glob of streams as the store writes ids: UUIDs in small letters.

    Raises InvalidQuery for a correlation id in the store of another tool, which keeps it elsewhere.
    """
    if layout.foreign is not None and any(member.key == "corr" for member in where.members):
        title = layout.foreign.kind.title
        raise InvalidQuery(
            f"corr: looks where esx's own stores have correlation ids, and this is a store of {title}: `esx trail ID` "
            "finds the events of one"
        )
    return where if where.stream is None else replace(where, stream=as_stored(layout, where.stream))


def path_sql(parameter: int) -> str:
    """Return the condition that the JSONPath in the parameter finds something."""
    return (
        f"coalesce(jsonb_path_query_first({jsonb('e.data')}, ${parameter}::jsonpath, "
        f"jsonb_build_object('metadata', {jsonb('e.metadata')}), true) NOT IN ('false', 'null'), false)"
    )


def member_pattern(member: MetadataMatch) -> Pattern:
    """Return how a member of the metadata is compared."""
    return Pattern.of(member.glob, any_case=member.any_case)


def member_sql(member: MetadataMatch, parameter: int) -> str:
    """Return the condition that one of the members of that name matches the pattern in the parameter."""
    pattern = member_pattern(member)
    metadata = jsonb("e.metadata")
    each = [matches(f"({metadata} ->> {literal(name)})", pattern, parameter) for name in member.names]
    return f"coalesce({' OR '.join(f'coalesce({one}, false)' for one in each)}, false)"


_HEX = "[0-9a-fA-F]"


def mention_regex(text: str, *, any_case: bool = False) -> str:
    """Return the regular expression that finds a text as a word in JSON, or in the id of a stream.

    It is not within a longer word or number, and not a group of a UUID. In `any_case` if it has no capital letter.
    """
    # As it is in an id, and in JSON, where it may have escapes.
    spellings = dict.fromkeys((text, json.dumps(text, ensure_ascii=False)[1:-1]))
    escaped = "|".join(re.sub(r"([^\w\s])", r"\\\1", each) for each in spellings)
    before = after = ""
    if text[:1].isalnum():
        # A letter before it may be that of an escape, such as \n.
        before = r"(?:(?<![[:alnum:]])|(?<=\\[bfnrt]))"
    if text[-1:].isalnum():
        after = "(?![[:alnum:]])"
    if text.isdecimal():
        before += "(?<![[:digit:]][.])"
        after += "(?![.][[:digit:]])"
    if re.fullmatch(f"{_HEX}{{4}}|{_HEX}{{8}}|{_HEX}{{12}}", text):
        before += f"(?<!{_HEX}{{8}}(?:-{_HEX}{{4}}){{2,3}}-)"
        after += f"(?!(?:-{_HEX}{{4}}){{1,3}}-{_HEX}{{12}})"
    case = "(?i)" if any_case and _is_lower(text) else ""
    return f"{case}{before}(?:{escaped}){after}"


def _is_lower(text: str) -> bool:
    return text == text.lower() != text.upper()


def _mention_sql(text: str, add: Callable[[str], int], *, any_case: bool) -> str:
    each = ("e.stream_id::text", f"({jsonb('e.data')})::text", f"({jsonb('e.metadata')})::text")
    texts = f"concat_ws(E'\\n', {', '.join(each)})"
    found = f"{texts} ~ ${add(mention_regex(text, any_case=any_case))}::text"
    if not text.isascii() or json.dumps(text)[1:-1] != text:
        return found
    # Ten times as quick, if the expression is looked for only where its text is; AND would choose the order itself.
    searched = f"lower({texts})" if any_case and _is_lower(text) else texts
    return f"CASE WHEN strpos({searched}, ${add(text)}::text) > 0 THEN {found} ELSE false END"


def literal_filter_sql(where: Filter) -> list[str]:
    """Return the conditions on an event ``e`` with their values as literals, for a query without arguments."""
    conditions, arguments = filter_sql(where, 1)
    return [_with_literals(each, arguments) for each in conditions]


def _with_literals(condition: str, arguments: Sequence[str | datetime]) -> str:
    # In one pass, because an argument may look like a parameter; and not within the quotes of a literal.
    return re.sub(
        r"'(?:[^']|'')*'|\$(\d+)",
        lambda match: match[0] if match[1] is None else literal(arguments[int(match[1]) - 1]),
        condition,
    )


def matches(value: str, pattern: Pattern, parameter: int) -> str:
    """Return the condition that a text matches the pattern in the parameter."""
    if pattern.literal is not None:
        return f"{value} = ${parameter}::text"
    return f"{value}::text ~ ${parameter}::text"


def jsonb(column: str) -> str:
    """Return the expression for a column of JSON as jsonb."""
    # An export cannot run its query again, as `readable` does.
    return f"CASE WHEN pg_typeof({column}) = 'json'::regtype THEN ({json_text(column)})::jsonb ELSE {column}::jsonb END"
