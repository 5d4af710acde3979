"""Whether the indexes of a store serve the statements that esx runs: their plans say so, and nothing is run."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from esx.filters import Filter
from esx.layouts.foreign.kind import stored
from esx.layouts.layout import Layout
from esx.postgres.session import Session
from esx.store.feed.gap_barrier import read_sql
from esx.store.read.event_list import EventList
from esx.store.read.locate import bisect_sql
from esx.store.read.pages import by_name_sql, event_sql, page_sql, recent_sql, summary_sql

_SCAN = 1000
_STREAM = EventList("")
# What an index can do is asked: at a size of a few rows PostgreSQL would not use one.
_INDEXES_ONLY = "; ".join(
    f"SET LOCAL enable_{way} = off"
    for way in ("seqscan", "sort", "incremental_sort", "hashjoin", "mergejoin", "bitmapscan", "material")
)
# Without the values of parameters: with them a plan could be so short that it shows nothing.
_INDEXES_ONLY += "; SET LOCAL plan_cache_mode = force_generic_plan"


class Shape(NamedTuple):
    """A statement that esx runs: what it is for, and the columns of the indexes that serve it."""

    about: str
    query: str
    indexes: tuple[tuple[str, ...], ...]


class Slow(NamedTuple):
    """That a statement reads more of a table than it returns, in one line."""

    table: str
    problem: str


def shapes(layout: Layout) -> Iterator[Shape]:
    """Yield the statements for what this store can do."""
    number = ((layout.stored("global_seq"),),)
    place = ((*stream_columns(layout), version_column(layout)),)
    if layout.numbered:
        yield Shape("a page of all events", page_sql(layout, EventList(), layout.columns(), backwards=False), number)
        yield Shape("one event", event_sql(layout), number)
        if layout.disordered is None:
            yield Shape("a step of the feed", read_sql(layout, Filter())[0], number)
        yield Shape("streams by recent activity", recent_sql(layout, _SCAN), (*number, *place))
        if layout.timed:
            yield Shape("the place of a time", bisect_sql(layout, EventList()), number)
    yield Shape("a page of a stream", page_sql(layout, _STREAM, layout.columns(), backwards=False), place)
    yield Shape("a stream at a glance", summary_sql(layout), place)
    by_name = by_name_sql(layout, backwards=False, resumed=True)
    yield Shape("streams by name", by_name, place)
    if layout.prefix_range() != "true":
        yield Shape("streams by prefix", by_name, place)


async def slow(connection: Session, layout: Layout, shape: Shape) -> Slow | None:
    """Return why a statement reads more than it returns, None if indexes serve it."""
    parameters = max(map(int, re.findall(r"\$(\d+)", shape.query)), default=0)
    given = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
    async with connection.transaction(readonly=True):
        await connection.execute(f"{_INDEXES_ONLY}; PREPARE esx_shape AS {shape.query}")
        text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE esx_shape{given}")
        await connection.execute("DEALLOCATE esx_shape")
    # A column in a condition of the layout itself is no condition of the statement.
    of_layout = "" if layout.foreign is None else layout.foreign.reading.where
    columns = [column for index in shape.indexes for column in index]
    keys = [column for column in columns if column and not re.search(rf"\b{re.escape(column)}\b", of_layout)]
    return _reads_more(json.loads(text)[0]["Plan"], keys, limited=False, sorting=False)


def stream_columns(layout: Layout) -> tuple[str, ...]:
    """Return the columns of the store by which a stream is found; "" for what is made of others."""
    if layout.keys is None:
        return (layout.stored("stream_id"),)
    return tuple(map(stored, layout.keys.columns))


def version_column(layout: Layout) -> str:
    """Return the column of the store that numbers the events of a stream."""
    if layout.foreign is None or layout.foreign.reading.in_stream is None:
        return layout.stored("stream_seq")
    return layout.foreign.reading.in_stream.columns.stored("stream_seq")


def _reads_more(node: dict[str, Any], keys: list[str], *, limited: bool, sorting: bool) -> Slow | None:
    """Return what is read beyond what is wanted, below a node of a plan.

    `limited` says that the rows end when there are enough, `sorting` that all of them are sorted before.
    """
    kind = node["Node Type"]
    if (problem := _scan_reads_more(node, keys, limited=limited, sorting=sorting)) is not None:
        return problem
    if kind == "Limit":
        limited, sorting = True, False
    elif kind in ("Sort", "Incremental Sort"):
        limited, sorting = False, True
    elif kind in ("Aggregate", "WindowAgg", "Hash", "Unique"):
        limited = False
    for child in node.get("Plans", ()):
        apart = child["Parent Relationship"] in ("InitPlan", "SubPlan")
        problem = _reads_more(child, keys, limited=limited and not apart, sorting=sorting and not apart)
        if problem is not None:
            return problem
    return None


def _scan_reads_more(node: dict[str, Any], keys: list[str], *, limited: bool, sorting: bool) -> Slow | None:
    kind, table = node["Node Type"], node.get("Relation Name")
    if table is None:
        return None
    if kind not in ("Index Scan", "Index Only Scan"):
        return Slow(table, f"reads all of {table}")
    found, chosen = node.get("Index Cond", ""), node.get("Filter", "")
    by = f"{table} by its index {node['Index Name']}"
    left = [key for key in keys if _names(chosen, key) and not _names(found, key)]
    if left:
        return Slow(table, f"reads {by}, which does not have {' and '.join(left)}")
    if not found and (not limited or sorting):
        return Slow(table, f"reads all of {by}")
    if sorting:
        return Slow(table, f"sorts what it reads of {by}")
    return None


def _names(condition: str, column: str) -> bool:
    return re.search(rf'(?<![\w"]){re.escape(column)}(?!\w)|"{re.escape(column)}"', condition) is not None
