"""What a user asks of the session, by PGOPTIONS and the like, holds for what esx does in it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from esx.embedded import EmbeddedServer
from esx.errors import StoreFailed, StoreUnavailable
from esx.eventstore import EventStore
from esx.model import NewEvent
from esx.postgres.connection import Connector
from esx.postgres.driver_internals import socket_of
from esx.postgres.settings import limit_within
from tests.cli.support import esx, ndjson, one_line_error
from tests.libpq.tlsgate import TlsGate, make_certificates
from tests.support.clusters import copy_cluster
from tests.support.roles import Role
from tests.support.stores import opened_pool

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def variables(dsn: str) -> dict[str, str]:
    """Return libpq's variables for what the address says."""
    parts = urlsplit(dsn)
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    return {
        "PGHOST": query["host"], "PGPORT": query["port"], "PGUSER": parts.username or "", "PGDATABASE": parts.path[1:],
    }  # fmt: skip


async def tenant(dsn: str, schema: str, stream: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"CREATE SCHEMA {schema}")
    await connection.close()
    async with EventStore.connect(f"{dsn}&search_path={schema}") as store:
        await store.init()
        await store.append(stream, [NewEvent("T")])


READ_ONLY = "-c default_transaction_read_only=on"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["PGOPTIONS", "url", "keywords", "variables", "ESX_DSN", "config", "service"])
async def test_a_session_that_may_only_read_does_not_append(
    way: str, dsn18: str, store18: EventStore, home: Path
) -> None:
    escaped = f"{dsn18}&options={READ_ONLY.replace(' ', '%20').replace('=', '%3D')}"
    at = variables(dsn18)
    keywords = f"host={at['PGHOST']} port=5432 user=postgres dbname={at['PGDATABASE']}"
    (home / "config.toml").write_text(f'[connections.shop]\ndsn = "{escaped}"\n')
    (home / ".pg_service.conf").write_text("[shop]\n" + keywords.replace(" ", "\n") + f"\noptions={READ_ONLY}\n")
    arguments, environ = {
        "PGOPTIONS": (["-d", dsn18], {"PGOPTIONS": READ_ONLY}),
        "url": (["-d", escaped], {}),
        "keywords": (["-d", f"{keywords} options='{READ_ONLY}'"], {}),
        "variables": ([], at | {"PGOPTIONS": "--default-transaction-read-only=on"}),
        "ESX_DSN": ([], {"ESX_DSN": escaped}),
        "config": (["-d", "shop"], {"ESX_CONFIG": str(home / "config.toml")}),
        "service": ([], {"PGSERVICE": "shop"}),
    }[way]
    line = one_line_error(esx("append", "s", "T", *arguments, **environ), 1)
    assert "read-only transaction" in line
    assert await store18.head() == 0


@pytest.mark.slow
async def test_the_embedded_database_hears_it_too(home: Path) -> None:
    environ = {"ESX_DATA_DIR": os.environ["ESX_DATA_DIR"], "PGTZ": "Asia/Tokyo", "PGHOSTADDR": "192.0.2.1"}
    assert esx("append", "s", "T", "-d", "embedded", **environ).returncode == 0
    line = esx("append", "s", "T", "-d", "embedded", PGOPTIONS=READ_ONLY, **environ).stderr.splitlines()[-1]
    assert "read-only transaction" in line


