"""The server and the session: version, settings that matter to a store of events, and rights."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from esx.store.doctor.finding import About, identifier, literal, shown
from esx.store.doctor.target import EVENTS, Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from esx.store.connection import Pooler, Session
    from esx.store.doctor.finding import Finding

_OLDEST = 14
_UPGRADING = "see https://www.postgresql.org/docs/current/upgrading.html"
# https://www.postgresql.org/support/versioning/
_END_OF_LIFE = {
    14: date(2026, 11, 12),
    15: date(2027, 11, 11),
    16: date(2028, 11, 9),
    17: date(2029, 11, 8),
    18: date(2030, 11, 14),
}
_NEARLY_FULL = 0.85
_SETTINGS = (
    "autovacuum",
    "data_checksums",
    "data_directory",
    "default_transaction_isolation",
    "fsync",
    "full_page_writes",
    "idle_in_transaction_session_timeout",
    "max_connections",
    "superuser_reserved_connections",
    "synchronous_commit",
    "track_activities",
)


class Setting(NamedTuple):
    """The value that holds in this session, and where it comes from, as in pg_settings."""

    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Server:
    """The facts. A right is None where there is nothing to have a right to.

    `may_not_lock` are the rights to stream_locks that are lacking for row-level locking, if there is that table.
    """

    version: int
    today: date
    database: str
    user: str
    encoding: str = "UTF8"
    recovering: bool = False
    connections: int = 0
    may_select: bool | None = None
    may_insert: bool | None = None
    may_draw: bool | None = None
    may_not_lock: Sequence[str] = ()
    may_see_all: bool = True
    sequence: str | None = None
    target: Target = EVENTS
    settings: Mapping[str, Setting] = field(default_factory=dict)

    def set_to(self, name: str, value: str) -> tuple[str, ...]:
        """Return the statements that give a setting this value, there where it got its present one."""
        source = self.settings[name].source
        user, database = identifier(self.user), identifier(self.database)
        if source == "database":
            return (f"ALTER DATABASE {database} SET {name} = {value};",)
        if source == "user":
            return (f"ALTER ROLE {user} SET {name} = {value};",)
        if source == "database user":
            return (f"ALTER ROLE {user} IN DATABASE {database} SET {name} = {value};",)
        return (f"ALTER SYSTEM SET {name} = {value};", "SELECT pg_reload_conf();")


async def read_server(connection: Session, target: Target) -> Server:
    """Read the facts about the server and the session."""
    row = await connection.fetchrow(
        f"""
        SELECT current_setting('server_version_num')::int / 10000 AS version, current_date AS today,
               current_database()::text AS database, current_user::text AS user,
               getdatabaseencoding()::text AS encoding,
               pg_is_in_recovery() AS recovering,
               (SELECT count(*) FROM pg_stat_activity
                WHERE datid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend') AS connections,
               has_table_privilege(t.oid, 'SELECT') AS may_select, has_table_privilege(t.oid, 'INSERT') AS may_insert,
               has_sequence_privilege(s.oid, 'USAGE') AS may_draw,
               {target.spelled("s.oid")} AS sequence,
               ARRAY(SELECT name FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) WITH ORDINALITY p (name, n)
                     WHERE NOT has_table_privilege(to_regclass({literal(target.ours("stream_locks"))}), name)
                     ORDER BY n) AS may_not_lock,
               pg_has_role('pg_read_all_stats', 'USAGE') AS may_see_all
        FROM (SELECT {target.oid}::oid AS oid) t
        LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname = 'global_seq' AND NOT a.attisdropped
        LEFT JOIN LATERAL (
            SELECT pg_get_serial_sequence(a.attrelid::regclass::text, a.attname)::regclass::oid AS oid
        ) s ON true
        """
    )
    assert row is not None
    # The store's own sessions set it; what counts here is what the others get.
    await connection.execute("SET LOCAL default_transaction_isolation TO DEFAULT")
    settings = await connection.fetch(
        "SELECT name, setting, source FROM pg_settings WHERE name = ANY($1::text[])", list(_SETTINGS)
    )
    return Server(**row, target=target, settings={name: Setting(value, source) for name, value, source in settings})


def version(server: Server) -> Iterator[Finding]:
    """Check that the version is one that schema.sql works with, and one that still gets fixes."""
    found = About("server-version")
    end = _END_OF_LIFE.get(server.version)
    if server.version < _OLDEST:
        yield found.warning(f"PostgreSQL {server.version} is too old: esx needs {_OLDEST} or later", _UPGRADING)
    elif end is not None and server.today > end:
        yield found.info(f"PostgreSQL {server.version} gets no more fixes since {end}", _UPGRADING)
    else:
        yield found.ok(f"PostgreSQL {server.version}" + (f" gets fixes until {end}" if end else ""))


def encoding(server: Server) -> Iterator[Finding]:
    """Check that the database can hold every character."""
    found = About("encoding")
    if server.encoding == "UTF8":
        yield found.ok("the encoding of the database is UTF8")
    elif server.encoding == "SQL_ASCII":
        yield found.warning(
            "the encoding of the database is SQL_ASCII: PostgreSQL stores bytes as they come, also those that are no "
            "text (a new database needs ENCODING 'UTF8' TEMPLATE template0)"
        )
    else:
        yield found.info(
            f"the encoding of the database is {shown(server.encoding)}: events with other characters than it has are "
            "refused (a new database needs ENCODING 'UTF8' TEMPLATE template0)"
        )


def standby(server: Server) -> Iterator[Finding]:
    """Check that the server takes appends."""
    found = About("hot-standby")
    if server.recovering:
        yield found.info("the server is a hot standby: no appends here, and the feed polls, later than on the primary")
    else:
        yield found.ok("the server is no standby: it takes appends")


def fsync(server: Server) -> Iterator[Finding]:
    """Check that a power failure does not destroy the database."""
    found = About("fsync")
    if server.settings["fsync"].value == "off":
        yield found.error("fsync is off: a power failure can destroy the database", *server.set_to("fsync", "on"))
    else:
        yield found.ok("fsync is on")


def full_page_writes(server: Server) -> Iterator[Finding]:
    """Check that pages torn by a power failure can be repaired."""
    found = About("full-page-writes")
    if server.settings["full_page_writes"].value == "off":
        yield found.warning(
            "full_page_writes is off: a power failure can tear pages beyond repair, except on a few file systems",
            *server.set_to("full_page_writes", "on"),
        )
    else:
        yield found.ok("full_page_writes is on")


def synchronous_commit(server: Server) -> Iterator[Finding]:
    """Check that what was acknowledged is stored."""
    found = About("synchronous-commit")
    if server.settings["synchronous_commit"].value == "off":
        yield found.info(
            "synchronous_commit is off: a crash may lose the events acknowledged last",
            *server.set_to("synchronous_commit", "on"),
        )
    else:
        yield found.ok(f"synchronous_commit is {server.settings['synchronous_commit'].value}")


def autovacuum(server: Server) -> Iterator[Finding]:
    """Check that statistics and the visibility map are kept up to date."""
    found = About("autovacuum")
    if server.settings["autovacuum"].value == "off":
        yield found.warning(
            "autovacuum is off: statistics go stale, and index-only scans read the table",
            *server.set_to("autovacuum", "on"),
        )
    else:
        yield found.ok("autovacuum is on")


def track_activities(server: Server) -> Iterator[Finding]:
    """Check that writers can be named."""
    found = About("track-activities")
    if server.settings["track_activities"].value == "off":
        yield found.warning(
            "track_activities is off: a writer that holds the feed cannot be described",
            *server.set_to("track_activities", "on"),
        )
    else:
        yield found.ok("track_activities is on")


def connections(server: Server) -> Iterator[Finding]:
    """Check that there is room for more connections."""
    found = About("connections")
    most = int(server.settings["max_connections"].value)
    room = most - int(server.settings["superuser_reserved_connections"].value)
    if server.connections >= _NEARLY_FULL * room:
        yield found.warning(
            f"{server.connections} of {room} connections are used (the remedy needs a restart; a pooler does not)",
            f"ALTER SYSTEM SET max_connections = {most * 2};",
            f"pg_ctl restart -D {_data_directory(server)}",
        )
    else:
        yield found.ok(f"{server.connections} of {room} connections are used")


def idle_in_transaction(server: Server) -> Iterator[Finding]:
    """Check that a writer that forgot its transaction is ended at some time."""
    found = About("idle-in-transaction")
    if server.settings["idle_in_transaction_session_timeout"].value == "0":
        yield found.info(
            "idle_in_transaction_session_timeout is 0: a forgotten transaction holds the feed for ever",
            f"ALTER DATABASE {identifier(server.database)} SET idle_in_transaction_session_timeout = '5min';",
        )
    else:
        yield found.ok("a forgotten transaction is ended by idle_in_transaction_session_timeout")


def isolation(server: Server) -> Iterator[Finding]:
    """Check that appends see what was committed before them."""
    found = About("isolation")
    level = server.settings["default_transaction_isolation"].value
    if level != "read committed":
        yield found.warning(
            f"default_transaction_isolation is {level}: a lost race is a serialization failure, not a wrong version",
            *server.set_to("default_transaction_isolation", "'read committed'"),
        )
    else:
        yield found.ok("transactions are read committed unless they say otherwise")


def checksums(server: Server) -> Iterator[Finding]:
    """Check that damage by a failing disk is noticed."""
    found = About("checksums")
    if server.settings["data_checksums"].value == "off":
        yield found.info(
            "data checksums are off: damage by a disk goes unnoticed (the remedy wants the server stopped)",
            f"pg_checksums --enable -D {_data_directory(server)}",
        )
    else:
        yield found.ok("data checksums are on")


def rights(server: Server) -> Iterator[Finding]:
    """Check that this user may read and append, also under a lock."""
    if server.may_select is None:
        return
    found = About("rights")
    user = identifier(server.user)
    lacking = [
        (f"{what} {on}", f"GRANT {what} ON {'SEQUENCE ' if what == 'USAGE' else ''}{on} TO {user};")
        for what, on, has in (
            ("SELECT", server.target.table, server.may_select),
            ("INSERT", server.target.table, server.may_insert if server.target.is_table else None),
            ("USAGE", server.sequence or "", server.may_draw),
        )
        if has is False
    ]
    if server.may_not_lock and server.target.own and server.target.is_table:
        # An append that suits any version locks too, once it has lost a race.
        named = ", ".join(f"{what} stream_locks" for what in server.may_not_lock)
        lacking.append((named, f"GRANT {', '.join(server.may_not_lock)} ON stream_locks TO {user};"))
    if lacking:
        names = ", ".join(what for what, _ in lacking)
        say = found.info if server.may_select else found.error
        blind = "" if server.may_select else ", so nothing can be shown"
        yield say(f"user {shown(server.user)} may not: {names}{blind}", *(remedy for _, remedy in lacking))
    else:
        yield found.ok(f"user {shown(server.user)} may read{' and append' if server.target.is_table else ''}")


def visibility(server: Server) -> Iterator[Finding]:
    """Check that this user sees who else is connected."""
    found = About("rights-activity")
    if not server.may_see_all:
        yield found.unknown(
            f"user {shown(server.user)} does not see what other users' sessions do: who holds the feed has no name",
            f"GRANT pg_read_all_stats TO {identifier(server.user)};",
        )
    else:
        yield found.ok(f"user {shown(server.user)} sees what other sessions do")


def pooling(pooler: Pooler | None) -> Iterator[Finding]:
    """Tell what a connection pooler takes away."""
    found = About("pooler")
    if pooler is None:
        yield found.ok("the session is PostgreSQL's own: the feed can listen, and statements stay prepared")
    else:
        yield found.info(
            f"{pooler}: the feed polls, and each statement is prepared anew; connect directly to spare that"
        )


def _data_directory(server: Server) -> str:
    known = server.settings.get("data_directory")
    return shlex.quote(known.value) if known is not None and known.value else '"$PGDATA"'


CHECKS = (
    version,
    encoding,
    standby,
    fsync,
    full_page_writes,
    synchronous_commit,
    autovacuum,
    track_activities,
    connections,
    idle_in_transaction,
    isolation,
    checksums,
    rights,
    visibility,
)
