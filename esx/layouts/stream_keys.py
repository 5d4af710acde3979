"""How a stream is found by its id where the table does not have the id as it is shown.

Other tools keep UUIDs, several columns, or a number that another table gives to the name. Such columns are compared as
they are, with values made of the id, so that the table's indexes serve. In the source of a layout they are called
``stream_key_1``, ``stream_key_2`` and so on; their order is the order of the streams by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from esx.postgres.literals import literal

ID = "\x00"
"""Stands in SQL for the expression of a stream's id: no name of a table can have this character."""
_LOWEST, _HIGHEST = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"


class StreamKeys(ABC):
    """The columns by which a stream is found, each an expression on a row ``r`` of the table that has an index."""

    columns: tuple[str, ...]

    @abstractmethod
    def values(self, stream: str) -> tuple[str, ...]:
        """Return the expressions for the values of the columns, made of the expression of an id; NULL for no id."""

    def prefix_range(self, alias: str, last: str) -> str:  # noqa: ARG002
        """Return the condition that an index uses for the prefix $1, "true" if there is none.

        `last` is the expression for a text that sorts after all characters, "" where texts do not sort by bytes.
        """
        return "true"

    def named(self, alias: str) -> tuple[str, ...]:
        """Return the columns in the source of a layout."""
        return tuple(f"{alias}.stream_key_{number}" for number in range(1, len(self.columns) + 1))

    def select(self) -> str:
        """Return the select list that gives the columns their names in the source of a layout."""
        return ", ".join(f"{column} AS stream_key_{number}" for number, column in enumerate(self.columns, 1))

    def compared(self, alias: str, operator: str, stream: str) -> str:
        """Return the comparison of the columns with those of an id."""
        columns, values = self.named(alias), self.values(stream)
        if len(columns) == 1:
            return f"{columns[0]} {operator} {values[0]}"
        return f"({', '.join(columns)}) {operator} ({', '.join(values)})"


@dataclass(frozen=True, slots=True)
class Made(StreamKeys):
    """Columns whose values are made of the name by `expressions`, each with `ID` for the name.

    A query in parentheses is one too, such as for the number that another table has for the name.
    """

    columns: tuple[str, ...]
    expressions: tuple[str, ...]

    def values(self, stream: str) -> tuple[str, ...]:
        """Put the name into each expression."""
        return tuple(expression.replace(ID, f"{stream}::text") for expression in self.expressions)


@dataclass(frozen=True, slots=True)
class Joined(StreamKeys):
    """Columns whose values are shown joined by a separator.

    A column of `uuids` is of type uuid, one of `numbers` is an integer, others are texts.
    Within the first ones the separator is written by its number, as in an address: ``%2F``, and ``%`` as ``%25``.
    """

    columns: tuple[str, ...]
    uuids: tuple[bool, ...]
    separator: str = "/"
    numbers: tuple[bool, ...] = ()

    def category(self, value: str) -> str:
        """Return the expression for the category that the value of the first column is shown as."""
        return escaped(f"{value}::text", self.separator)

    def category_from(self, start: str) -> str:
        """Return the expression for the value of the first column from which on categories are listed at `start`."""
        return unescaped(f"pg_catalog.split_part({start}, {literal(self.separator)}, 1)", self.separator)

    def values(self, stream: str) -> tuple[str, ...]:
        """Cut the id at the separators; an id with too few of them is none."""
        parts = self._cut(f"{stream}::text")
        numbers = self.numbers or (False,) * len(parts)
        return tuple(
            as_uuid(part) if uuid else as_number(part) if number else part
            for part, uuid, number in zip(parts, self.uuids, numbers, strict=True)
        )

    def prefix_range(self, alias: str, last: str) -> str:
        """Return a range of rows. Numbers do not sort as their digits do."""
        if any(self.numbers) or (not last and not all(self.uuids)):
            return "true"
        # A number of which only the start is there is left out: the range is wider then.
        parts = self._cut("pg_catalog.regexp_replace($1::text, '%[0-9A-F]?$', '')")
        # A part that the separator follows is whole.
        following = [*parts[1:], "NULL::text"]
        ends = [
            self._end(part, uuid, f"CASE WHEN {after} IS NULL THEN {last} ELSE '' END" if last else "")
            for part, uuid, after in zip(parts, self.uuids, following, strict=True)
        ]
        columns = self.named(alias)
        if len(columns) == 1:
            return f"{columns[0]} BETWEEN {ends[0][0]} AND {ends[0][1]}"
        row = f"({', '.join(columns)})"
        lowest, highest = (", ".join(each) for each in zip(*ends, strict=True))
        return f"{row} >= ({lowest}) AND {row} <= ({highest})"

    def _end(self, part: str, uuid: bool, last: str) -> tuple[str, str]:
        """Return the lowest and the highest value that begins with a part of a prefix; NULL is a part not reached."""
        begun = f"coalesce({part}, '')"
        if uuid:
            lowest, highest = (
                as_uuid(f"({begun} || pg_catalog.substr('{end}', pg_catalog.length({begun}) + 1))")
                for end in (_LOWEST, _HIGHEST)
            )
            return lowest, highest
        return begun, f"{begun} || {last}"

    def _cut(self, text: str) -> list[str]:
        if len(self.columns) == 1:
            return [text]
        separator, parts, rest = literal(self.separator), [], text
        for _ in self.columns[1:]:
            parts.append(unescaped(f"pg_catalog.split_part({rest}, {separator}, 1)", self.separator))
            place = f"pg_catalog.strpos({rest}, {separator})"
            rest = f"CASE WHEN {place} > 0 THEN pg_catalog.substr({rest}, {place} + {len(self.separator)}) END"
        return [*parts, rest]


