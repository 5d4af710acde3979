"""The offsets of Akka Projection and Pekko Projection: a number of the journal's order as text, or times."""

from esx.layouts.foreign.kind import CheckpointColumns
from esx.layouts.foreign.tables import StoreTable, StoreTables

_MOST = 100_000
_TIME = "to_timestamp(c.last_updated::float8 / 1000) AT TIME ZONE 'UTC'"


def times(_tables: StoreTables, table: StoreTable) -> CheckpointColumns:
    """Return how the table of times is read, in which a projection has a row for each of the streams it read last."""
    return CheckpointColumns(
        "c.name",
        at="c.newest",
        needed=("projection_name", "projection_key", "timestamp_offset"),
        rows="SELECT concat_ws(' ', projection_name, nullif(projection_key, '')) AS name, "
        f"max(timestamp_offset) AT TIME ZONE 'UTC' AS newest FROM (SELECT * FROM {table.quoted} LIMIT {_MOST}) t "
        "GROUP BY projection_name, projection_key",
    )


def offsets(_tables: StoreTables, table: StoreTable) -> CheckpointColumns:
    """Return how the table of offsets is read; it notes the time in milliseconds since 1970."""
    return CheckpointColumns(
        "concat_ws(' ', c.projection_name, nullif(c.projection_key, ''))",
        "c.current_offset",
        updated_at=_TIME if table.columns.get("last_updated") == "bigint" else "NULL",
    )
