"""The SQL for settings of a session: those that guard it, and limits for statements.

It means the same in a session that is not guarded yet.
"""

import asyncpg

from esx.postgres.literals import quoted

RESTRICTED = "restrict_nonsystem_relation_kind"
# With these PostgreSQL writes names and values as esx reads them, also if the role or the database have other settings.
GUARDED = {
    "search_path": "",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "bytea_output": "hex",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
}


def set_config(name: str, value: str, *, local: bool) -> str:
    """Return the expression that makes a setting, `local` until the transaction ends."""
    return f"pg_catalog.set_config({quoted(name)}, {quoted(value)}, {str(local).lower()})"


def guarding(restricted: str, *, local: bool) -> list[str]:
    """Return the expressions that guard a session, or a transaction of it. `restricted` are kinds of relations."""
    made = [set_config(name, value, local=local) for name, value in GUARDED.items()]
    # No policy runs for a user who may bypass row-level security.
    bypasses = (
        "SELECT rolsuper OR rolbypassrls FROM pg_catalog.pg_roles "
        "WHERE rolname OPERATOR(pg_catalog.=) CURRENT_USER::pg_catalog.name"
    )
    made.append(f"CASE WHEN ({bypasses}) THEN {set_config('row_security', 'off', local=local)} END")
    if restricted:
        # Not every version knows it.
        known = f"pg_catalog.current_setting({quoted(RESTRICTED)}, true) IS NOT NULL"
        made.append(f"CASE WHEN {known} THEN {set_config(RESTRICTED, restricted, local=local)} END")
    return made


def limit_within(connection: asyncpg.Connection, name: str, milliseconds: int) -> str:
    """Return a limit as SQL: what esx wants, 0 for no limit, or the user's own limit if that is shorter.

    `name` is the setting: statement_timeout or lock_timeout.
    """
    if name not in getattr(connection, "asked", {}):
        return f"'{milliseconds}'"
    return (
        "(SELECT CASE WHEN reset_val::pg_catalog.int8 OPERATOR(pg_catalog.>=) 1::pg_catalog.int8 "
        f"AND reset_val::pg_catalog.int8 OPERATOR(pg_catalog.<=) {milliseconds or 2**31 - 1}::pg_catalog.int8 "
        f"THEN reset_val ELSE '{milliseconds}' END FROM pg_catalog.pg_settings "
        f"WHERE name OPERATOR(pg_catalog.=) '{name}'::pg_catalog.text)"
    )
