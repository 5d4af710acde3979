"""Ids of streams that are UUIDs: the table compares their values, and shows them in small letters."""

from uuid import UUID

from esx.filters import StreamFilter
from esx.layouts.layout import Layout
from esx.layouts.stream_keys import Joined


def are_uuids(layout: Layout) -> bool:
    """Return whether the ids of the store's streams are UUIDs."""
    return isinstance(layout.name_keys, Joined) and all(layout.name_keys.uuids)


def as_stored(layout: Layout, text: str) -> str:
    """Return a part of an id as the store writes it."""
    return text.lower() if are_uuids(layout) else text


def filter_as_stored(layout: Layout, where: StreamFilter) -> StreamFilter:
    """Return a filter of streams with the texts of ids as the store writes them."""
    if not are_uuids(layout):
        return where
    match, contains = (None if text is None else text.lower() for text in (where.match, where.contains))
    return StreamFilter(where.prefix.lower(), match, contains, where.category)


def lowest(layout: Layout) -> str:
    """Return an id from which on all ids are."""
    return str(UUID(int=0)) if are_uuids(layout) else ""