@pytest.mark.slow
async def test_a_search_path_shows_the_store_of_a_tenant(dsn18: str, store18: EventStore) -> None:
    await store18.append("own", [NewEvent("T")])
    await tenant(dsn18, "tenant1", "theirs")
    for options in ("-c search_path=tenant1", r"-csearch_path=tenant1,\ public", "--search-path=tenant1"):
        done = esx("streams", "--json", "-d", dsn18, PGOPTIONS=options)
        assert [row["stream_id"] for row in ndjson(done.stdout)] == ["theirs"], done.stderr
    written = f"{dsn18}&options=-c%20search_path%3Dpublic"
    done = esx("streams", "--json", "-d", written, PGOPTIONS="-c search_path=tenant1")
    assert [row["stream_id"] for row in ndjson(done.stdout)] == ["own"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-c no_such_setting=1", "unrecognized configuration parameter"),
        ("-c", "PGOPTIONS must be written like '-c name=value'"),
        ("-c statement_timeout=soon", "invalid value for parameter"),
        ("-c client_encoding=LATIN1", "PGOPTIONS sets client_encoding, which must be UTF8"),
        ("-c default_transaction_isolation=serializable", "esx works at read committed only: leave it out"),
        (r"-c default_transaction_isolation=repeatable\ read", "esx works at read committed only: leave it out"),
    ],
)
async def test_what_makes_no_sense_is_one_line(options: str, message: str, dsn18: str) -> None:
    done = esx("streams", "-d", dsn18, PGOPTIONS=options)
    assert message in one_line_error(done, done.returncode)
    assert done.returncode in (1, 2)


