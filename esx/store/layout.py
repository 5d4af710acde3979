"""What a table of events is called and how its columns map onto `Event`.

Everything that the read path knows of names belongs here, so that the tables of other tools can be read later
by adding a layout instead of touching queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esx.store.errors import StoreFailed

if TYPE_CHECKING:
    from esx.store.strange import Strange

PREVIEW = 400
"""Characters of an event's data that a preview holds; one more tells that there are more."""
_MOST_UNPACKED = 8192


@dataclass(frozen=True, slots=True)
class Layout:
    """Names and capabilities of one events table. Names are SQL as the catalogs have it, never text of the user's.

    `table` is what is read, with its schema, as sessions that read find nothing without; `schema` and `name` are the
    same without quotes. `called` is what its user calls it.
    `kind` is that of pg_class. Where it is a view over one table for certain, `base` is the oid of that table, whose
    sizes and indexes count, `base_name` its name, and `base_sequence` the oid of the sequence of its numbers.
    `own` says that the other objects of schema.sql belong to it; `home` is their schema, which is that of the table
    events that the user's search_path finds.

    `byte_order` says that stream ids sort by bytes (COLLATE "C"), so that a prefix is a range of the unique index;
    without it a prefix is still found, but by a scan. `places` are the unique indexes of the table itself that keep
    two events from one place of a stream, as (schema, name). `lockable` says that this user can lock streams by
    ``esx_lock_stream``, `unique_event_id` that an index keeps event ids unique. `standby` says that the server is a
    hot standby: it can only be read, and the primary's locks are not visible. `encoding` is the encoding of the
    database, by PostgreSQL's name. `timed` says that created_at holds times, and no texts or numbers.

    `strange` are columns of types that are none of PostgreSQL's own. `for_statements` says that a trigger runs for
    each statement that inserts, not for each row.

    `refuses_appends` says why nothing can be appended, `disordered` why its kind alone makes an order impossible,
    `warning` what the user should know before it is read. Each is one line, or None.
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
    places: frozenset[tuple[str, str]] = frozenset()
    channel: str = "new_events"
    event_id: str | None = "event_id"
    byte_order: bool = True
    lockable: bool = True
    unique_event_id: bool = False
    timed: bool = True
    standby: bool = False
    encoding: str = "UTF8"
    strange: tuple[Strange, ...] = ()
    for_statements: bool = False
    refuses_appends: str | None = None
    disordered: str | None = None
    warning: str | None = None

    @property
    def oid(self) -> str:
        """The expression for the oid of `table`."""
        return f"{literal(self.table)}::regclass"

    @property
    def base_oid(self) -> str:
        """The expression for the oid of the table that has the rows: `table`, or what a view reads."""
        return self.oid if self.base is None else f"'{self.base}'::regclass"

    @property
    def index_on(self) -> str:
        """What the statement that makes an index for this table says after ``CREATE INDEX``."""
        # No index can be made so for all partitions at once.
        return f"{'' if self.kind == 'p' else 'CONCURRENTLY '}ON {self.base_name or self.called}"

    @property
    def is_view(self) -> bool:
        """Whether others decide, in `table`, which rows of which tables there are."""
        return self.kind in ("v", "m")

    def ours(self, name: str) -> str:
        """Return the name, as SQL writes it, of another object of schema.sql."""
        return name if self.home is None else f"{self.home}.{name}"

    def check_appends(self) -> None:
        """Raise StoreFailed if nothing can be appended."""
        if self.refuses_appends is not None:
            raise StoreFailed(self.refuses_appends)

    def columns(self, alias: str = "e") -> str:
        """Return the select list that makes one `Event` of a row, positions as in `Event`."""
        event_id = "NULL::uuid" if self.event_id is None else f"{alias}.{self.event_id}"
        return (
            f"{alias}.global_seq, {alias}.stream_id, {alias}.stream_seq, {alias}.event_type, "
            f"{self.data(alias)}, {alias}.metadata, {alias}.created_at, {event_id}"
        )

    def preview(self, alias: str = "e") -> str:
        """Return the select list that makes one `EventPreview` of a row, positions as there."""
        # Beyond a page of the table the data lie elsewhere, compressed; to fetch and unpack them for each line of a
        # list would cost up to a second a screen. pg_column_size reads their size without fetching them.
        size = f"coalesce(pg_column_size({alias}.data), 0)"
        return (
            f"{alias}.global_seq, {alias}.stream_id, {alias}.stream_seq, left({alias}.event_type, {PREVIEW + 1}), "
            f"{alias}.created_at, CASE WHEN {size} <= {_MOST_UNPACKED} "
            f"THEN left({self.data(alias)}::text, {PREVIEW + 1}) END, {size}"
        )

    def data(self, alias: str = "e") -> str:
        """Return the expression for an event's data. Where the column may be NULL, that is JSON's null."""
        return f"coalesce({alias}.data, 'null')"

    def last(self) -> str:
        """Return the expression for a text that sorts by bytes behind all that an id is made of.

        Appended to a prefix, it ends the range of the ids that have it, unless one is made to defeat it.
        """
        if self.encoding == "UTF8":
            highest = "pg_catalog.chr(1114111)"
        elif self.encoding.startswith("EUC_"):
            highest = f"pg_catalog.convert_from('\\xfefe', '{self.encoding}')"
        else:  # A character is a byte.
            highest = "pg_catalog.chr(255)"
        return f"pg_catalog.repeat({highest}, 16)"

    def version(self) -> str:
        """Return the query for the version of stream $1, -1 if it has no events."""
        return f"SELECT coalesce(pg_catalog.max(stream_seq), -1) AS version FROM {self.table} WHERE stream_id = $1"

    def head(self) -> str:
        """Return the expression for the highest global_seq handed out, 0 before the first.

        For a user who may not ask the sequence it is the highest one visible.
        """
        return (
            f"coalesce(CASE WHEN {self.head_exact()} THEN pg_sequence_last_value({self.sequence}) "
            f"ELSE (SELECT pg_catalog.max(global_seq) FROM {self.table}) END, 0)"
        )

    def head_exact(self) -> str:
        """Return the condition on which `head` is what the sequence says."""
        return f"coalesce(has_sequence_privilege({self.sequence}, 'SELECT, USAGE'), false)"

    @property
    def sequence(self) -> str:
        """The expression for the oid of the sequence that belongs to the numbers, NULL if there is none."""
        if self.base is None:
            return f"pg_get_serial_sequence({literal(self.table)}, 'global_seq')::regclass"
        return "NULL::regclass" if self.base_sequence is None else f"'{self.base_sequence}'::regclass"


def literal(text: str) -> str:
    """Return a text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"
