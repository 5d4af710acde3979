"""The family of a table: its partitions and children at all levels, and its parents.

The functions return common table expressions for a query that begins with ``WITH RECURSIVE``. Each query evaluates them
again, so a new partition belongs to the family at once.
"""


def below(start: str) -> str:
    """Return `below(oid)`: the tables that the query `start` finds, and all tables below them."""
    return f"below (oid) AS ({start} UNION SELECT i.inhrelid FROM below JOIN pg_inherits i ON i.inhparent = below.oid)"


def above(start: str) -> str:
    """Return `above(oid)`: the tables that the query `start` finds, and all tables above them."""
    return f"above (oid) AS ({start} UNION SELECT i.inhparent FROM above JOIN pg_inherits i ON i.inhrelid = above.oid)"


def behind(view: str) -> str:
    """Return `behind(oid)`: the view with that oid, and all that it reads now, at all levels."""
    return (
        f"behind (oid) AS (SELECT {view}::oid UNION SELECT d.refobjid FROM behind "
        "JOIN pg_rewrite r ON r.ev_class = behind.oid JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass "
        "AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass)"
    )
