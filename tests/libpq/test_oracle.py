"""The installed libpq, asked by psycopg, as the judge of what a setting means."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esx.libpq.address import Odd, parse
from esx.libpq.parameters import BY_KEYWORD, PARAMETERS, VARIABLES, BadParameter
from esx.libpq.passfile import PasswordFile
from esx.libpq.target import gather, resolve_dsn

if TYPE_CHECKING:
    from collections.abc import Iterator

psycopg = pytest.importorskip("psycopg", reason="psycopg, which has libpq, is not installed: pip install -e '.[dev]'")
LIBPQ = [(each.keyword.decode(), each.envvar and each.envvar.decode()) for each in psycopg.pq.Conninfo.get_defaults()]


@pytest.mark.parametrize(("keyword", "variable"), LIBPQ)
def test_each_parameter_of_libpq_is_in_the_table(keyword: str, variable: str | None) -> None:
    known = BY_KEYWORD[keyword]
    assert variable in (None, known.variable)


def test_each_variable_that_the_library_reads_is_in_the_table() -> None:
    library = next(Path(psycopg.__file__).parents[1].glob("psycopg_binary.libs/libpq-*"))
    read = {name.decode() for name in re.findall(rb"\0(PG[A-Z_]{2,})(?=\0)", library.read_bytes())}
    known = {each.variable for each in PARAMETERS} | set(VARIABLES)
    assert {"PGHOST", "PGSYSCONFDIR"} <= read
    assert {name for name in read - known if not name.startswith("PGRES_")} == set()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a user's directory without anything in it, with no variable of libpq's set."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PGSYSCONFDIR", str(tmp_path / "etc"))
    (tmp_path / "etc").mkdir()
    return tmp_path


SERVICES = """
# a comment
[other]
host=elsewhere
[shop]
  host=db.example.com
