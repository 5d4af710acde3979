"""What is known of a kind of event store: the columns by which it is recognised, and how they are read."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from esx.layouts.foreign.tables import Packed, Parts, StoreTable, StoreTables
from esx.layouts.stream_keys import ID, Joined, StreamKeys, as_uuid, joined

_COLUMN = re.compile(r'r\.(?:(\w+)|"((?:[^"]|"")+)")')
_READ = re.compile(r"\br\.(\w+)")
RELATIVE = "now|today|tomorrow|yesterday"
"""Words that are a time for PostgreSQL, but another one at each reading."""


@dataclass(frozen=True, slots=True)
class EventColumns:
    """The columns of an event, each as an SQL expression on a row ``r`` of the table of events, and rows joined to it.

    `global_seq`, `stream_id` and `stream_seq` are columns as they are, so that the indexes on them serve; where
    `stream_id` is not, the `keys` of the `Reading` are.
    """

    global_seq: str
    stream_id: str
    stream_seq: str
    event_type: str
    data: str | Packed
    metadata: str | Packed
    created_at: str
    event_id: str

    def stored(self, name: str) -> str:
        """Return what the column is called in the table itself, "" where it is made of others."""
        value = getattr(self, name)
        return stored(value.expression if isinstance(value, Packed) else value)


def stored(expression: str) -> str:
    """Return the name of the column that an expression is, "" if it is made of others."""
    found = _COLUMN.fullmatch(expression)
    if found is None:
        return ""
    return found[1] or found[2].replace('""', '"')


class Names(NamedTuple):
    """The names of all streams, in a column of another table that an index sorts.

    `where` chooses its rows ``r``, and `rows` is a query for them, in place of all of the table. Of the names only
    those are streams for which `listed` holds, with `ID` for the name; None: those that have events, which is asked
    for each. Names that begin with `hidden` are none. `keys` says how a name is compared, where the column is no text.
    `once` says that an index must keep a name from being there twice, as events are found by it.
    """

    table: StoreTable
    column: str
    where: str = "true"
    listed: str | None = None
    hidden: str | None = None
    keys: StreamKeys | None = None
    rows: str = ""
    once: bool = False

    @property
    def query(self) -> str:
        """What names are read from."""
        listed = f"r.{self.column} AS stream_id"
        if self.keys is not None:
            listed = f"r.{self.column}::text AS stream_id, {self.keys.select()}"
        return f"(SELECT {listed} FROM {self.rows or self.table.quoted} r WHERE {self.where})"


@dataclass(frozen=True, slots=True)
class Reading:
    """How the events of a store are read: from the rows ``r`` of `table`, with `joins` to others, that meet `where`.

    `table` is None for the table of events itself. `keys` says how a stream is found, where stream_id is no column as
    it is. `rows` is a query for the rows, in place of all of the table. `in_stream` is another way to read, for the
    events of a stream; then the `keys` are of its rows. `names` has the names of the streams, where another table has
    them. `separator` ends the category in a stream's id; keys that join several columns have their own. `otherwise` is
    how they are read where no index keeps two events from one place of a stream. `moments` makes the times of events of
    the bytes of their data, faster than the expression `created_at`. `correlation` and `causation` are
    expressions for the texts of these ids, where they are not members of the metadata, and `identity` is one for the
    id of an event, where that is a text; `causes_numbered` says that a cause is named by its global_seq. `category` is
    an expression for the category of a stream, with `ID` for its id, where a column has it.
    """

    columns: EventColumns
    table: StoreTable | None = None
    joins: str = ""
    where: str = ""
    rows: str = ""
    keys: StreamKeys | None = None
    in_stream: "Reading | None" = None
    names: Names | None = None
    separator: str = "-"
    otherwise: "Reading | None" = None
    moments: Callable[[Sequence[bytes | None]], Sequence[datetime | None]] | None = None
    correlation: str | None = None
    causation: str | None = None
    identity: str | None = None
    causes_numbered: bool = False
    category: str | None = None

    @property
    def oid(self) -> int | None:
        """The oid of `table`."""
        return None if self.table is None else self.table.oid

    @property
    def needed(self) -> frozenset[str]:
        """The columns of the table of events that are read."""
        if self.table is not None:
            return frozenset()
        values = (getattr(self.columns, name) for name in EventColumns.__slots__)
        texts = [value.expression if isinstance(value, Packed) else value for value in values]
        texts += [self.joins, self.where]
        if self.keys is not None and (self.in_stream is None or self.in_stream.table is None):
            texts += self.keys.columns
        found = frozenset(column for text in texts for column in _READ.findall(text))
        return found if self.in_stream is None else found | self.in_stream.needed

    @property
    def numbered(self) -> bool:
        """Whether the events have a global order."""
        return self.columns.global_seq != UNNUMBERED

    @property
    def packed(self) -> bool:
        """Whether a payload is read as bytes."""
        return isinstance(self.columns.data, Packed) or isinstance(self.columns.metadata, Packed)


UNNUMBERED = "(-1)::bigint"
"""The global_seq of a store without a global order."""
NO_NUMBER = "NULL::bigint"
NO_STREAM = "NULL::text"
NO_TIME = "NULL::timestamptz"
NO_ID = "NULL::uuid"


def id_column(table: StoreTable, column: str, alias: str = "r") -> str | None:
    """Return a column with ids as a text, as it is if it is one; None where it is not there or may not be read."""
    if column not in table.readable:
        return None
    expression = f"{alias}.{column}"
    return expression if table.columns[column] in ("text", "character varying") else f"{expression}::text"


def uuid_or_text(table: StoreTable, column: str) -> tuple[str, StreamKeys | None]:
    """Return the expression of a stream's id, and its keys if the column is of type uuid."""
    if table.columns[column] == "uuid":
        return f"r.{column}::text", Joined((f"r.{column}",), (True,))
    return f"r.{column}", None


