"""The name of an events table, and how its columns map to `Event`.

All names that the read path uses are here, so that tables of other tools can be supported by another layout, without
changes to queries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from esx.errors import OrderUnknown, StoreFailed
from esx.layouts.foreign.kind import Foreign
from esx.layouts.foreign.source import source
from esx.layouts.operators import CustomColumn
from esx.layouts.stream_keys import ID, Joined, StreamKeys
from esx.model import UNNUMBERED
from esx.postgres.literals import literal

BYTE_ORDERED = ("C", "POSIX", "ucs_basic", "C.UTF-8")
"""The collations that sort by bytes."""
PREVIEW = 400
"""How many characters of an event's data a preview shows; it has one more if there are more."""
_MOST_UNPACKED = 8192
OTHER_TABLES = (
    *("stream_locks", "consumers", "projections", "parked_events", "feed_fence", "erased_events", "conflicts"),
    "esx_schema",
)
"""What schema.sql makes beside the table events: tables, and the view projections."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Names and capabilities of one events table. Names are SQL from the catalogs, never text of the user.

    `table` is what is read, with its schema, as guarded sessions need it; `schema` and `name` are the same without
    quotes. `called` is the user's name for it. `kind` is that of pg_class. For a view that certainly shows one table,
    `base` is the oid of that table, whose sizes and indexes count, `base_name` its name, and `base_sequence` the oid of
    the sequence of its numbers. `own` says that the other objects of schema.sql belong to it; `home` is their schema,
    which is that of the table events that the user's search_path finds.

    `foreign` is the kind of another store that it belongs to; then `table` is a query that makes events of the rows of
    its table `base`. `number_table` is a query for their numbers alone, without the joins of `table`. `stream_table` is
    another such query, if one serves the events of a stream, and `name_table` one for the names of streams, of which
    those are streams that `name_listed` says, and none that begin with `name_hidden`; `name_keys` are the keys in it.
    `separator` is the character that ends the category in a stream's id, `category` an expression for it, with `ID` for
    that id, where a column has it. `keys` says how a stream is found where
    stream_id is no column with an index. `packed` says that payloads are read as bytes, from the columns ``data_raw``
    and ``metadata_raw``; `moments` makes the times of events of their data. `beside` are the oids of other tables that
    are read, `parts` of those with the events, where they are not in `base`, `counted` of the one that has a row for
    each event, where `base` has more.

    `placed` says that an index keeps two events from one place of a stream.

    `byte_order` says that stream ids sort by bytes (COLLATE "C"), so that a prefix is a range of the unique index;
    without it a prefix takes a scan. `places` are the table's own unique indexes that keep two events from one place of
    a stream, as (schema, name). `lockable` says that this user can lock streams by ``esx_lock_stream``,
    `unique_event_id` that an index keeps event ids unique. `standby` says that the server is a hot standby: it is
    read-only, and the primary's locks are not visible. `encoding` is the database's encoding, by PostgreSQL's name.
    `timed` says that created_at has times, not texts or numbers.

    `restricted` are the kinds of relations that reading it does not need, in the format of PostgreSQL's setting
    restrict_nonsystem_relation_kind. `custom_columns` are the columns whose types are not PostgreSQL's own.
    `for_statements` says that a trigger runs for each statement that inserts, not for each row.

    `refuses_appends` says why nothing can be appended, `unnumbered` why the events have no global order, `disordered`
    why this kind of relation has no safe positions, `warning` what the user should know before reading it. Each is one
    line, or None.
    """

    table: str = "events"
    called: str = "events"
    schema: str | None = None
    name: str = "events"
    home: str | None = None
    kind: str = "r"
    base: int | None = None
    base_sequence: int | None = None
    base_name: str | None = None
    own: bool = True
    foreign: Foreign | None = None
    number_table: str | None = None
    stream_table: str | None = None
    name_table: str | None = None
    name_listed: str | None = None
    name_hidden: str | None = None
    name_keys: StreamKeys | None = None
    keys: StreamKeys | None = None
    separator: str = "-"
    category: str | None = None
    packed: bool = False
    moments: Callable[[Sequence[bytes | None]], Sequence[datetime | None]] | None = None
    beside: tuple[int, ...] = ()
    parts: tuple[int, ...] = ()
    counted: int | None = None
    places: frozenset[tuple[str, str]] = frozenset()
    placed: bool = True
    channel: str = "new_events"
    event_id: str | None = "event_id"
    byte_order: bool = True
    lockable: bool = True
    unique_event_id: bool = False
    timed: bool = True
    standby: bool = False
    encoding: str = "UTF8"
    restricted: str = ""
    custom_columns: tuple[CustomColumn, ...] = ()
    for_statements: bool = False
    refuses_appends: str | None = None
    unnumbered: str | None = None
    disordered: str | None = None
    warning: str | None = None

    @property
    def oid(self) -> str:
        """The expression for the oid of `table`."""
        return f"{literal(self.table)}::regclass" if self.foreign is None else self.base_oid

    @property
    def base_oid(self) -> str:
        """The expression for the oid of the table with the rows: `table`, or the table that a view reads."""
        return f"'{self.base}'::regclass" if self.base is not None else self.oid

    @property
    def tables(self) -> str:
        """The query for the oids of the tables with the rows, which writers lock and whose indexes count."""
        if not self.parts:
            return f"SELECT {self.base_oid}::oid"
        return f"SELECT unnest('{{{','.join(map(str, self.parts))}}}'::oid[])"

    @property
    def index_on(self) -> str:
        """The text after ``CREATE INDEX`` in the statement for an index of this table."""
        # CONCURRENTLY does not work for a partitioned table.
        return f"{'' if self.partitioned else 'CONCURRENTLY '}ON {self.base_name or self.called}"

    @property
    def shown_as(self) -> str:
        """What queries for people read: its name, or the query that makes events of the rows of another store."""
        return self.called if self.foreign is None else self.table

    @property
    def partitioned(self) -> bool:
        """Whether the rows are in partitions, each with indexes of its own."""
        return self.kind == "p"

    @property
    def is_view(self) -> bool:
        """Whether it is a view, or a materialized one."""
        return self.kind in ("v", "m")

    @property
    def first(self) -> int:
        """The number of a stream's first event."""
        return 0 if self.foreign is None else self.foreign.kind.first

    @property
    def before_first(self) -> int:
        """The position before the lowest global_seq that an event can have."""
        return 0 if self.foreign is None else self.foreign.kind.global_first - 1

    def stored(self, column: str) -> str:
        """Return the name that a column of an event has in the table with the rows; "" if it is made of others."""
        return column if self.foreign is None else self.foreign.reading.columns.stored(column)

    def ours(self, name: str) -> str:
        """Return the name, as SQL writes it, of another object of schema.sql."""
        return name if self.home is None else f"{self.home}.{name}"

    def check_appends(self) -> None:
        """Raise StoreFailed if nothing can be appended."""
        if self.refuses_appends is not None:
            raise StoreFailed(self.refuses_appends)

    @property
    def numbered(self) -> bool:
        """Whether the events have a global order."""
        return self.unnumbered is None

    def check_numbered(self) -> None:
        """Raise OrderUnknown if the events have no global order."""
        if self.unnumbered is not None:
            raise OrderUnknown(self.unnumbered)

    def place(self, alias: str) -> tuple[str, str, str]:
        """Return the expressions for an event's stream, number and type, which another tool may leave NULL."""
        stream, number, event_type = f"{alias}.stream_id::text", f"{alias}.stream_seq", f"{alias}.event_type"
        if self.foreign is None:
            return stream, number, event_type
        return f"coalesce({stream}, '')", f"coalesce({number}, {UNNUMBERED})", f"coalesce({event_type}, '')"

    def columns(self, alias: str = "e") -> str:
        """Return the select list that makes one `Event` of a row, positions as in `Event`."""
        event_id = "NULL::uuid" if self.event_id is None else f"{alias}.{self.event_id}"
        stream, number, event_type = self.place(alias)
        data = f"{alias}.data_raw" if self.packed else self.data(alias)
        metadata = f"{alias}.metadata{'_raw' if self.packed else ''}"
        created_at = f"{alias}.created_at" if self.moments is None else "NULL::timestamptz"
        return f"{alias}.global_seq, {stream}, {number}, {event_type}, {data}, {metadata}, {created_at}, {event_id}"

    def preview(self, alias: str = "e") -> str:
        """Return the select list that makes one `EventPreview` of a row, positions as there."""
        stream, number, event_type = self.place(alias)
        return (
            f"{alias}.global_seq, {stream}, {number}, left({event_type}, {PREVIEW + 1}), "
            f"{alias}.created_at, {', '.join(self.data_start(alias))}"
        )

    def data_start(self, alias: str = "e") -> tuple[str, str]:
        """Return the expressions for the start of an event's data, which is NULL for large ones, and for their size.

        `esx.store.rows.start_text` makes a text of both.
        """
        # Large data are stored elsewhere, compressed; to fetch and unpack them for each line of a list would cost up to
        # a second per screen. pg_column_size reads the size without fetching them.
        size = f"coalesce(pg_column_size({alias}.{'data_raw' if self.packed else 'data'}), 0)"
        shown = size
        start = f"left({self.data(alias)}::text, {PREVIEW + 1})"
        if self.packed:
            shown = f"coalesce(octet_length({alias}.data_raw), 0)"
            start = f"substring({alias}.data_raw FROM 1 FOR {4 * (PREVIEW + 1)})"
        return f"CASE WHEN {size} <= {_MOST_UNPACKED} THEN {start} END", shown

    def data(self, alias: str = "e") -> str:
        """Return the expression for an event's data, with JSON's null for NULL."""
        return f"coalesce({alias}.data, 'null')"

    def last(self) -> str:
        """Return the expression for a text that sorts, by bytes, after all characters of usual ids.

        Appended to a prefix, it ends the range of the ids with that prefix, unless an id is made to defeat it.
        """
        if self.encoding == "UTF8":
            highest = "pg_catalog.chr(1114111)"
        elif self.encoding.startswith("EUC_"):
            highest = f"pg_catalog.convert_from('\\xfefe', '{self.encoding}')"
        else:  # a character is a byte
            highest = "pg_catalog.chr(255)"
        return f"pg_catalog.repeat({highest}, 16)"

    @property
    def numbers(self) -> str:
        """What the numbers of all events are read from, where nothing else of the events is needed."""
        return self.number_table or self.table

    @property
    def within_stream(self) -> str:
        """What the events of a stream are read from."""
        return self.stream_table or self.table

    @property
    def link_columns(self) -> dict[str, str]:
        """The columns of `linked` with ids that hold elsewhere too, by the names of members of the metadata."""
        if self.foreign is None:
            return {}
        reading = self.foreign.reading
        causation = None if reading.causes_numbered else reading.causation
        ids = {"correlation": reading.correlation, "causation": causation}
        return {f"{name}_id": f"trail_{name}" for name, value in ids.items() if value is not None}

    @property
    def linked(self) -> str:
        """What the events of a trail are read from: `table`, with the ids that another tool has in other columns."""
        return self.table if self.foreign is None else source(self.foreign.reading, self.called, linked=True)

    @property
    def names(self) -> str:
        """What the names of streams are read from."""
        return self.name_table or self.table

    def in_stream(self, stream: str, alias: str = "e") -> str:
        """Return the condition that a row of `within_stream` is of the stream that the expression `stream` names."""
        return f"{alias}.stream_id = {stream}" if self.keys is None else self.keys.compared(alias, "=", stream)

    def numbered_in_stream(self, alias: str = "e") -> str:
        """Return the condition, after others, that an event has a number in its stream, which it may lack elsewhere."""
        if self.foreign is None or self.stream_table is not None or not self.stored("stream_seq"):
            return ""
        return f" AND {alias}.stream_seq IS NOT NULL"

    def without_number(self, most: int) -> str | None:
        """Return the query for how many events of stream $1 have no number in it, up to `most`; None where all do."""
        if not self.numbered_in_stream():
            return None
        rows = f"FROM {self.within_stream} e WHERE {self.in_stream('$1')} AND e.stream_seq IS NULL LIMIT {most}"
        return f"SELECT count(*) FROM (SELECT {rows}) n"

    def name_compared(self, operator: str, stream: str, alias: str = "s") -> str:
        """Return the condition that a row of `names` comes before or after a name in the order of streams."""
        keys = self.name_keys
        if keys is not None:
            return keys.compared(alias, operator, stream)
        return f"{alias}.stream_id {operator} {self.beyond_hidden(operator, stream, stream)}"

    def beyond_hidden(self, operator: str, name: str, place: str) -> str:
        """Return the expression `place`, or where the hidden names end if that of `name` is one of them."""
        if self.name_hidden is None or not self.byte_order:
            return place
        end = literal(self.name_hidden)
        if operator.startswith(">"):
            end = f"{end} || {self.last()}"
        return f"CASE WHEN {self.hidden(name)} THEN {end} ELSE {place} END"

    def hidden(self, name: str) -> str:
        """Return the condition that the expression of a name from `names` begins as no stream does."""
        return "false" if self.name_hidden is None else f"starts_with({name}::text, {literal(self.name_hidden)})"

    def name_order(self, direction: str, alias: str = "s") -> str:
        """Return the list for ORDER BY that sorts rows of `names`, ASC or DESC."""
        return ", ".join(f"{column} {direction}" for column in self._name_columns(alias))

    def name_there(self, alias: str = "s") -> str:
        """Return the condition that a row of `names` has a name, which an event of another tool may lack."""
        if self.foreign is None:
            return "true"
        return " AND ".join(f"{column} IS NOT NULL" for column in self._name_columns(alias))

    def _name_columns(self, alias: str) -> tuple[str, ...]:
        return (f"{alias}.stream_id",) if self.name_keys is None else self.name_keys.named(alias)

    def prefix_range(self, alias: str = "s") -> str:
        """Return the condition on a row of `names` that an index uses for the prefix $1, "true" if there is none."""
        if self.name_keys is not None:
            return self.name_keys.prefix_range(alias, self.last() if self.byte_order else "")
        if self.byte_order:
            return f"{alias}.stream_id >= $1 AND {alias}.stream_id < $1 || {self.last()}"
        return "true"

    @property
    def joined_names(self) -> Joined | None:
        """The columns of which names are joined, if there are several: the first one is the category."""
        keys = self.name_keys
        return keys if isinstance(keys, Joined) and len(keys.columns) > 1 else None

    @property
    def has_categories(self) -> bool:
        """Whether categories can be listed: a column has them, or they are found by skipping from one to the next."""
        return (
            self.category is not None or self.joined_names is not None or (self.byte_order and self.name_keys is None)
        )

    @property
    def unlisted(self) -> str | None:
        """Why no streams are listed though they can be read, None if they are listed."""
        names = None if self.foreign is None else self.foreign.reading.names
        if self.foreign is None or names is None or names.where != "false":
            return None
        return f"this store of {self.foreign.kind.title} has tags and no streams: a tag is read as one, by its name"

    def listed(self, name: str) -> str:
        """Return the condition that the expression of a name from `names` is that of a stream."""
        if self.name_table is None:
            return "true"
        if self.name_hidden is not None:
            return f"(NOT {self.hidden(name)} AND {self._listed(name)})"
        return self._listed(name)

    def _listed(self, name: str) -> str:
        if self.name_listed is not None:
            return self.name_listed.replace(ID, name)
        return f"EXISTS (SELECT FROM {self.within_stream} e WHERE {self.in_stream(name)})"

    def version(self) -> str:
        """Return the query for the version of stream $1, -1 if it has no events."""
        if self.foreign is None:
            last = "pg_catalog.max(e.stream_seq)"
            return f"SELECT coalesce({last}, -1) AS version FROM {self.table} e WHERE e.stream_id = $1"
        # Of joined tables max() would read all of the stream.
        last = (
            f"SELECT e.stream_seq FROM {self.within_stream} e WHERE {self.in_stream('$1')}{self.numbered_in_stream()}"
        )
        return f"SELECT coalesce(({last} ORDER BY e.stream_seq DESC LIMIT 1), -1)::bigint AS version"

    def head(self) -> str:
        """Return the expression for the highest global_seq drawn, 0 before the first.

        For a user who may not ask the sequence it is the highest visible one, and so in another tool's store: to ask
        locks the sequence, and there that lock tells who has drawn a number.
        """
        if not self.numbered:
            return "0::bigint"
        if self.foreign is not None:
            return f"coalesce((SELECT pg_catalog.max(global_seq) FROM {self.numbers}), 0)"
        return (
            f"coalesce(CASE WHEN {self.head_exact()} THEN pg_sequence_last_value({self.sequence}) "
            f"ELSE (SELECT pg_catalog.max(global_seq) FROM {self.numbers}) END, 0)"
        )

    def head_exact(self) -> str:
        """Return the condition that `head` needs no "or above"."""
        if self.foreign is not None:
            return "true"
        return f"coalesce(has_sequence_privilege({self.sequence}, 'SELECT, USAGE'), false)"

    @property
    def sequence(self) -> str:
        """The expression for the oid of the sequence that belongs to the numbers, NULL if there is none."""
        if self.base is None:
            return f"pg_get_serial_sequence({literal(self.table)}, 'global_seq')::regclass"
        return "NULL::regclass" if self.base_sequence is None else f"'{self.base_sequence}'::regclass"