@pytest.mark.parametrize(
    ("asked", "configured", "used"),
    [("5s", 30.0, "5s"), ("1min", 30.0, "30s"), ("5s", 0.0, "5s"), ("0", 30.0, "30s")],
)
async def test_the_shorter_limit_counts(
    asked: str, configured: float, used: str, dsn18: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", f"-c statement_timeout={asked}")
    async with opened_pool(dsn18, statement_timeout=configured) as pool, pool.lend() as connection:
        assert await connection.fetchval("SHOW statement_timeout") == used


@pytest.mark.parametrize(("options", "wanted"), [("-c statement_timeout=9s", "9000"), ("-c geqo=off", "0")])
async def test_only_a_limit_of_the_user_holds_where_esx_wants_none(
    options: str, wanted: str, dsn18: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", options)
    async with opened_pool(dsn18, statement_timeout=8) as pool, pool.lend() as connection:
        limit = limit_within(connection, "statement_timeout", 0)
        assert await connection.fetchval(f"SELECT {limit}") == wanted


@pytest.mark.slow
async def test_an_export_keeps_to_the_limit_of_the_user(dsn18: str, store18: EventStore, role: Role) -> None:
    await store18.append("s", [NewEvent("T")] * 100)
    connection = await asyncpg.connect(dsn18)
    # Each row takes its time.
    await connection.execute(
        "ALTER TABLE events ENABLE ROW LEVEL SECURITY; CREATE POLICY slow ON events USING (pg_sleep(0.02) IS NOT NULL)"
    )
    await connection.close()
    await role.grant("SELECT ON events", "SELECT ON SEQUENCE events_global_seq_seq")
    assert len(esx("export", "-d", role.dsn(dsn18)).stdout.splitlines()) == 100
    done = esx("export", "-d", role.dsn(dsn18), PGOPTIONS="-c statement_timeout=1s")
    assert done.stdout == ""
    assert "statement timeout" in done.stderr


@pytest.mark.slow
async def test_formats_of_the_session_do_not_alter_what_is_printed(dsn18: str, store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T", {"at": 1.5})])
    commands = (
        ["read", "s", "--json"],
        ["export"],
        ["streams", "--json"],
        ["tail", "--no-follow", "--from", "start", "--json"],
    )
    plain = [esx(*command, "-d", dsn18).stdout for command in commands]
    environ = {"PGDATESTYLE": "SQL, DMY", "PGTZ": "Asia/Tokyo", "PGGEQO": "off", "PGCLIENTENCODING": "UTF8"}
    assert [esx(*command, "-d", dsn18, **environ).stdout for command in commands] == plain
    assert all(json.loads(text.splitlines()[0]) for text in plain)


async def test_variables_set_the_session(dsn18: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGTZ": "Asia/Tokyo", "PGDATESTYLE": "SQL, DMY", "PGGEQO": "off", "PGAPPNAME": "till"}.items():
        monkeypatch.setenv(name, value)
    async with opened_pool(dsn18) as pool, pool.lend(guarded=False) as connection:
        names = ("timezone", "datestyle", "geqo", "application_name")
        shown = [await connection.fetchval(f"SHOW {name}") for name in names]
        assert shown == ["Asia/Tokyo", "SQL, DMY", "off", "till"]


async def test_a_name_that_is_only_a_fallback(dsn18: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def name() -> str:
        async with opened_pool(f"{dsn18}&fallback_application_name=spare") as pool, pool.lend() as session:
            return str(await session.fetchval("SHOW application_name"))

    assert await name() == "spare"
    monkeypatch.setenv("PGAPPNAME", "till")
    assert await name() == "till"


@pytest.mark.slow
async def test_a_service_goes_between_the_address_and_the_variables(dsn18: str, home: Path, empty_dsn18: str) -> None:
    at, other = variables(dsn18), variables(empty_dsn18)
    async with EventStore.connect(dsn18) as store:
        await store.append("s", [NewEvent("T")])
    (home / ".pg_service.conf").write_text(
        f"[shop]\nhost={at['PGHOST']}\nport=5432\nuser=postgres\ndbname={at['PGDATABASE']}\n"
    )
    shown = esx("streams", "--json", PGSERVICE="shop", PGDATABASE=other["PGDATABASE"], PGHOST="/nowhere", PGPORT="1")
    assert [row["stream_id"] for row in ndjson(shown.stdout)] == ["s"], shown.stderr
    for written in ("service=shop", "postgresql://?service=shop", "postgresql:///?service=shop"):
        assert ndjson(esx("streams", "--json", "-d", written).stdout)
    line = one_line_error(esx("streams", "-d", f"service=shop dbname={other['PGDATABASE']}"), 1)
    assert f"database {other['PGDATABASE']} has no table events" in line
    line = one_line_error(esx("streams", PGSERVICE="shoop"), 2)
    assert line.startswith(f"esx: there is no service shoop in {home}/.pg_service.conf, ")
    (home / "broken").write_text("[shop]\nhost=h\nnonsense\n")
    line = one_line_error(esx("streams", "-d", "service=shop", PGSERVICEFILE=str(home / "broken")), 2)
    assert f"service file {home}/broken, line 3: " in line


async def test_a_password_file_that_others_may_read(dsn18: str, home: Path) -> None:
    (home / ".pgpass").write_text("*:*:*:*:x\n")
    (home / ".pgpass").chmod(0o644)
    done = esx("streams", "-d", dsn18)
    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == (
        f'WARNING: password file "{home}/.pgpass" has group or world access; '
        "permissions should be u=rw (0600) or less: chmod 0600 it"
    )


@pytest.fixture
def dead_port() -> Iterator[int]:
    """Return a port that never answers: its queue is full."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        waiting = []
        for _ in range(3):
            peer = socket.socket()
            peer.setblocking(False)
            peer.connect_ex(("127.0.0.1", port))
            waiting.append(peer)
        yield port
        for peer in waiting:
            peer.close()


@pytest.mark.slow
async def test_a_host_that_does_not_answer_is_left_for_the_next(dead_port: int, dsn18: str) -> None:
    at = variables(dsn18)
    written = (
        f"host=127.0.0.1,{at['PGHOST']} port={dead_port},5432 user=postgres dbname={at['PGDATABASE']} connect_timeout=1"
    )
    async with EventStore.connect(written, timeout=0.5) as store:
        assert await store.head() == 0
    with pytest.raises(StoreUnavailable):
        await EventStore.connect(f"host=127.0.0.1 port={dead_port} user=u connect_timeout=1", timeout=60)


@pytest.mark.parametrize(
    ("attribute", "refused"),
    [
        ("any", False), ("read-write", False), ("primary", False), ("prefer-standby", False), ("standby", True),
        ("read-only", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["PGTARGETSESSIONATTRS", "target_session_attrs"])
async def test_what_kind_of_server_will_do(
    attribute: str, refused: bool, way: str, dsn18: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way.isupper():
        monkeypatch.setenv(way, attribute)
        written = dsn18
    else:
        written = f"{dsn18}&{way}={attribute}"
    if refused:
        with pytest.raises((StoreUnavailable, StoreFailed), match="target"):
            await EventStore.connect(written)
    else:
        async with EventStore.connect(written) as store:
            assert await store.head() == 0


@pytest.mark.slow
async def test_options_of_the_socket(dsn18: str, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    make_certificates(tmp_path)
    at = variables(dsn18)
    gate = TlsGate(Path(at["PGHOST"]) / ".s.PGSQL.5432", tmp_path)
    try:
        base = f"host=127.0.0.1 port={gate.port} user=postgres dbname={at['PGDATABASE']} sslmode=disable"
        for more, wanted in (
            ("", (1, 10, 5, 2, 20_000)),
            (" keepalives_idle=33 keepalives_interval=7 keepalives_count=4 tcp_user_timeout=5000", (1, 33, 7, 4, 5000)),
        ):
            connection = await Connector(base + more, "esx").open()
            peer = socket_of(connection)
            assert peer is not None
            names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            found = [peer.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
            assert (peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *found) == wanted
            connection.terminate()
        connection = await Connector(f"{base} keepalives=0", "esx").open()
        peer = socket_of(connection)
        assert peer is not None
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        connection.terminate()
    finally:
        gate.close()


@pytest.mark.slow
async def test_hosts_in_random_order(dsn18: str, tmp_path: Path) -> None:
    at = variables(dsn18)
    other = Path(tempfile.mkdtemp(prefix="esx-hosts-"))
    try:
        (other / "b").symlink_to(at["PGHOST"])
        written = f"host={at['PGHOST']},{other}/b port=5432 user=postgres dbname={at['PGDATABASE']}"
        used: dict[str, set[str]] = {"random": set(), "disable": set()}
        for mode, addresses in used.items():
            for _ in range(20):
                connection = await Connector(f"{written} load_balance_hosts={mode}", "esx").open()
                addresses.add(connection.dialled)
                connection.terminate()
        assert {mode: len(addresses) for mode, addresses in used.items()} == {"random": 2, "disable": 1}
    finally:
        shutil.rmtree(other)


@pytest.mark.slow
async def test_a_server_that_asks_for_a_password(home: Path) -> None:
    """The password file, with each of the marks that mean something in it, and for each host its own."""
    directory = Path(tempfile.mkdtemp(prefix="esx-password-"))
    await copy_cluster(directory, 18)
    server = EmbeddedServer.start(directory, version=18)
    try:
        password = r"a:b\c :d"
        await asked_for(server, password)
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        file = home / ".pgpass"
        file.write_text(f"/nowhere:*:*:*:wrong\n{server.socket_dir}:5432:esx:me:{escaped}\n")
        file.chmod(0o600)
        written = f"host=/nowhere,{server.socket_dir} port=5432 user=me dbname=esx"
        async with EventStore.connect(written) as store:
            assert not await store.has_schema()
        for more in (f"password='{password.replace(chr(92), chr(92) * 2)}' passfile=/nowhere", f"passfile='{file}'"):
            async with EventStore.connect(f"{written} {more}") as store:
                assert not await store.has_schema()
        with pytest.raises(StoreUnavailable, match="password authentication failed"):
            await EventStore.connect(f"{written} passfile=/nowhere")
        file.chmod(0o640)
        with pytest.raises(StoreUnavailable, match="has group or world access"):
            await EventStore.connect(written)
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


async def asked_for(server: EmbeddedServer, password: str) -> None:
    """Make the user me, which must give a password."""
    connection = await asyncpg.connect(server.dsn)
    literal = await connection.fetchval("SELECT quote_literal($1)", password)
    await connection.execute(f"CREATE ROLE me LOGIN PASSWORD {literal}")
    hba = server.data_dir / "pg_hba.conf"
    hba.write_text("local all me scram-sha-256\n" + hba.read_text())
    await connection.execute("SELECT pg_reload_conf()")
    # It is read some time after it was asked for.
    while not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_hba_file_rules WHERE user_name = '{me}')"):
        pass
    await connection.close()