def joined_ids(table: StoreTable, columns: Sequence[str], separator: str = "/") -> tuple[str, StreamKeys]:
    """Return the expression of a stream's id that several columns make, and its keys."""
    expressions = tuple(f"r.{column}" for column in columns)
    uuids = tuple(table.columns[column] == "uuid" for column in columns)
    return joined(expressions, separator), Joined(expressions, uuids, separator)


def category_of_first(table: StoreTable, stream: str, number: str, column: str, category: str = "{}") -> str | None:
    """Return the expression for the category of a stream, which a column of its first event has.

    `stream` and `number` are the columns of the index in which the event is found; `category` makes it of the column.
    None where that is not there or may not be read.
    """
    if column not in table.readable:
        return None
    wanted = as_uuid(ID) if table.columns[stream] == "uuid" else ID
    return (
        f"(SELECT {category.format(f'c.{column}')} FROM {table.quoted} c WHERE c.{stream} = {wanted} "
        f"ORDER BY c.{number} LIMIT 1)"
    )


def time_of(text: str) -> str:
    """Return the expression for the time that a text in ISO 8601 is, in UTC if it names no zone; NULL if it is none."""
    given = "t.given"
    moment = f"({given} || CASE WHEN {given} ~ '(Z|[-+][0-9:]+)$' THEN '' ELSE 'Z' END)"
    return (
        f"(SELECT CASE WHEN {given} ~ '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[T ][0-9]{{2}}:' "
        f"AND pg_catalog.pg_input_is_valid({moment}, 'timestamptz') THEN {moment}::timestamptz END "
        f"FROM (SELECT ({text})::text AS given OFFSET 0) t)"  # written once, as the expression may be long
    )


@dataclass(frozen=True, slots=True)
class CheckpointColumns:
    """What a consumer keeps, each as an SQL expression on a row ``c`` of its table, which is read as text.

    `position` is read as a number of the global order if it is one; `at` is what to show instead, e.g. the number in
    one stream. `apart` is the condition that it cannot be behind
    the events of this store: it reads another one, or works in the transaction that appends. `rows` is what is read
    instead of the table itself, and `needed` are the columns for that. A row without
    a name says that others are left out, for which `cut` gives the reason.
    """

    name: str
    position: str = "NULL"
    at: str = "NULL"
    state: str = "NULL"
    owner: str = "NULL"
    error: str = "NULL"
    updated_at: str = "NULL"
    apart: str = "false"
    rows: str | None = None
    needed: Collection[str] = ()
    cut: str = ""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """A table in which consumers keep how far they are, if there is one in the schema of the events.

    It is recognised by the columns of `has`. `columns` tells from the tables of the store and from this one how it is
    read, and returns None if it is another table after all, or in a line why its consumers are left out.
    """

    has: Collection[str]
    columns: Callable[[StoreTables, StoreTable], CheckpointColumns | str | None]

    def fits(self, table: StoreTable) -> bool:
        """Return whether a table has the columns by which it is recognised."""
        return table.columns.keys() >= set(self.has)


