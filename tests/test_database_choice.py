"""Which database is meant, and what people write to name one."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx.config import Config, Connection
from esx.database_choice import BadDatabase, Database, choose, normalise, open_database
from esx.embedded import EmbeddedFailed
from esx.libpq.address import without_password
from esx.libpq.target import resolve_dsn
from esx.postgres.connection import describe

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSERVICE", "PGSSLMODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="esx-test-"))
    yield path
    shutil.rmtree(path)


A, B, C = "postgresql://a/a", "postgresql://b/b", "postgresql://c/c"


@pytest.mark.parametrize(
    ("option", "environ", "dsn", "source", "label"),
    [
        (A, {"ESX_DSN": B, "DATABASE_URL": C, "PGHOST": "d"}, A, "--dsn", "a/a"),
        (None, {"ESX_DSN": B, "DATABASE_URL": C, "PGHOST": "d"}, B, "ESX_DSN", "b/b"),
        (None, {"DATABASE_URL": C, "PGHOST": "d"}, C, "DATABASE_URL", "c/c"),
        (None, {"ESX_DSN": " ", "DATABASE_URL": "", "PGHOST": "d"}, None, "PG* variables", "d"),
        (None, {"PGHOST": "d", "PGUSER": "u", "PGDATABASE": "x"}, None, "PG* variables", "u@d/x"),
        (None, {"PGHOST": "/run/pg", "PGPORT": "6"}, None, "PG* variables", "/run/pg:6"),
        (None, {"PGHOSTADDR": "10.0.0.1"}, None, "PG* variables", "10.0.0.1"),
        (None, {"PGPORT": "5433"}, None, "PG* variables", "localhost:5433"),
        (None, {"PGDATABASE": "x"}, None, "PG* variables", "localhost/x"),
        (None, {"PGHOST": "d", "PGPASSWORD": "secret"}, None, "PG* variables", "d"),
    ],
)
def test_the_order(option: str | None, environ: dict[str, str], dsn: str | None, source: str, label: str) -> None:
    assert choose(option, environ) == Database(dsn, source, label, embedded=False)


def test_a_service_is_named_with_where_it_leads(directory: Path) -> None:
    (directory / ".pg_service.conf").write_text("[prod]\nhost=db.example.com\nuser=u\npassword=s3cret\ndbname=shop\n")
    environ = {"HOME": str(directory), "PGSERVICE": "prod", "PGDATABASE": "other"}
    assert choose(None, environ).label == "u@db.example.com/shop (service prod)"
    assert choose("service=prod port=6", {"HOME": str(directory)}).label == "u@db.example.com:6/shop (service prod)"


@pytest.mark.parametrize("option", ["", " "])
def test_an_empty_option_is_not_taken_for_none(option: str) -> None:
    with pytest.raises(BadDatabase, match="--dsn is empty"):
        choose(option, {"ESX_DSN": B})


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"ESX_DSN": "", "DATABASE_URL": "", "PGHOST": "", "PGPORT": ""},
        {"PGUSER": "u", "PGPASSWORD": "secret", "PGPASSFILE": "/x", "PGOPTIONS": "-c a=b"},
        {"PGAPPNAME": "x", "PGTZ": "UTC", "PGCLIENTENCODING": "UTF8", "PGSSLMODE": "require"},
    ],
)
def test_nothing_configured(environ: dict[str, str]) -> None:
    assert choose(None, environ) == Database(None, "embedded", "embedded PostgreSQL 18", embedded=True)


@pytest.mark.parametrize(
    ("written", "dsn"),
    [
        ("mydb", "postgresql:///mydb"),
        (" my-db ", "postgresql:///my-db"),
        ("postgresql://", "postgresql://"),
        ("postgresql://u:p@h:5433/d", "postgresql://u:p@h:5433/d"),
        ("postgres://u:p@h/d", "postgresql://u:p@h/d"),
        ("POSTGRESQL://h/d", "postgresql://h/d"),
        ("postgresql+asyncpg://u:p@h/d?ssl=require", "postgresql://u:p@h/d?sslmode=require"),
        ("postgresql+psycopg://h/d", "postgresql://h/d"),
        ("postgresql://u:p%40%2F%3A@h/d", "postgresql://u:p%40%2F%3A@h/d"),
        ("postgresql://u:p@q@h/d", "postgresql://u:p%40q@h/d"),
        ("postgresql://[::1]:5433/d", "postgresql://[::1]:5433/d"),
        ("postgresql:///d?host=/run/pg&port=6", "postgresql:///d?host=/run/pg&port=6"),
        ("postgresql://%2Frun%2Fpg:6/d", "postgresql:///d?host=/run/pg&port=6"),
        ("postgresql://a:1,b/d", "postgresql:///d?host=a,b&port=1,5432"),
        (
            "postgresql://h/d?sslmode=require&channel_binding=prefer&connect_timeout=9&application_name=x%20y",
            "postgresql://h/d?sslmode=require&channel_binding=prefer&connect_timeout=9&application_name=x%20y",
        ),
        ("postgresql://h/d?schema=shop&pgbouncer=true", "postgresql://h/d?search_path=shop&pgbouncer=true"),
        ("host=localhost dbname=x port=5433 password='a b'", "postgresql://:a%20b@localhost:5433/x"),
        (r"user = u password='it\'s \\' host=h", "postgresql://u:it%27s%20%5C@h"),
        (r"password=a\ b host=h", "postgresql://:a%20b@h"),
        ("host='' dbname=x", "postgresql:///x?host="),
        ("host=/run/pg dbname=x", "postgresql:///x?host=/run/pg"),
        ("host='/a dir' dbname=x port=6", "postgresql:///x?host=/a%20dir&port=6"),
        ("host=::1", "postgresql://[::1]"),
        ("hostaddr=10.0.0.1 dbname=x", "postgresql:///x?hostaddr=10.0.0.1"),
        ("host=h hostaddr=10.0.0.1", "postgresql://h?hostaddr=10.0.0.1"),
        ("host=a,b port=1,2 dbname=x", "postgresql:///x?host=a,b&port=1,2"),
        ("service=prod", "postgresql://?service=prod"),
        ("dbname=x options='-c geqo=off'", "postgresql:///x?options=-c%20geqo%3Doff"),
    ],
)
def test_what_people_write(written: str, dsn: str) -> None:
    assert normalise(written) == dsn
    assert normalise(dsn) == dsn


@pytest.mark.parametrize(
    ("written", "address", "user", "password", "database"),
    [
        ("postgresql://u:p%40%2F%3A@h:6/d%20e", ("h", 6), "u", "p@/:", "d e"),
        ("user=u password='p @:/?#%' host=::1 port=6 dbname='d e'", ("::1", 6), "u", "p @:/?#%", "d e"),
        ("user='a@b' host='/a dir' port=6 dbname=d", ("/a dir", 6), "a@b", None, "d"),
        ("postgresql://u:a+b%2B@h/d", ("h", 5432), "u", "a+b+", "d"),
    ],
)
def test_what_is_written_is_what_is_meant(
    written: str, address: object, user: str, password: str | None, database: str
) -> None:
    target = resolve_dsn(normalise(written), {"HOME": "/nowhere"})
    [host] = target.hosts
    assert (host.goes_to, host.port) == address
    assert (target.user, host.password, target.database) == (user, password, database)


def test_libpq_variables_fill_what_a_url_leaves_out() -> None:
    environ = {"PGDATABASE": "from_environment", "HOME": "/nowhere"}
    assert resolve_dsn(normalise("host=h"), environ).database == "from_environment"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("mysql://root:s3cret@h/d", "mysql://root:***@h/d is not PostgreSQL"),
        ("http://h/", "http://h/ is not PostgreSQL"),
        ("sqlite:///s.db", "sqlite:///s.db is not PostgreSQL"),
        ("jdbc:postgresql://h/d", "jdbc:postgresql://h/d is not understood"),
        ("two words", "two words is not understood"),
        ("postgresql://u:s3/cret@h/d", "a / or ? in its password"),
        ("postgresql://u:s3?cret@h/d", "a / or ? in its password"),
        ("postgresql://u:s3#cret@h/d", "has a # that must be written %23"),
        ("postgresql://u:s3cret@h:port/d", "malformed host or port"),
        ("postgresql://u:s3cret@h:70000/d", "a port that is not a number from 1 to 65535"),
        ("postgresql://u:s3cret@[::1/d", "malformed host"),
        ("postgresql://a:1,b:2,c/d?port=1,2", "not as many ports as hosts"),
        ("postgresql://h/d?nonsense", "a malformed parameter"),
        ("postgresql://h/d?password=s3cret&x", "h/d?password=*** has a malformed parameter"),
        ("host=h port=x", "a port that is not a number"),
        ("host=h pasword=s3cret", "host=h pasword=*** has the parameter pasword that PostgreSQL does not know"),
        ("host=h password=a s3cret=b", "host=h password=*** has a parameter that"),
        ("password=a s3cret host=h", "password=*** is not a list of keyword=value"),
        ("host=h password='s3cret", "host=h password=*** is not a list of keyword=value"),
        ("Host=h;Password=s3cret", "Host=h;Password=*** has a ; or = where none belongs"),
        ("=x", "=x is not a list of keyword=value"),
        ("host=h user=u s3cret", "host=h user=u *** is not a list of keyword=value"),
        ("u:s3cret@h/d", "u:***@h/d is not understood"),
        ("postgresql://u:s3cret", "postgresql://u:*** has a malformed host or port"),
        ("bad\x1b[31m", "bad␛[31m is not understood"),
    ],
)
@pytest.mark.parametrize("source", ["--dsn", "DATABASE_URL"])
def test_what_is_refused(written: str, message: str, source: str) -> None:
    with pytest.raises(BadDatabase) as caught:
        choose(written if source == "--dsn" else None, {"DATABASE_URL": written, "PGHOST": "h"})
    text = str(caught.value)
    assert message in text
    assert text.startswith(f"{source} ")
    assert "expected postgresql://user@host:port/database" in text
    assert ("change DATABASE_URL, or pass --dsn" in text) == (source != "--dsn")
    assert text.isprintable()
    assert "s3" not in text
    assert "cret" not in text.replace("secret", "")


def test_variables_that_are_refused() -> None:
    with pytest.raises(BadDatabase, match=r"PGHOST has a ; .* change it, or pass --dsn"):
        choose(None, {"PGHOST": "a;b"})


@pytest.mark.parametrize(
    "written",
    [
        "postgresql://u:s3cret@h/d",
        "postgresql://u:a@s3cret@h/d",
        "postgresql://h/d?user=u&password=s3cret",
        "postgresql+psycopg2://u:s3cret@/d?host=/tmp",
        "user=u password=s3cret host=h dbname=d",
        "host=h sslpassword=s3cret",
        "postgresql://u:s3cret@a,b/d",
    ],
)
def test_no_password_in_a_label(written: str) -> None:
    database = choose(written, {})
    assert "s3cret" in (database.dsn or "")
    assert "s3cret" not in database.label
    assert "s3cret" not in without_password(written)


@pytest.mark.parametrize(
    "written",
    [
        "postgresql://me@db.example.com:5433/shop",
        "postgresql://me@db.example.com/shop",
        "postgresql://db.example.com/shop",
        "postgresql://me@db.example.com",
        "postgresql://db.example.com:5433",
        "postgresql://me@/shop?host=/var/run/postgresql&port=5433",
        "postgresql://me@/shop?host=/var/run/postgresql",
        "host=/opt/a_socket",
        "host=/opt/a_socket port=5433",
        "host='/Users/me/Library/Application Support/esx' port=5433 dbname=shop",
        "postgresql://me@[::1]:5433/shop",
        "postgresql://me@[::1]/shop",
        "hostaddr=::1 dbname=shop",
        "postgresql://me@a,b:5433/shop",
        "postgresql://me@a:1,b:2/shop",
        "postgresql://me%40tenant@db.azure.com/shop",
        "postgresql://me@h/my%20shop",
        "service=prod",
        "service=prod dbname=other",
    ],
)
def test_an_address_is_taken_as_it_is_printed(written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "services").write_text("[prod]\nhost=db.example.com\nuser=u\ndbname=shop\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    environ = {"PGSERVICEFILE": str(tmp_path / "services")}
    first = choose(written, environ)
    again = choose(first.label, environ)
    assert again.label == first.label
    assert again.dsn is not None
    # What Health prints.
    assert describe(again.dsn) == describe(first.dsn) == first.label

    def leads_to(dsn: str | None) -> list[tuple[str, int]]:
        return [(host.goes_to, host.port) for host in resolve_dsn(dsn, environ).hosts]

    assert leads_to(again.dsn) == leads_to(first.dsn)


def test_a_named_connection_and_the_embedded_one_are_taken_as_they_are_printed() -> None:
    config = Config(connections={"kept": Connection("kept", "postgresql://me@h/shop")})
    kept = choose("kept", {}, config)
    assert kept.label == "kept (me@h/shop)"
    assert choose(kept.label, {}, config) == kept
    assert choose(kept.label, {}, Config()).label == "me@h/shop"
    assert choose("embedded PostgreSQL 18", {}, config).embedded


@pytest.mark.parametrize(
    "written",
    [
        "me:s3cret@h/shop",
        "me:s3cret@h",
        "postgresql//me:s3cret@h/x",
        "//me:s3cret@h",
        "h:s3cret",
        "me@h/shop?password=s3cret",
    ],
)
def test_what_may_hold_a_password_is_no_printed_address(written: str) -> None:
    with pytest.raises(BadDatabase, match="dsn"):
        choose(written, {})


def test_a_label_is_safe_for_a_terminal() -> None:
    assert choose("postgresql://h/d%1b%5b31m", {}).label == "h/d␛[31m"


@pytest.mark.slow
async def test_the_embedded_database_is_opened_and_closed(directory: Path) -> None:
    told: list[str] = []
    slow = ("waiting for PostgreSQL 18 to start", "stopping PostgreSQL 18")  # said only where it takes its time
    environ = {"ESX_DATA_DIR": str(directory)}
    for _ in range(2):
        with open_database(None, environ, on_progress=told.append) as database:
            assert (database.source, database.label) == ("embedded", "embedded PostgreSQL 18")
            assert database.embedded
            connection = await asyncpg.connect(database.dsn)
            await connection.close()
        assert not (directory / "postgresql-18/data/postmaster.pid").exists()
    begun = [text for text in told if text not in slow]
    assert begun == ["creating the embedded database", "starting PostgreSQL 18", "starting PostgreSQL 18"]


def test_a_configured_database_starts_nothing(directory: Path) -> None:
    with open_database("postgresql://u@h/d", {"ESX_DATA_DIR": str(directory)}) as database:
        assert database == Database("postgresql://u@h/d", "--dsn", "u@h/d", embedded=False)
    assert not list(directory.iterdir())


def test_an_embedded_database_that_cannot_start(directory: Path) -> None:
    (directory / "file").touch()
    with (
        pytest.raises(EmbeddedFailed, match="Not a directory"),
        open_database(None, {"ESX_DATA_DIR": str(directory / "file")}),
    ):
        pass
