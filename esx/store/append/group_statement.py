"""Appends to several streams by one statement, each with an outcome of its own.

Each of them is a unit: events that are stored all or not at all, with the versions of their stream that they accept. Of
the units of one stream the first that the stream's version suits is stored. A writer that was faster leaves a unit out
(ON CONFLICT DO NOTHING), and the others are stored all the same. An event that is not stored as it was sent, such as by
a trigger that changes its stream, fails the statement: nobody could tell whose it is.

The streams come sorted, and the rows are inserted in that order, so that two such statements cannot deadlock.
"""

from collections.abc import Sequence
from typing import NamedTuple

from esx.layouts.unique_index import is_still_arbiter
from esx.postgres.session import Session
from esx.store.append.refusals import EventRow
from esx.store.append.versions import HIGHEST_BEFORE
from esx.store.known_table import KnownTable

LOCK_TIMEOUT = 50
"""How many milliseconds a group waits for a lock: somebody's open append to one stream must not stop all others."""

# $1 streams, $2 and $3 the lowest and the highest version that is acceptable to each; without these, any version is.
_UNITS = """
    SELECT unit.*, stream.version, stream.below,
           stream.version BETWEEN coalesce(unit.lowest, -1) AND coalesce(unit.highest, {highest})
           AND NOT stream.below AND {holds} AS fits
    FROM (SELECT {settings}) AS set_first
    CROSS JOIN ROWS FROM (
        pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::bigint[]), pg_catalog.unnest($3::bigint[]){more}
    ) WITH ORDINALITY AS unit (stream_id, lowest, highest, {names}, ord)
    CROSS JOIN LATERAL (
        SELECT coalesce(pg_catalog.max(e.stream_seq), -1) AS version,
               coalesce(pg_catalog.max(e.stream_seq) < 0, false) AS below
        FROM {table} e WHERE e.stream_id = unit.stream_id
    ) AS stream
"""
_INSERT = """
    INSERT INTO {table} (stream_id, stream_seq, event_type, data, metadata, {event_id})
"""
_ID_AT = """
    CASE WHEN unit.lowest = unit.highest AND {unless} THEN
        (SELECT e.{event_id} FROM {table} e WHERE e.stream_id = unit.stream_id AND e.stream_seq = unit.lowest + 1)
    END
"""
# One event each, each to another stream: $4 types, $5 data, $6 metadata, $7 ids.
_SINGLES = (
    "WITH unit AS MATERIALIZED ("
    + _UNITS
    + "), stored AS ("
    + _INSERT
    + """
    SELECT unit.stream_id, unit.version + 1, unit.event_type, unit.data, unit.metadata, unit.event_id
    FROM unit WHERE unit.fits ORDER BY unit.ord
    ON CONFLICT (stream_id, stream_seq) DO NOTHING
    RETURNING stream_id::text COLLATE "C" AS stream_id, {event_id}::uuid AS event_id, global_seq
)
SELECT unit.ord, unit.version, unit.below,
       CASE WHEN unit.ord IS NULL THEN 1 / (stored.global_seq - stored.global_seq) ELSE stored.global_seq END, """
    + _ID_AT.replace("{unless}", "NOT unit.fits")
    + "FROM unit FULL JOIN stored ON stored.stream_id = unit.stream_id AND stored.event_id = unit.event_id"
)
_SINGLE_COLUMNS = """
    , pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::jsonb[]), pg_catalog.unnest($6::jsonb[]),
    pg_catalog.unnest($7::uuid[])
"""
_UNIT_COLUMNS = ", pg_catalog.unnest($4::bigint[]), pg_catalog.unnest($11::uuid[])"
# $4 the numbers of events, $11 the ids of the first ones; and of each event $5 its unit's place in $1, $6 its own in
# the unit, $7 to $10 as above. A unit of which a faster writer leaves a part fails the statement.
_SEVERAL = (
    "WITH unit AS MATERIALIZED ("
    + _UNITS
    + """), first AS (
    SELECT DISTINCT ON (unit.stream_id) unit.ord, unit.stream_id, unit.version, unit.size, unit.head
    FROM unit WHERE unit.fits ORDER BY unit.stream_id, unit.ord
), stored AS ("""
    + _INSERT
    + """
    SELECT first.stream_id, first.version + new.place, new.event_type, new.data, new.metadata, new.event_id
    FROM first JOIN ROWS FROM (
        pg_catalog.unnest($5::bigint[]), pg_catalog.unnest($6::bigint[]), pg_catalog.unnest($7::text[]),
        pg_catalog.unnest($8::jsonb[]), pg_catalog.unnest($9::jsonb[]), pg_catalog.unnest($10::uuid[])
    ) AS new (ord, place, event_type, data, metadata, event_id) ON new.ord = first.ord
    ORDER BY new.ord, new.place
    ON CONFLICT (stream_id, stream_seq) DO NOTHING
    RETURNING stream_id::text COLLATE "C" AS stream_id, stream_seq, {event_id}::uuid AS event_id, global_seq
), counted AS (
    SELECT stored.stream_id, (pg_catalog.array_agg(stored.event_id ORDER BY stored.stream_seq))[1] AS head,
           pg_catalog.array_agg(stored.global_seq ORDER BY stored.stream_seq) AS numbers
    FROM stored GROUP BY stored.stream_id
)
SELECT unit.ord, unit.version, unit.below,
       CASE WHEN unit.ord IS NULL OR pg_catalog.cardinality(counted.numbers) < first.size
            THEN ARRAY[1 / (counted.numbers[1] - counted.numbers[1])] ELSE counted.numbers END, """
    + _ID_AT.replace("{unless}", "first.ord IS NULL")
    + """
FROM unit LEFT JOIN first ON first.ord = unit.ord
FULL JOIN counted ON counted.stream_id = first.stream_id AND counted.head = first.head
"""
)


