"""TLS as libpq does it: who is trusted, what is sent, and which files must be there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio

from esx.errors import StoreUnavailable
from esx.eventstore import EventStore
from tests.libpq.tlsgate import TlsGate, make_certificates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make certificates with")
psycopg = pytest.importorskip("psycopg", reason="psycopg, which has libpq, is not installed: pip install -e '.[dev]'")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    make_certificates(directory)
    return directory


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest_asyncio.fixture
async def gate(dsn18: str, files: Path) -> AsyncIterator[TlsGate]:
    directory = Path(parse_qs(urlsplit(dsn18).query)["host"][0])
    made = TlsGate(directory / ".s.PGSQL.5432", files)
    yield made
    made.close()


def address(gate: TlsGate, dsn: str, *more: str, host: str = "localhost") -> str:
    database = urlsplit(dsn).path.strip("/")
    return " ".join([f"host={host} hostaddr=127.0.0.1 port={gate.port} user=postgres dbname={database}", *more])


async def outcome_of_esx(address: str) -> str | None:
    try:
        async with EventStore.connect(address) as store:
            await store.head()
    except StoreUnavailable as error:
        text = str(error)
    else:
        return None
    assert "\n" not in text
    assert "Errno" not in text
    return text


def outcome_of_libpq(address: str) -> str | None:
    try:
        with psycopg.connect(address) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError as error:
        return str(error)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])
@pytest.mark.parametrize("host", ["db.test", "wrong.test"])
@pytest.mark.parametrize("root", [None, "ca", "other"])
async def test_both_trust_the_same_servers(
    mode: str, host: str, root: str | None, dsn18: str, gate: TlsGate, files: Path
) -> None:
    more = [f"sslmode={mode}", *([f"sslrootcert={files}/{root}.crt"] if root else [])]
    written = address(gate, dsn18, *more, host=host)
    theirs = outcome_of_libpq(written)
    their_use, gate.used = gate.used, []
    ours = await outcome_of_esx(written)
    assert (ours is None) == (theirs is None), (ours, theirs)
    # Where libpq would rather have it but does not trust the server, esx trusts it as it would trust one without TLS.
    if ours is None and not (mode == "prefer" and root == "other"):
        assert gate.used[0] == their_use[0]


async def test_the_name_of_the_host_is_what_must_answer(dsn18: str, gate: TlsGate, files: Path) -> None:
    written = address(gate, dsn18, "sslmode=verify-full", f"sslrootcert={files}/ca.crt", host="db.test")
    assert await outcome_of_esx(written) is None
    assert set(gate.names) == {"db.test"}


@pytest.mark.parametrize("environ", [{}, {"PGSSLNEGOTIATION": "direct"}])
async def test_a_certificate_of_ones_own(
    environ: dict[str, str], dsn18: str, gate: TlsGate, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (environ | {"PGSSLCERT": f"{files}/client.crt", "PGSSLKEY": f"{files}/client.key"}).items():
        monkeypatch.setenv(name, value)
    assert await outcome_of_esx(address(gate, dsn18, "sslmode=require")) is None
    assert set(gate.clients) == {"client"}
    gate.clients.clear()
    assert await outcome_of_esx(address(gate, dsn18, "sslmode=require sslcertmode=disable")) is None
    assert set(gate.clients) == {None}


@pytest.mark.parametrize(("crl", "trusted"), [("good", True), ("revoked", False)])
async def test_a_list_of_what_is_revoked(crl: str, trusted: bool, dsn18: str, gate: TlsGate, files: Path) -> None:
    written = address(
        gate, dsn18, "sslmode=verify-ca", f"sslrootcert={files}/ca.crt", f"sslcrl={files}/{crl}.crl"
    )  # fmt: skip
    assert (outcome_of_libpq(written) is None) == trusted
    assert (await outcome_of_esx(written) is None) == trusted


async def test_the_certificates_of_the_system(
    dsn18: str, gate: TlsGate, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The variable is OpenSSL's own.
    monkeypatch.setenv("SSL_CERT_FILE", f"{files}/ca.crt")
    system = "sslrootcert=system"
    assert await outcome_of_esx(address(gate, dsn18, system)) is None
    assert gate.used[0]
    assert "wrong.test" in str(await outcome_of_esx(address(gate, dsn18, system, host="wrong.test")))
    monkeypatch.setenv("SSL_CERT_FILE", f"{files}/other.crt")
    assert "certificate" in str(await outcome_of_esx(address(gate, dsn18, system)))
    weak = address(gate, dsn18, system, "sslmode=require")
    assert "weak" in str(outcome_of_libpq(weak))
    assert "is require, which is too weak for sslrootcert=system: use sslmode=verify-full" in str(
        await outcome_of_esx(weak)
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "sslmode=verify-full",
            "sslmode is verify-full, but root certificate {home}/.postgresql/root.crt is not there",
        ),
        (
            "sslmode=verify-ca sslrootcert=/nowhere/r",
            "sslrootcert names /nowhere/r, which cannot be read: No such file",
        ),
        ("sslmode=require sslrootcert=/nowhere/r", "sslrootcert names /nowhere/r, which cannot be read: No such file"),
        ("sslcert=/nowhere/c", "sslcert names /nowhere/c, which cannot be read: No such file"),
        ("sslcert={files}/client.crt sslkey=/nowhere/k", "sslkey names /nowhere/k, which cannot be read: No such file"),
        ("sslcert={files}/client.crt", "certificate {files}/client.crt has no private key: name its file with sslkey"),
        ("sslcert={files}/client.crt sslkey={files}/open.key", "has group or world access: chmod 0600 it"),
        (
            "sslcert={files}/ca.crt sslkey={files}/client.key sslmode=require",
            "{files}/ca.crt cannot be used: KEY_VALUES",
        ),
        (
            "sslmode=verify-ca sslrootcert={files}/ca.crt sslcrl=/nowhere/l",
            "sslcrl names /nowhere/l, which cannot be read: No such file",
        ),
        ("sslmode=verify-ca sslrootcert={files}/ca.crt sslcrldir=/nowhere/l", "/nowhere/l, which is no directory"),
        ("sslmode=verify-ca sslrootcert={files}/server.ext", "sslrootcert {files}/server.ext cannot be used: "),
        ("sslmode=prefer sslnegotiation=direct", "sslmode=prefer is too weak: use sslmode=require"),
    ],
)
async def test_files_that_are_not_fit(
    more: str, message: str, dsn18: str, gate: TlsGate, files: Path, home: Path
) -> None:
    shutil.copy(files / "client.key", files / "open.key")
    (files / "open.key").chmod(0o644)
    text = str(await outcome_of_esx(address(gate, dsn18, more.format(files=files))))
    assert message.format(files=files, home=home) in text
    assert gate.used == []


async def test_variables_name_themselves(dsn18: str, gate: TlsGate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLROOTCERT", "/nowhere/r")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    text = str(await outcome_of_esx(address(gate, dsn18)))
    assert text.startswith("PGSSLROOTCERT names /nowhere/r, which cannot be read: ")


async def test_a_socket_needs_no_certificate(dsn18: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    written = dsn18.replace("&sslmode=disable", "")
    assert outcome_of_libpq(written) is None
    assert await outcome_of_esx(written) is None
