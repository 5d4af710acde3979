"""Whether the indexes of a store serve the statements that esx runs: their plans say so, and nothing is run."""

import json
import re
from collections.abc import Iterator, Mapping
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
# What an index can do is asked: at a size of a few rows PostgreSQL would not use one. To read a page or a row costs so
# much here that each row counts, as among very many.
_INDEXES_ONLY = "; ".join(
    (
        *(
            f"SET LOCAL enable_{way} = off"
            for way in ("seqscan", "hashjoin", "mergejoin", "bitmapscan", "material", "memoize")
        ),
        *(f"SET LOCAL {cost} = 1000" for cost in ("random_page_cost", "cpu_tuple_cost", "cpu_index_tuple_cost")),
        # Without the values of parameters: with them a plan could be so short that it shows nothing.
        "SET LOCAL plan_cache_mode = force_generic_plan",
    )
)
# Without sorting one index has to choose and to order. Few rows may be sorted, which only the other plan shows.
_WAYS = (
    f"{_INDEXES_ONLY}; SET LOCAL enable_sort = off; SET LOCAL enable_incremental_sort = off",
    f"{_INDEXES_ONLY}; SET LOCAL enable_sort = on",
)
_LEADING = """
    SELECT c.relname, array_agg(a.attname) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indisvalid AND i.indpred IS NULL AND c.relname = ANY ($1::text[]::name[]) GROUP BY c.relname
"""
_EQUAL_TO_A_COLUMN = re.compile(r'= \(*"?\w+"?\.')
_PLAIN = re.compile(r'[\w."]+( DESC)?( NULLS (FIRST|LAST))?')


class Shape(NamedTuple):
    """A statement that esx runs: what it is for, and the columns of the indexes that serve it."""

    about: str
    query: str
    indexes: tuple[tuple[str, ...], ...]


class Slow(NamedTuple):
    """That a statement reads more of a table than it returns, in one line.

    `within` says that this is no more than one stream, which is sorted by what is no column: an index finds the stream.
    """

    table: str
    problem: str
    within: bool = False


class _Above(NamedTuple):
    """What is done with the rows of a node: those that are read end when there are enough, or all are sorted before.

    `ordered` says that they are sorted by columns as they are. `joined` is the condition of a join with other rows.
    """

    limited: bool = False
    sorting: bool = False
    ordered: bool = True
    joined: str = ""


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
    found: list[Slow] = []
    for way in _WAYS:
        problem = await _planned(connection, layout, shape, way)
        if problem is None:
            return None
        found.append(problem)
    return next((each for each in found if each.within), found[0])


async def _planned(connection: Session, layout: Layout, shape: Shape, way: str) -> Slow | None:
    parameters = max(map(int, re.findall(r"\$(\d+)", shape.query)), default=0)
    given = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
    async with connection.transaction(readonly=True):
        await connection.execute(f"{way}; PREPARE esx_shape AS {shape.query}")
        text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE esx_shape{given}")
        await connection.execute("DEALLOCATE esx_shape")
    # A column in a condition of the layout itself is no condition of the statement.
    of_layout = "" if layout.foreign is None else layout.foreign.reading.where
    columns = [column for index in shape.indexes for column in index]
    keys = [column for column in columns if column and not re.search(rf"\b{re.escape(column)}\b", of_layout)]
    plan = json.loads(text)[0]["Plan"]
    tables = [*_tables(plan)]
    return _Analysis(keys, dict(await connection.fetch(_LEADING, tables))).reads_more(plan, _Above())


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


def _tables(node: dict[str, Any]) -> Iterator[str]:
    if "Relation Name" in node:
        yield node["Relation Name"]
    for child in node.get("Plans", ()):
        yield from _tables(child)


class _Analysis(NamedTuple):
    """Finds what a plan reads beyond what is wanted.

    `keys` are the columns that choose, `leading` the first columns of the indexes of each table, by its name.
    """

    keys: list[str]
    leading: Mapping[str, list[str]]

    def reads_more(self, node: dict[str, Any], above: _Above) -> Slow | None:
        """Return what is read beyond what is wanted, below a node of a plan."""
        kind = node["Node Type"]
        if (problem := self._scan_reads_more(node, above)) is not None:
            return problem
        if kind == "Limit":
            above = _Above(limited=True)
        elif kind in ("Sort", "Incremental Sort"):
            above = _Above(sorting=True, ordered=all(map(_PLAIN.fullmatch, node["Sort Key"])))
        elif kind in ("Aggregate", "WindowAgg", "Hash", "Unique"):
            above = above._replace(limited=False)
        within = None
        for child in node.get("Plans", ()):
            apart = child["Parent Relationship"] in ("InitPlan", "SubPlan")
            joined = node.get("Join Filter", "") if child["Parent Relationship"] == "Inner" else ""
            problem = self.reads_more(child, _Above() if apart else above._replace(joined=joined))
            if problem is not None and not problem.within:
                return problem
            within = within or problem
        return within

    def _scan_reads_more(self, node: dict[str, Any], above: _Above) -> Slow | None:
        kind, table = node["Node Type"], node.get("Relation Name")
        if table is None:
            return None
        if kind not in ("Index Scan", "Index Only Scan"):
            return Slow(table, f"reads all of {table}")
        found, chosen = node.get("Index Cond", ""), node.get("Filter", "")
        by = f"{table} by its index {node['Index Name']}"
        known = [key for key in self.keys if _names(found, key)]
        if not known and _EQUAL_TO_A_COLUMN.search(found):
            return None  # the rows of one event, which are few
        left = [key for key in self.keys if _names(chosen, key) and key not in known]
        if left:
            return Slow(table, f"reads {by}, which does not have {' and '.join(left)}")
        if " = " not in found and _EQUAL_TO_A_COLUMN.search(chosen):
            return Slow(table, f"looks for rows along all of {by}")
        if not found and node["Plan Rows"] <= 1 and self._joins_by_an_index(table, node["Alias"], above.joined):
            return None  # of one row it is the same whether an index finds it
        if not found and (not above.limited or above.sorting):
            return Slow(table, f"reads all of {by}")
        if above.sorting:
            return Slow(table, f"sorts what it reads of {by}", within=not above.ordered and " = " in found)
        return None

    def _joins_by_an_index(self, table: str, alias: str, condition: str) -> bool:
        return any(_names(condition, f"{alias}.{column}") for column in self.leading.get(table, ()))


def _names(condition: str, column: str) -> bool:
    return re.search(rf'(?<![\w"]){re.escape(column)}(?!\w)|"{re.escape(column)}"', condition) is not None