class Unit(NamedTuple):
    """Events for one stream, stored all or not at all, if its version is from `lowest` to `highest`."""

    stream_id: str
    lowest: int
    highest: int
    rows: list[EventRow]


class UnitOutcome(NamedTuple):
    """What became of a unit.

    `version` is that of the stream before the statement, -1 without events; `below` says that it has events, all with
    numbers below 0. `numbers` are the global_seq of its events if it was stored. `id_there` is the event_id at the
    place of its first event, if it was not and an exact version was expected.
    """

    version: int
    below: bool
    numbers: Sequence[int] | None
    id_there: object


class GroupStatement:
    """The statements for one events table, shared by all connections."""

    def __init__(self, table: KnownTable) -> None:
        layout, arbiter = table.layout, table.arbiter
        self.possible = (
            arbiter is not None
            and arbiter.infers
            and layout.event_id is not None
            and not layout.for_statements  # such a trigger would run before the settings are made
            and not layout.custom_columns  # two ids may mean one stream there
        )
        """Whether ON CONFLICT can name the index that decides, and the statement does what single ones do."""
        if not self.possible:
            return
        assert arbiter is not None
        settings = [f"pg_catalog.set_config('lock_timeout', '{LOCK_TIMEOUT}', true)", *table.as_user]
        names = {
            "table": layout.table,
            "highest": HIGHEST_BEFORE,
            "event_id": layout.event_id,
            "settings": ", ".join(settings),
            "holds": is_still_arbiter(layout, arbiter),
        }
        self._singles = _SINGLES.format(more=_SINGLE_COLUMNS, names="event_type, data, metadata, event_id", **names)
        self._several = _SEVERAL.format(more=_UNIT_COLUMNS, names="size, head", **names)

    async def send(self, connection: Session, units: Sequence[Unit]) -> list[UnitOutcome]:
        """Append `units`, which are sorted by stream, and return the outcome of each.

        Raises the driver's errors; then nothing is stored, unless the connection was lost. DivisionByZeroError means
        that another writer was faster in the middle of a unit's events.
        """
        streams = [unit.stream_id for unit in units]
        # The driver takes a microsecond for each value of an array.
        any_version = all(unit.highest == HIGHEST_BEFORE and unit.lowest == -1 for unit in units)
        heads = (
            (streams, None, None)
            if any_version
            else (streams, [unit.lowest for unit in units], [unit.highest for unit in units])
        )
        singles = all(len(unit.rows) == 1 for unit in units) and len(set(streams)) == len(streams)
        if singles:
            columns = zip(*(unit.rows[0] for unit in units), strict=True)
            found = await connection.repeat(self._singles, *heads, *map(_array, columns))
        else:
            rows = [(ord_, place, *row) for ord_, unit in enumerate(units, 1) for place, row in enumerate(unit.rows, 1)]
            sizes, firsts = [len(unit.rows) for unit in units], [unit.rows[0][3] for unit in units]
            columns = zip(*rows, strict=True)
            found = await connection.repeat(self._several, *heads, sizes, *map(_array, columns), firsts)
        outcomes: list[UnitOutcome] = [None] * len(units)  # type: ignore[list-item]
        for ord_, version, below, numbers, id_there in found:
            stored = [numbers] if singles and numbers is not None else numbers
            outcomes[ord_ - 1] = UnitOutcome(version, below, stored, id_there)
        return outcomes


def _array(values: Sequence[object]) -> list[object] | None:
    """Return a column as an argument; unnest pads a column without any value with NULL."""
    return None if values.count(None) == len(values) else list(values)
