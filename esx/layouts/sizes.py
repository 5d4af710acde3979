"""Which tables are looked at to tell how large a store is, and how many events it has."""

from esx.layouts.layout import Layout


def sized(layout: Layout) -> str:
    """Return the query for the oids of all tables that events are read from, whose sizes count."""
    if layout.foreign is None or layout.parts or not layout.beside:
        return layout.tables
    return f"{layout.tables} UNION SELECT unnest('{{{','.join(map(str, layout.beside))}}}'::oid[])"


def one_each(layout: Layout) -> str:
    """Return the query for the oids of the tables that have a row for each event."""
    return layout.tables if layout.counted is None else f"SELECT '{layout.counted}'::oid"
