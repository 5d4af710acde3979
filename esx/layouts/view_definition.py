"""Finds the one table whose rows a view shows, if that is certain.

A feed of a view is right only if the view always shows a row of one table, or never: then the feed has to wait only for
writers of that table. PostgreSQL knows which views are that simple, as it allows changes to their rows. A condition of
the view may depend on the row only: with a subquery, the time or the user in it, a row could appear later. The parse
tree of the view's rule shows that.
"""

import re
from typing import NamedTuple

import asyncpg

_DELETE = 16
"""The bit of pg_relation_is_updatable for DELETE: a row of the view is then a row of one table."""
_LEVELS = 20
_NODE = re.compile(r"\{([A-Z_]+)")
_FUNCTION = re.compile(r":(?:funcid|opfuncid) (\d+)")
_RESULT = re.compile(r":resulttype (\d+)")
# The nodes that the query tree may have, by their names in all versions of PostgreSQL: columns, constants, operators
# and functions, which are looked up, and combinations of these.
_PLAIN = re.compile(
    "QUERY|RTE|RANGETBLENTRY|RTEPERMISSIONINFO|ALIAS|FROMEXPR|RANGETBLREF|TARGETENTRY|SORTGROUPCLAUSE|VAR|CONST|OPEXPR"
    "|FUNCEXPR|BOOLEXPR|NULLTEST|BOOLEANTEST|RELABELTYPE|COERCEVIAIO|SCALARARRAYOPEXPR|ARRAY|ARRAYEXPR|ARRAYCOERCEEXPR"
    "|CASE|CASEEXPR|WHEN|CASEWHEN|CASETESTEXPR|COALESCE|COALESCEEXPR|DISTINCTEXPR|NULLIFEXPR|COLLATE|COLLATEEXPR"
    "|SUBSCRIPTINGREF"
)
_RULE = """
    SELECT c.relkind::text AS kind, r.ev_action::text AS action, pg_relation_is_updatable(c.oid, false) AS updatable,
           (SELECT count(*) FROM pg_rewrite o WHERE o.ev_class = c.oid) AS rules,
           ARRAY(SELECT DISTINCT d.refobjid FROM pg_depend d
                 WHERE d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
                   AND d.refobjid <> c.oid) AS relations,
           (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = $2) AS number
    FROM pg_class c LEFT JOIN pg_rewrite r ON r.ev_class = c.oid AND r.rulename = '_RETURN' WHERE c.oid = $1
"""
# The functions, and the input functions of types by which values are converted.
_UNSTEADY = """
    SELECT p.oid::regproc::text FROM pg_proc p
    WHERE (p.oid = ANY($1::oid[]) OR p.oid IN (SELECT t.typinput::oid FROM pg_type t WHERE t.oid = ANY($2::oid[])))
      AND (p.provolatile <> 'i' OR p.pronamespace <> 'pg_catalog'::regnamespace)
    ORDER BY 1 LIMIT 1
"""
_BASE = """
    SELECT c.relkind::text AS kind, c.oid::regclass::text AS name, a.attname::text AS number,
           (SELECT d.objid FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
            WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
              AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i') LIMIT 1) AS sequence
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = $2 WHERE c.oid = $1
"""


class ViewedTable(NamedTuple):
    """The table that a view reads; `number` is its column that the view shows as global_seq."""

    oid: int
    name: str
    number: str
    sequence: int | None


async def table_behind(connection: asyncpg.Connection, view: int) -> ViewedTable | str:
    """Return the table that a view reads, or why that is not certain, as the end of a sentence about the view."""
    relation, number = view, "global_seq"
    for _ in range(_LEVELS):
        rule = await connection.fetchrow(_RULE, relation, number)
        if rule is None or rule["action"] is None:
            return "it is gone"
        if rule["rules"] > 1:
            return "it has rules of its own"
        nodes = set(_NODE.findall(rule["action"]))
        if "SUBLINK" in nodes:
            return "it has a subquery"
        if not (rule["updatable"] & _DELETE and len(rule["relations"]) == 1):
            return "it does not show the rows of one table as they are"
        others = sorted(node for node in nodes if not _PLAIN.fullmatch(node))
        if others:
            return f"it uses {others[0].lower()}"
        converted = _RESULT.findall(rule["action"]) if "COERCEVIAIO" in nodes else []
        unsteady = await connection.fetchval(
            _UNSTEADY, [*map(int, _FUNCTION.findall(rule["action"]))], [*map(int, converted)]
        )
        if unsteady is not None:
            return f"it calls {unsteady}, which need not always say the same"
        column = re.search(
            rf"\{{TARGETENTRY :expr \{{VAR :varno \d+ :varattno (\d+) [^{{}}]*\}} :resno {rule['number']} ",
            rule["action"],
        )
        if column is None:
            return "its global_seq is not a column of the table"
        found = await connection.fetchrow(_BASE, rule["relations"][0], int(column[1]))
        if found is None:
            return "its global_seq is not a column of the table"
        relation, number = rule["relations"][0], found["number"]
        if found["kind"] in ("r", "p"):
            return ViewedTable(relation, found["name"], number, found["sequence"])
        if found["kind"] != "v":
            return f"it reads {found['name']}, which is no table of this database"
    return "it reads too many views one above the other"
