"""Whose code runs when a store is read.

A plain SELECT evaluates what the owner of a table has put into it: the expressions of its indexes while it is planned,
CHECKs and partition keys too, policies and the columns of views while it runs. All of that runs with the rights of
whoever reads, and a READ ONLY transaction stops neither COPY TO PROGRAM nor a setting of the session. So before
anything is read the catalogs are asked, and nothing else, whose functions there are. Those of the user himself and of
superusers are no danger: a superuser can do everything anyway. An owner who could become the user gains nothing either.

What the owner puts in later is looked for again every few seconds, but not prevented: nothing locks it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from esx.store.errors import OwnerNotTrusted
from esx.store.family import above, below
from esx.text import visible

if TYPE_CHECKING:
    import asyncpg

    from esx.store.layout import Layout

_OURS = (
    "consumers",
    "projections",
    "parked_events",
    "feed_fence",
    "erased_events",
    "stream_locks",
    "esx_schema",
)
_NAME_LIMIT = 100

_RELATIONS = """
    WITH RECURSIVE {above}, {below}, relations (oid) AS (
        SELECT oid FROM above UNION SELECT oid FROM below
        UNION SELECT to_regclass(name)::oid FROM unnest($1::text[]) name
        UNION
        SELECT more.oid FROM relations CROSS JOIN LATERAL (
            SELECT d.refobjid FROM pg_rewrite w
            JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                 AND d.refclassid = 'pg_class'::regclass
            WHERE w.ev_class = relations.oid
            UNION ALL
            SELECT d.refobjid FROM pg_policy p
            JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
                 AND d.refclassid = 'pg_class'::regclass
            WHERE p.polrelid = relations.oid
            UNION ALL SELECT h.inhrelid FROM pg_inherits h WHERE h.inhparent = relations.oid) more (oid)
    )
    SELECT array_agg(oid) FROM relations WHERE oid IS NOT NULL
"""
# What is evaluated, as (classid, objid, what it is, the table). Of columns, the types; of rules, those of views too.
_PARTS = """
    SELECT 'pg_class'::regclass::oid AS classid, r AS objid, 'the definition' AS kind, NULL::text AS name, r AS rel
    FROM unnest($1::oid[]) r
    UNION ALL
    SELECT 'pg_class'::regclass, i.indexrelid, 'index', x.relname::text, i.indrelid
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = ANY ($1::oid[])
    UNION ALL
    SELECT 'pg_constraint'::regclass, k.oid, 'constraint', k.conname::text, k.conrelid
    FROM pg_constraint k WHERE k.conrelid = ANY ($1::oid[]) AND k.contype = 'c'
    UNION ALL
    SELECT 'pg_policy'::regclass, p.oid, 'policy', p.polname::text, p.polrelid
    FROM pg_policy p WHERE p.polrelid = ANY ($1::oid[])
    UNION ALL
    SELECT 'pg_rewrite'::regclass, w.oid, 'rule', w.rulename::text, w.ev_class
    FROM pg_rewrite w WHERE w.ev_class = ANY ($1::oid[])
    UNION ALL
    SELECT 'pg_statistic_ext'::regclass, s.oid, 'statistics', s.stxname::text, s.stxrelid
    FROM pg_statistic_ext s WHERE s.stxrelid = ANY ($1::oid[])
    UNION ALL
    SELECT 'pg_attrdef'::regclass, d.oid, 'generated column', a.attname::text, d.adrelid
    FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    WHERE d.adrelid = ANY ($1::oid[]) AND a.attgenerated <> ''
"""
# Functions of PostgreSQL's own that run a text as a query, read into a type by its number, or do what only some may:
# the owner's code too, once they stand in what runs with the rights of others. A query or a policy can call any.
_REACHES_FURTHER = """
    p.provolatile = 'v' AND p.proname NOT IN ('clock_timestamp', 'timeofday', 'random', 'random_normal',
        'gen_random_uuid', 'uuidv4', 'uuidv7', 'currval', 'lastval')
    OR p.proname ~ '_to_xml' OR p.proname ~ '^(domain|record|array|anyarray|range|multirange)_(in|recv)$'
"""
_CALLED = """
    trees AS (
        SELECT w.ev_action::text AS tree, 'rule' AS kind, w.rulename::text AS name, w.ev_class AS rel
        FROM pg_rewrite w WHERE w.ev_class = ANY ($1::oid[])
        UNION ALL
        SELECT p.polqual::text, 'policy', p.polname::text, p.polrelid
        FROM pg_policy p WHERE p.polrelid = ANY ($1::oid[])
    ), called AS (
        SELECT DISTINCT m.oid[1]::oid AS oid, t.kind, t.name, t.rel
        FROM trees t CROSS JOIN LATERAL regexp_matches(t.tree, ':(?:opfuncid|funcid) (\\d+)', 'g') m (oid)
    )
