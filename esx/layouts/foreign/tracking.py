"""The tracking tables of the Python package eventsourcing: how far an application has read others.

A row belongs to the application that was read, and the table is called after the one that reads.
"""

from esx.layouts.foreign.kind import CheckpointColumns
from esx.layouts.foreign.tables import StoreTable, StoreTables
from esx.postgres.literals import literal

_VERSION = "__migration__"
"""The row that has the version of the tool's tables."""


def tracking(tables: StoreTables, table: StoreTable) -> CheckpointColumns:
    """Return how a tracking table is read; only rows about the application of this store have a lag."""
    reader = literal(f"{table.name.removesuffix('_tracking')}: ")
    events = literal(tables.events.name)
    of_this = f"strpos({events}, lower(c.application_name) || '_events') = 1"
    return CheckpointColumns(
        f"{reader} || c.application_name",
        f"CASE WHEN {of_this} THEN c.notification_id END",
        at=f"CASE WHEN NOT {of_this} THEN c.notification_id END",
        state=f"CASE WHEN c.application_name = '{_VERSION}' THEN 'version of the tables, no consumer' "
        f"WHEN NOT {of_this} THEN 'of another application' END",
        apart=f"NOT {of_this}",
    )