@dataclass(frozen=True, slots=True)
class StoreCheck:
    """What is known to go wrong in a kind of store, for the doctor to look for.

    `query` makes a query with a row for each fault, from the tables and from the seconds after which something is old;
    None where it does not apply. `message` tells of a fault, with the columns of its row in braces, and `fine` what
    holds without one. Columns as of `HOLDER` are those of a session, ``{who}`` in the message, and the remedy is to end
    it if something is wrong. Any other `remedy` only reads, as nothing here may change the tables of another tool.
    """

    name: str
    severity: str
    message: str
    fine: str
    query: Callable[[StoreTables, float], str | None]
    remedy: str = ""


HOLDER = """
    a.pid, a.gid, extract(epoch FROM clock_timestamp() - a.since)::float8 AS age, a.state, a.application, a.role
"""
"""The columns of a session `a` of `SESSIONS` for a `StoreCheck`."""
SESSIONS = """
    (SELECT s.pid, NULL::text AS gid, s.xact_start AS since, s.state, s.application_name AS application,
            s.usename::text AS role, s.backend_xid AS xid
     FROM pg_stat_activity s WHERE s.pid <> pg_backend_pid()
     UNION ALL
     SELECT NULL, x.gid, x.prepared, NULL, NULL, x.owner::text, x.transaction FROM pg_prepared_xacts x) a
"""
"""The sessions and prepared transactions of the whole cluster, with the ids of their transactions."""


def kept(table: StoreTable, column: str) -> str:
    """Return a column of a table of checkpoints as an expression, NULL where this version of the tool has none."""
    type_ = table.columns.get(column)
    if type_ is None:
        return "NULL"
    return f"c.{column} AT TIME ZONE 'UTC'" if type_ == "timestamp with time zone" else f"c.{column}"


@dataclass(frozen=True, slots=True, eq=False)
class StoreKind:
    """A kind of event store.

    `name` is how commands call it, `title` how people do. The table of its events has all columns of `has` and none of
    `lacks`, and in the same schema are the tables of `beside`, each with those columns. `reading` tells, from the
    tables, how events are read; only that of esx itself has none. `first` is the number of a
    stream's first event, `global_first` that of the first one of all. `unordered` says why no position of a feed is
    safe, None where the locks of its writers tell; `draws_apart` says that it draws a number in an earlier statement
    than it inserts, so that the locks on the sequence count as well. `placed` says that an index must keep two events
    from one place of a stream; `also_placed` are other columns that it may have. `sequences` are names of sequences in
    its schema, one of which the application draws numbers from, where none belongs to the column. `checkpoints` are the
    tables in which its consumers may keep how far they are, `checks` what is known to go wrong. `caution` is what its
    user should know of the order, in one line. `correlation` and `causation` are the names of these ids in its
    metadata, where they are not those in common use. `counted` is the table of `beside` that has a row for each event,
    where the table of events has more. `parts` are the tables that have its events, where these are
    several; `learn` makes a query, from the tables, for what `reading` has to know of their rows.
    """

    name: str
    title: str
    has: Collection[str]
    lacks: Collection[str] = ()
    beside: Mapping[str, Collection[str]] = field(default_factory=dict)
    reading: Callable[[StoreTables], Reading] | None = None
    first: int = 0
    global_first: int = 1
    unordered: str | None = None
    draws_apart: bool = False
    placed: bool = True
    also_placed: tuple[str, ...] = ()
    sequences: tuple[str, ...] = ()
    checkpoints: Collection[Checkpoints] = ()
    checks: Collection[StoreCheck] = ()
    caution: str | None = None
    correlation: tuple[str, ...] = ()
    causation: tuple[str, ...] = ()
    counted: str | None = None
    parts: Parts | None = None
    learn: Callable[[StoreTables], str] | None = None


@dataclass(frozen=True, slots=True)
class Foreign:
    """A store of another tool: its kind, how its events are read, and its tables, if more is to be learned of them."""

    kind: StoreKind
    reading: Reading = field(hash=False)
    tables: StoreTables | None = field(default=None, compare=False)
