"""The server and the session: version, settings that matter to a store of events, and rights."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from esx.doctor.finding import About, Finding, Severity, shown
from esx.doctor.target import EVENTS, Examined
from esx.doctor.topic import Topic
from esx.postgres.literals import identifier, literal
from esx.postgres.pooler import Pooler
from esx.postgres.session import Session

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
_NEEDED = {
    "fsync": (Severity.ERROR, "a power failure can destroy the database"),
    "full_page_writes": (
        Severity.WARNING,
        "a power failure can tear pages beyond repair, except on a few file systems",
    ),
    "synchronous_commit": (Severity.INFO, "a crash may lose the events acknowledged last"),
    "autovacuum": (Severity.WARNING, "statistics go stale, and index-only scans read the table"),
    "track_activities": (Severity.WARNING, "a writer that holds the feed cannot be described"),
}
"""Settings that should not be off: how bad that is, and why."""
_SETTINGS = (
    *_NEEDED,
    "data_checksums",
    "data_directory",
    "default_transaction_isolation",
    "idle_in_transaction_session_timeout",
    "max_connections",
    "superuser_reserved_connections",
)


class Setting(NamedTuple):
    """The value that holds in this session, and where it comes from, as in pg_settings."""

    value: str
    source: str


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The facts. A right is None if its object does not exist.

    `may_not_lock` are the rights on stream_locks that the user does not have, but needs for row-level locking.
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
    target: Examined = EVENTS
    settings: Mapping[str, Setting] = field(default_factory=dict)

    def set_to(self, name: str, value: str) -> tuple[str, ...]:
        """Return the statements that change a setting at the place where its present value was set."""
        source = self.settings[name].source
        user, database = identifier(self.user), identifier(self.database)
        if source == "database":
            return (f"ALTER DATABASE {database} SET {name} = {value};",)
        if source == "user":
            return (f"ALTER ROLE {user} SET {name} = {value};",)
        if source == "database user":
            return (f"ALTER ROLE {user} IN DATABASE {database} SET {name} = {value};",)
        return (f"ALTER SYSTEM SET {name} = {value};", "SELECT pg_reload_conf();")


async def read_server(connection: Session, target: Examined) -> ServerFacts:
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
    # The store's own sessions set it; this check is about other sessions.
    await connection.execute("SET LOCAL default_transaction_isolation TO DEFAULT")
    settings = await connection.fetch(
        "SELECT name, setting, source FROM pg_settings WHERE name = ANY($1::text[])", list(_SETTINGS)
    )
    return ServerFacts(
        **row, target=target, settings={name: Setting(value, source) for name, value, source in settings}
    )


def version(server: ServerFacts) -> Iterator[Finding]:
    """Check that schema.sql works with the version, and that the version still gets fixes."""
    found = About("server-version")
    end = _END_OF_LIFE.get(server.version)
    if server.version < _OLDEST:
        yield found.warning(f"PostgreSQL {server.version} is too old: esx needs {_OLDEST} or later", _UPGRADING)
    elif end is not None and server.today > end:
        yield found.info(f"PostgreSQL {server.version} gets no more fixes since {end}", _UPGRADING)
    else:
        yield found.ok(f"PostgreSQL {server.version}" + (f" gets fixes until {end}" if end else ""))


def encoding(server: ServerFacts) -> Iterator[Finding]:
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


def standby(server: ServerFacts) -> Iterator[Finding]:
    """Check that the server takes appends."""
    found = About("hot-standby")
    if server.recovering:
        yield found.info("the server is a hot standby: no appends here, and the feed polls, later than on the primary")
    else:
        yield found.ok("the server is no standby: it takes appends")


def settings(server: ServerFacts) -> Iterator[Finding]:
    """Check that no setting is off that keeps events safe, or the store fast and observable."""
    for name, (severity, why) in _NEEDED.items():
        check, value = name.replace("_", "-"), server.settings[name].value
        if value == "off":
            yield Finding(check, severity, f"{name} is off: {why}", server.set_to(name, "on"))
        else:
            yield Finding(check, Severity.OK, f"{name} is {value}")


def connections(server: ServerFacts) -> Iterator[Finding]:
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


def idle_in_transaction(server: ServerFacts) -> Iterator[Finding]:
    """Check that forgotten transactions are ended."""
    found = About("idle-in-transaction")
    if server.settings["idle_in_transaction_session_timeout"].value == "0":
        yield found.info(
            "idle_in_transaction_session_timeout is 0: a forgotten transaction holds the feed for ever",
            f"ALTER DATABASE {identifier(server.database)} SET idle_in_transaction_session_timeout = '5min';",
        )
    else:
        yield found.ok("a forgotten transaction is ended by idle_in_transaction_session_timeout")


def isolation(server: ServerFacts) -> Iterator[Finding]:
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


def checksums(server: ServerFacts) -> Iterator[Finding]:
    """Check that damage by a disk is noticed."""
    found = About("checksums")
    if server.settings["data_checksums"].value == "off":
        yield found.info(
            "data checksums are off: damage by a disk goes unnoticed (the remedy wants the server stopped)",
            f"pg_checksums --enable -D {_data_directory(server)}",
        )
    else:
        yield found.ok("data checksums are on")


def rights(server: ServerFacts) -> Iterator[Finding]:
    """Check that this user may read and append, also under a lock; of a store that esx only reads, that it may read."""
    if server.may_select is None:
        return
    found = About("rights")
    user = identifier(server.user)
    if server.target.read_only:  # that the columns that it needs may be read was found when it was opened
        yield found.ok(f"user {shown(server.user)} may read it; esx appends nothing to this store")
        return
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
        # An append for any version locks too, after it has lost a race.
        named = ", ".join(f"{what} stream_locks" for what in server.may_not_lock)
        lacking.append((named, f"GRANT {', '.join(server.may_not_lock)} ON stream_locks TO {user};"))
    if lacking:
        names = ", ".join(what for what, _ in lacking)
        say = found.info if server.may_select else found.error
        blind = "" if server.may_select else ", so nothing can be shown"
        yield say(f"user {shown(server.user)} may not: {names}{blind}", *(remedy for _, remedy in lacking))
    else:
        yield found.ok(f"user {shown(server.user)} may read{' and append' if server.target.is_table else ''}")


def visibility(server: ServerFacts) -> Iterator[Finding]:
    """Check that this user sees what other sessions do."""
    found = About("rights-activity")
    if not server.may_see_all:
        yield found.unknown(
            f"user {shown(server.user)} does not see what other users' sessions do: who holds the feed has no name",
            f"GRANT pg_read_all_stats TO {identifier(server.user)};",
        )
    else:
        yield found.ok(f"user {shown(server.user)} sees what other sessions do")


def pooling(pooler: Pooler | None) -> Iterator[Finding]:
    """Report what does not work behind a connection pooler."""
    found = About("pooler")
    if pooler is None:
        yield found.ok("the session is PostgreSQL's own: the feed can listen, and statements stay prepared")
    else:
        yield found.info(
            f"{pooler}: the feed polls, and each statement is prepared each time; connect directly to spare that"
        )


def _data_directory(server: ServerFacts) -> str:
    known = server.settings.get("data_directory")
    return shlex.quote(known.value) if known is not None and known.value else '"$PGDATA"'


TOPIC = Topic(
    "server",
    read_server,
    (
        version,
        encoding,
        standby,
        settings,
        connections,
        idle_in_transaction,
        isolation,
        checksums,
        rights,
        visibility,
    ),
)
