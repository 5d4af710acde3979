"""Checks whose code runs when a store is read.

A plain SELECT evaluates expressions of the table's owner: those of indexes, CHECKs and partition keys while it is
planned, policies and columns of views while it runs. They run with the rights of the reader, and a READ ONLY
transaction prevents neither COPY TO PROGRAM nor a setting of the session. So before anything is read, esx looks in the
catalogs, and only there, for the owners of these functions. Functions of the user and of superusers are no danger, as a
superuser can do everything. An owner who can become the user gains nothing either.

Code that the owner adds later is found by another check every few seconds, but not prevented.
"""

import asyncpg

from esx.errors import OwnerNotTrusted
from esx.layouts.layout import OTHER_TABLES, Layout
from esx.layouts.table_tree import above, below
from esx.text import visible

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
# Objects with expressions, as (classid, objid, kind, name, table).
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
# PostgreSQL's own functions that run a text as a query, call the functions of a type by its number, or need special
# rights: in a view or a policy, which can call all of them, they are code of the owner too.
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
# pg_depend does not have PostgreSQL's own objects, so for most stores this finds nothing. The functions that views and
# policies call are checked in any case.
_ANY_CODE = f"""
    SELECT EXISTS (
        SELECT FROM ({_PARTS}) p CROSS JOIN LATERAL (
            SELECT FROM pg_depend d WHERE d.classid = p.classid AND d.objid = p.objid AND d.refclassid IN (
                'pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass, 'pg_opclass'::regclass) LIMIT 1) d)
        OR EXISTS (
            WITH {_CALLED} SELECT FROM called f JOIN pg_proc p ON p.oid = f.oid
            WHERE p.pronamespace = 'pg_catalog'::regnamespace AND ({_REACHES_FURTHER}))
"""
# Functions, and the functions of operators and types, with the types that a type is made of. to_json and similar
# functions call the cast of a type to json.
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
# Whether a user of this session may do something that the owner $1 may not.
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


async def check_owners(connection: asyncpg.Connection, layout: Layout) -> None:
    """Raise OwnerNotTrusted if reading the store would run code of another user who has fewer rights than this user.

    It reads only catalogs, whose functions are PostgreSQL's own.
    """
    ours = [layout.ours(name) for name in OTHER_TABLES] if layout.own else [f"{oid}" for oid in layout.beside]
    start = f"SELECT {layout.oid}::oid"
    # Two queries: as one, they take PostgreSQL half as long again.
    relations = await connection.fetchval(_RELATIONS.format(above=above(start), below=below(start)), ours)
    if not await connection.fetchval(_ANY_CODE, relations):
        return
    code = _CODE.format(parts=_PARTS, further=_REACHES_FURTHER, called=_CALLED)
    for kind, name, table, schema, uses, owner, owner_name in await connection.fetch(code, relations):
        user, more = await connection.fetchrow(_MORE, owner)  # type: ignore[misc]
        if more:
            what = kind if name is None else f"{kind} {_shown(name)}"
            raise OwnerNotTrusted(_told(f"{what} of {_shown(f'{schema}.{table}')}", uses, owner_name, user), owner_name)


def _told(where: str, uses: str, owner: str, user: str) -> str:
    owner = _shown(owner)
    return (
        f"{where} uses {_shown(uses)} of user {owner}, so reading would run code of {owner} with the rights of "
        f"{_shown(user)}: connect as a user with no more rights than {owner}, or trust the owner with --trust-owner"
    )


def _shown(name: str) -> str:
    return visible(name, limit=_NAME_LIMIT)