@dataclass(frozen=True, slots=True)
class Categorised(Joined):
    """Two columns with texts, of which the first is shown as a category that is short for it.

    `shown` has the values with their categories, which do not contain the separator. Where the second column is empty,
    the category alone is shown.
    """

    shown: tuple[tuple[str, str], ...] = ()

    def joined(self) -> str:
        """Return the expression for the id that is shown."""
        category, other = self.columns
        rest = f"CASE WHEN {other} = '' THEN '' ELSE {literal(self.separator)} || {other} END"
        return f"{self.category(category)} || {rest}"

    def category(self, value: str) -> str:
        """Look up the category."""
        return _looked_up(value, self.shown)

    def category_from(self, start: str) -> str:
        """Look up the value, also of what comes after all ids of a category."""
        pairs = []
        for value, category in self.shown:
            pairs.append((literal(category), literal(value)))
            pairs.append((literal(category + "\x01"), f"{literal(value)} || pg_catalog.chr(1)"))
        return _case(self._category_of(start), pairs)

    def values(self, stream: str) -> tuple[str, ...]:
        """Cut the id at the first separator, and look up the category."""
        text, separator = f"{stream}::text", literal(self.separator)
        place = f"pg_catalog.strpos({text}, {separator})"
        rest = f"CASE WHEN {place} > 0 THEN pg_catalog.substr({text}, {place} + {len(self.separator)}) ELSE '' END"
        return _looked_up(self._category_of(text), [(category, value) for value, category in self.shown]), rest

    def prefix_range(self, alias: str, last: str) -> str:
        """Return a range of rows, and the condition for the categories in it, whose order is that of the values."""
        if not last:
            return "true"
        category, other = self.named(alias)
        value, rest = self.values("$1")
        whole = f"pg_catalog.strpos($1::text, {literal(self.separator)}) > 0"
        begun = ", ".join(
            f"CASE WHEN pg_catalog.starts_with({literal(category)}, $1::text) THEN {literal(value)} END"
            for value, category in self.shown
        )
        low, high = (
            f"CASE WHEN {whole} THEN {value} ELSE {end}({begun or 'NULL'}) END" for end in ("least", "greatest")
        )
        return (
            f"({category}, {other}) >= ({low}, {rest}) AND ({category}, {other}) <= ({high}, {rest} || {last}) "
            f"AND ({whole} OR pg_catalog.starts_with({self.category(category)}, $1::text))"
        )

    def _category_of(self, stream: str) -> str:
        return f"pg_catalog.split_part({stream}, {literal(self.separator)}, 1)"


def _looked_up(text: str, pairs: Sequence[tuple[str, str]]) -> str:
    return _case(text, [(literal(each), literal(other)) for each, other in pairs if each != other])


def _case(text: str, pairs: Sequence[tuple[str, str]]) -> str:
    """Return the expression that has for the first of each pair the second one, and other texts as they are."""
    cases = "".join(f" WHEN {each} THEN {other}" for each, other in pairs)
    return f"CASE {text}{cases} ELSE {text} END" if cases else text


def as_uuid(text: str) -> str:
    """Return the expression for the UUID that the expression `text` is written as, NULL if it is none."""
    return (
        f"CASE WHEN {text}::text ~ '^[0-9A-Fa-f]{{8}}(-[0-9A-Fa-f]{{4}}){{3}}-[0-9A-Fa-f]{{12}}$' "
        f"THEN {text}::text::uuid END"
    )


def as_number(text: str) -> str:
    """Return the expression for the integer that the expression `text` is written as, NULL if it is none."""
    return (
        f"CASE WHEN {text}::text ~ '^(0|-?[1-9][0-9]{{0,18}})$' THEN CASE WHEN {text}::text::numeric "
        f"BETWEEN {-(2**63)} AND {2**63 - 1} THEN {text}::text::bigint END END"
    )


def joined(columns: Sequence[str], separator: str = "/") -> str:
    """Return the expression for the id that is shown."""
    *first, last = (f"{column}::text" for column in columns)
    return f" || {literal(separator)} || ".join([*(escaped(column, separator) for column in first), last])


def escaped(text: str, separator: str) -> str:
    """Return the expression for one of the first parts of an id as it is shown, without the separator in it."""
    for old, new in _escapes(separator):
        text = f"pg_catalog.replace({text}, {literal(old)}, {literal(new)})"
    return text


def unescaped(text: str, separator: str) -> str:
    """Return the expression for the part that is shown as the expression `text`."""
    for new, old in reversed(_escapes(separator)):
        text = f"pg_catalog.replace({text}, {literal(old)}, {literal(new)})"
    return text


def _escapes(separator: str) -> tuple[tuple[str, str], ...]:
    """Return what is written how. With a separator that would be in a number as well, nothing is."""
    if separator in "%0123456789ABCDEF" or ord(separator) > 0xFF:
        return ()
    return ("%", "%25"), (separator, f"%{ord(separator):02X}")