port=6000
dbname=shop
dbname=second
user=keeper
password=a b:c
application_name=
options=-c geqo=off
[shop]
sslmode=require
"""


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"PGHOST": "h", "PGPORT": "7", "PGUSER": "u", "PGDATABASE": "d", "PGAPPNAME": "a", "PGOPTIONS": "-c geqo=off"},
        {"PGHOSTADDR": "10.0.0.1", "PGHOST": "h", "PGSSLMODE": "require", "PGCONNECT_TIMEOUT": "5"},
        {"PGSERVICE": "shop"},
        {"PGSERVICE": "shop", "PGDATABASE": "other", "PGUSER": "me", "PGSSLMODE": "allow"},
        {"PGSERVICE": "shop", "PGREQUIRESSL": "1"},
        {"PGREQUIRESSL": "1"},
        {"PGSSLROOTCERT": "system"},
    ],
)
@pytest.mark.parametrize("place", [".pg_service.conf", "etc/pg_service.conf", "named.conf"])
def test_the_environment_says_the_same_to_both(
    environ: dict[str, str], place: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / place).write_text(SERVICES)
    if place == "named.conf":
        monkeypatch.setenv("PGSERVICEFILE", str(home / place))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    theirs = {
        each.keyword.decode(): each.val.decode()
        for each in psycopg.pq.Conninfo.get_defaults()
        if each.val is not None and each.val != each.compiled
    }
    ours = dict(gather({}, os.environ).values)
    ours.pop("servicefile", None)  # newer than some libpq
    # The user's name, and the mode that goes with the system's certificates, are found out elsewhere.
    theirs.pop("user" if "user" not in ours else "", None)
    if "sslrootcert" in ours:
        assert resolve_dsn(None, os.environ | {"PGHOST": "h"}).sslmode == theirs.pop("sslmode")
    if "dbname" not in ours:
        theirs.pop("dbname", None)
    assert ours == theirs | {key: "" for key in ours if ours[key] == "" and key not in theirs}


@pytest.mark.parametrize(
    ("lines", "number", "message"),
    [
        ("[shop]\nhost = h", 2, "no space before the ="),
        ("[shop]\nnonsense", 2, "no parameter of libpq's"),
        ("[shop]\n\nsecretword=s3cret", 3, "no parameter of libpq's"),
        ("[shop]\nservice=other", 2, "cannot name another"),
        ("[shop]\nldap://h/x", 2, "does not ask LDAP"),
    ],
)
def test_a_service_file_that_both_refuse(lines: str, number: int, message: str, home: Path) -> None:
    file = home / ".pg_service.conf"
    file.write_text(lines)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect("service=shop host=/nowhere")
    with pytest.raises(BadParameter) as caught:
        resolve_dsn("postgresql://?service=shop", os.environ)
    text = str(caught.value)
    assert text.startswith(f"service file {file}, line {number}: ")
    assert message in text
    assert "s3cret" not in text


def test_a_service_that_is_not_there(home: Path) -> None:
    with pytest.raises(psycopg.OperationalError, match="not found"):
        psycopg.connect("service=shop")
    with pytest.raises(BadParameter) as caught:
        resolve_dsn("service=shop", os.environ)
    assert str(caught.value).startswith(
        f"there is no service shop in {home}/.pg_service.conf, {home}/etc/pg_service.conf: "
    )
    with pytest.raises(BadParameter, match="service file /nowhere/x is not there: change PGSERVICEFILE"):
        resolve_dsn("service=shop", os.environ | {"PGSERVICEFILE": "/nowhere/x"})


@pytest.mark.parametrize(
    "written",
    [
        "postgresql://",
        "postgresql:///d",
        "postgresql://u:p%40%2F@h:5433/d?sslmode=require",
        "postgresql://[::1]:6/d",
        "postgresql://a:1,b/d",
        "postgresql://a,b/d",
        "postgresql://%2Frun%2Fpg/d?connect_timeout=3",
        "postgresql://u@/d?host=/tmp&password=a+b%2B",
        "postgres://u:p:q@h",
        "postgresql://h/?ssl=true",
        "user = u password='it\\'s \\\\' host=h",
        r"password=a\ b host=h",
        "host='' dbname=x",
        "host=a host=b",
        "host=h options='-c a=b'",
    ],
)
def test_addresses_mean_the_same_to_both(written: str) -> None:
    theirs = {
        each.keyword.decode(): each.val.decode()
        for each in psycopg.pq.Conninfo.parse(written.encode())
        if each.val is not None
    }
    assert parse(written) == theirs


# Fields that match, and some that nearly do.
_DATABASE = st.sampled_from(["*", "a", "\\a", "a\\", "**", "b", "", "#a"])
_USER = st.sampled_from(["*", "a", "a:b", "a\\:b", "a\\\\b", "\\*", "a\\b"])
_PASSWORD = st.text(st.sampled_from("ab:\\* #'"), max_size=6)


class Listener:
    """A server that asks for a password and keeps what it is told: what libpq found for it."""

    def __init__(self, directory: Path, port: int) -> None:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(directory / f".s.PGSQL.{port}"))
        self._listening.listen()
        self.heard: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            with peer:
                peer.recv(10_000)
                peer.sendall(b"R\0\0\0\x08\0\0\0\x03")  # a password, please
                told = peer.recv(10_000)
                self.heard.put(told[5:-1].decode() if told[:1] == b"p" else "")
                with contextlib.suppress(OSError):  # libpq without a password has gone
                    peer.sendall(b"E\0\0\0\x12SFATAL\0C28P01\0\0")

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(60)


@pytest.fixture
def listener(home: Path) -> Iterator[Listener]:
    made = Listener(home, 5432)
    yield made
    made.close()


@pytest.mark.parametrize("host", ["{home}", "*", "localhost", "{escaped}"])
def test_a_socket_directory_in_the_password_file(host: str, home: Path, listener: Listener) -> None:
    written = host.format(home=home, escaped=str(home).replace("/", r"\/"))
    (home / "file").write_text(f"{written}:*:d:u:one\n*:*:*:*:two\n")
    (home / "file").chmod(0o600)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"host={home} user=u dbname=d passfile={home / 'file'}")
    target = resolve_dsn(f"host={home} user=u dbname=d passfile='{home / 'file'}'", os.environ)
    assert target.hosts[0].password == listener.heard.get(timeout=60) == ("two" if host == "localhost" else "one")


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_DATABASE, _USER, _PASSWORD), max_size=3), st.sampled_from(["a", "a:b", "a\\b", "*"]))
def test_the_password_file_says_the_same_to_both(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], user: str
) -> None:
    home = tmp_path_factory.mktemp("p")
    listener = Listener(home, 5432)
    try:
        file = home / "file"
        file.write_text("".join(f"*:*:{database}:{name}:{password}\n" for database, name, password in rows))
        file.chmod(0o600)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(host=str(home), user=user, dbname="a", passfile=str(file))
        assert listener.heard.get(timeout=60) == (PasswordFile(file).password(str(home), 5432, "a", user) or "")
    finally:
        listener.close()


@given(st.text(st.sampled_from("ab =':/@?#%[]&,\\"), max_size=12))
def test_what_libpq_refuses_is_not_taken_for_something_else(text: str) -> None:
    for written in (f"postgresql://u:{text}@h/d", f"host=h password={text}"):
        try:
            ours = parse(written)
        except Odd:
            continue
        try:
            theirs = {
                each.keyword.decode(): each.val.decode()
                for each in psycopg.pq.Conninfo.parse(written.strip().encode())
                if each.val is not None
            }
        except (psycopg.OperationalError, UnicodeDecodeError):
            continue  # esx takes an unescaped @ for a part of the password
        if "@" not in text:
            assert ours == theirs