"""
# PostgreSQL's own objects are not noted as what something depends on: of most stores nothing is found. What views and
# policies call has to be looked at all the same.
_ANY_CODE = f"""
    SELECT EXISTS (
        SELECT FROM ({_PARTS}) p CROSS JOIN LATERAL (
            SELECT FROM pg_depend d WHERE d.classid = p.classid AND d.objid = p.objid AND d.refclassid IN (
                'pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass, 'pg_opclass'::regclass) LIMIT 1) d)
        OR EXISTS (
            WITH {_CALLED} SELECT FROM called f JOIN pg_proc p ON p.oid = f.oid
            WHERE p.pronamespace = 'pg_catalog'::regnamespace AND ({_REACHES_FURTHER}))
"""
# Functions, and those behind operators and types, with all that a type is made of. The cast of a type to json is what
# to_json and its like call.
_CODE = """
    WITH RECURSIVE parts AS ({parts}), types (oid, kind, name, rel) AS (
        SELECT a.atttypid, 'column', a.attname::text, a.attrelid
        FROM pg_attribute a WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
        UNION
        SELECT c.reltype, 'the row type', NULL::text, c.oid FROM pg_class c WHERE c.oid = ANY ($1::oid[])
        UNION
        SELECT d.refobjid, p.kind, p.name, p.rel FROM parts p
        JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid AND d.refclassid = 'pg_type'::regclass
        UNION
        SELECT inner_type.oid, t.kind, t.name, t.rel
        FROM types t JOIN pg_type y ON y.oid = t.oid
        CROSS JOIN LATERAL (
            SELECT y.typbasetype WHERE y.typbasetype <> 0 UNION ALL SELECT y.typelem WHERE y.typelem <> 0
            UNION ALL SELECT g.rngsubtype FROM pg_range g WHERE y.oid IN (g.rngtypid, g.rngmultitypid)
            UNION ALL SELECT a.atttypid FROM pg_attribute a
                      WHERE a.attrelid = y.typrelid AND a.attnum > 0 AND NOT a.attisdropped) inner_type (oid)
    ), functions AS (
        SELECT d.refobjid AS oid, p.kind, p.name, p.rel FROM parts p
        JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid AND d.refclassid = 'pg_proc'::regclass
        UNION ALL
        SELECT o.oprcode, p.kind, p.name, p.rel FROM parts p
        JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid AND d.refclassid = 'pg_operator'::regclass
        JOIN pg_operator o ON o.oid = d.refobjid
        UNION ALL
        SELECT f.oid, t.kind, t.name, t.rel FROM types t JOIN pg_type y ON y.oid = t.oid
        CROSS JOIN LATERAL (VALUES (y.typinput::oid), (y.typoutput::oid), (y.typreceive::oid), (y.typsend::oid),
                                   (y.typmodin::oid), (y.typmodout::oid)) f (oid)
        UNION ALL
        SELECT f.oid, t.kind, t.name, t.rel FROM types t JOIN pg_range g ON g.rngtypid = t.oid
        CROSS JOIN LATERAL (VALUES (g.rngcanonical::oid), (g.rngsubdiff::oid)) f (oid)
        UNION ALL
        SELECT d.refobjid, t.kind, t.name, t.rel FROM types t
        JOIN pg_constraint k ON k.contypid = t.oid
        JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
             AND d.refclassid = 'pg_proc'::regclass
        UNION ALL
        SELECT o.oprcode, t.kind, t.name, t.rel FROM types t
        JOIN pg_constraint k ON k.contypid = t.oid
        JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
             AND d.refclassid = 'pg_operator'::regclass
        JOIN pg_operator o ON o.oid = d.refobjid
        UNION ALL
        SELECT k.castfunc, t.kind, t.name, t.rel FROM types t
        JOIN pg_cast k ON k.castsource = t.oid AND k.casttarget IN ('json'::regtype, 'jsonb'::regtype)
    ), {called}, code AS (
        SELECT f.kind, f.name, f.rel, 'function ' || quote_ident(n.nspname) || '.' || quote_ident(p.proname) AS uses,
               p.proowner AS owner
        FROM functions f JOIN pg_proc p ON p.oid = f.oid JOIN pg_namespace n ON n.oid = p.pronamespace
        UNION ALL
        SELECT f.kind, f.name, f.rel, 'function pg_catalog.' || quote_ident(p.proname), c.relowner
        FROM called f JOIN pg_proc p ON p.oid = f.oid JOIN pg_class c ON c.oid = f.rel
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND ({further})
    )
    SELECT DISTINCT ON (o.oid) code.kind, code.name, c.relname::text AS rel, cn.nspname::text AS schema,
           code.uses, o.oid AS owner, o.rolname::text AS owner_name
    FROM code JOIN pg_roles o ON o.oid = code.owner
    JOIN pg_class c ON c.oid = code.rel JOIN pg_namespace cn ON cn.oid = c.relnamespace
    WHERE NOT o.rolsuper AND o.rolname <> session_user
      AND NOT pg_has_role(o.oid, (SELECT oid FROM pg_roles WHERE rolname = session_user),
          -- A member who may neither use those rights nor become that role gains nothing by it.
          CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
    ORDER BY o.oid, code.kind, code.name
"""
# Whether one of the users of this session may do something that the owner $1 may not.
_MORE = """
    SELECT current_user::text, EXISTS (
        SELECT FROM pg_roles u, pg_roles o
        WHERE u.rolname IN (current_user, session_user) AND o.oid = $1 AND u.oid <> o.oid AND (
            u.rolsuper OR u.rolcreaterole AND NOT o.rolcreaterole OR u.rolcreatedb AND NOT o.rolcreatedb
            OR u.rolreplication AND NOT o.rolreplication OR u.rolbypassrls AND NOT o.rolbypassrls
            OR EXISTS (SELECT FROM pg_roles g WHERE g.oid <> u.oid AND pg_has_role(u.oid, g.oid, 'MEMBER')
                         AND g.oid <> o.oid AND NOT pg_has_role(o.oid, g.oid, 'MEMBER'))
            OR EXISTS (
                SELECT FROM pg_shdepend s
                WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = u.oid AND (
                    s.deptype = 'o'
                    OR s.deptype = 'a' AND (
                        s.dbid NOT IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
                        OR s.classid = 'pg_class'::regclass AND EXISTS (
                            SELECT FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) p
                            WHERE has_table_privilege(u.oid, s.objid, p) AND NOT has_table_privilege(o.oid, s.objid, p))
                        OR s.classid = 'pg_class'::regclass AND s.objsubid <> 0 AND EXISTS (
                            SELECT FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) p
                            WHERE has_column_privilege(u.oid, s.objid, s.objsubid::int2, p)
                              AND NOT has_column_privilege(o.oid, s.objid, s.objsubid::int2, p))
                        OR s.classid = 'pg_proc'::regclass
                           AND has_function_privilege(u.oid, s.objid, 'EXECUTE')
                           AND NOT has_function_privilege(o.oid, s.objid, 'EXECUTE')
                        OR s.classid = 'pg_namespace'::regclass AND EXISTS (
                            SELECT FROM unnest(ARRAY['USAGE', 'CREATE']) p
                            WHERE has_schema_privilege(u.oid, s.objid, p)
                              AND NOT has_schema_privilege(o.oid, s.objid, p))
                        OR s.classid = 'pg_database'::regclass AND EXISTS (
                            SELECT FROM unnest(ARRAY['CONNECT', 'CREATE']) p
                            WHERE has_database_privilege(u.oid, s.objid, p)
                              AND NOT has_database_privilege(o.oid, s.objid, p)))))))
"""


class _Found(NamedTuple):
    kind: str
    name: str | None
    rel: str
    schema: str
    uses: str
    owner: int
    owner_name: str


async def check_owners(connection: asyncpg.Connection, layout: Layout) -> None:
    """Raise OwnerNotTrusted if reading the store would run code of somebody who has fewer rights than the user.

    Only catalogs are read, whose functions are PostgreSQL's own.
    """
    ours = [layout.ours(name) for name in _OURS] if layout.own else []
    start = f"SELECT {layout.oid}::oid"
    relations = await connection.fetchval(_RELATIONS.format(above=above(start), below=below(start)), ours)
    if not await connection.fetchval(_ANY_CODE, relations):
        return
    for row in await connection.fetch(_CODE.format(parts=_PARTS, further=_REACHES_FURTHER, called=_CALLED), relations):
        found = _Found._make(row)
        user, more = await connection.fetchrow(_MORE, found.owner)  # type: ignore[misc]
        if more:
            raise OwnerNotTrusted(_told(found, user), found.owner_name)


async def restrictions(connection: asyncpg.Connection, layout: Layout) -> str:
    """Return the kinds of relations that are never read there, as restrict_nonsystem_relation_kind has them."""
    if layout.kind not in ("r", "p"):
        return ""
    foreign = await connection.fetchval(
        f"WITH RECURSIVE {below(f'SELECT {layout.oid}::oid')} "
        "SELECT EXISTS (SELECT FROM below JOIN pg_class c ON c.oid = below.oid WHERE c.relkind = 'f')"
    )
    return "view" if foreign else "view, foreign-table"


def _told(found: _Found, user: str) -> str:
    table = _shown(f"{found.schema}.{found.rel}")
    where = f"{found.kind} of {table}" if found.name is None else f"{found.kind} {_shown(found.name)} of {table}"
    owner = _shown(found.owner_name)
    return (
        f"{where} uses {_shown(found.uses)} of user {owner}, so reading would run code of {owner} with the rights of "
        f"{_shown(user)}: connect as a user with no more rights than {owner}, or trust the owner with --trust-owner"
    )


def _shown(name: str) -> str:
    return visible(name, limit=_NAME_LIMIT)
