"""The subscriptions of Patchlevel event sourcing, which both of its stores have."""

from esx.layouts.foreign.kind import CheckpointColumns, kept
from esx.layouts.foreign.tables import StoreTable, StoreTables


def subscriptions(_tables: StoreTables, table: StoreTable) -> CheckpointColumns:
    """Return how the table of subscriptions is read. Its times are those of the application, so they are left out."""
    return CheckpointColumns("c.id", "c.position", state="c.status", error=kept(table, "error_message"))
