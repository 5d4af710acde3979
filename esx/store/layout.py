"""What a table of events is called and how its columns map onto `Event`.

Everything that the read path knows of names belongs here, so that the tables of other tools can be read later
by adding a layout instead of touching queries.
"""

from __future__ import annotations

from dataclasses import dataclass

PREVIEW = 400
"""Characters of an event's data that a preview holds; one more tells that there are more."""
_MOST_UNPACKED = 8192


@dataclass(frozen=True, slots=True)
class Layout:
    """Names and capabilities of one events table, all of them SQL identifiers that we chose ourselves.

    `byte_order` says that stream ids sort by bytes (COLLATE "C"), so that a prefix is a range of the unique index;
    without it a prefix is still found, but by a scan. `unique_constraint` is the unique index on (stream_id,
    stream_seq). `lockable` says that this user can lock streams by ``esx_lock_stream``, `unique_event_id` that an
    index keeps event ids unique. `standby` says that the server is a hot standby: it can only be read, and the
    primary's locks are not visible. `encoding` is the encoding of the database, by PostgreSQL's name.
    """

    table: str = "events"
    unique_constraint: str = "events_stream_id_stream_seq_key"
    channel: str = "new_events"
    event_id: str | None = "event_id"
    byte_order: bool = True
    lockable: bool = True
    unique_event_id: bool = False
    standby: bool = False
    encoding: str = "UTF8"

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
            highest = "chr(1114111)"
        elif self.encoding.startswith("EUC_"):
            highest = f"convert_from('\\xfefe', '{self.encoding}')"
        else:  # A character is a byte.
            highest = "chr(255)"
        return f"repeat({highest}, 16)"

    def version(self) -> str:
        """Return the query for the version of stream $1, -1 if it has no events."""
        return f"SELECT coalesce(max(stream_seq), -1) AS version FROM {self.table} WHERE stream_id = $1"

    def head(self) -> str:
        """Return the expression for the highest global_seq handed out, 0 before the first.

        For a user who may not ask the sequence it is the highest one visible.
        """
        return (
            f"coalesce(CASE WHEN {self.head_exact()} THEN pg_sequence_last_value({self._sequence}) "
            f"ELSE (SELECT max(global_seq) FROM {self.table}) END, 0)"
        )

    def head_exact(self) -> str:
        """Return the condition on which `head` is what the sequence says."""
        return f"coalesce(has_sequence_privilege({self._sequence}, 'SELECT, USAGE'), false)"

    @property
    def _sequence(self) -> str:
        return f"pg_get_serial_sequence('{self.table}', 'global_seq')::regclass"
