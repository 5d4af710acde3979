"""Each parameter does what the table says, wherever it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from esx.database_choice import BadDatabase, choose
from esx.libpq.parameters import BY_KEYWORD, FOREIGN, RENAMED, BadParameter, table
from esx.libpq.target import resolve, resolve_dsn

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"
NOWHERE = {"HOME": "/nowhere"}


def test_the_documentation_has_the_table() -> None:
    assert "\n".join(table()) in DOCS.read_text()


# A value that means something for each, and what becomes of it.
VALUES = {
    "service": None, "servicefile": None, "user": "u", "password": "p", "passfile": "/nowhere/p",
    "channel_binding": "prefer", "connect_timeout": "3", "dbname": "d", "host": "h", "hostaddr": "10.0.0.1",
    "port": "6", "client_encoding": "UTF8", "options": "-c geqo=off", "application_name": "a",
    "fallback_application_name": "f", "keepalives": "0", "keepalives_idle": "7", "keepalives_interval": "8",
    "keepalives_count": "9", "tcp_user_timeout": "10", "sslmode": "require", "sslnegotiation": "postgres",
    "sslcompression": "0", "sslcert": None, "sslkey": "/nowhere/k", "sslcertmode": "allow", "sslpassword": "q",
    "sslrootcert": None, "sslcrl": "/nowhere/crl", "sslcrldir": "/nowhere", "sslsni": "1", "requirepeer": "me",
    "require_auth": None, "min_protocol_version": "3.0", "max_protocol_version": "latest",
    "ssl_min_protocol_version": "TLSv1.3", "ssl_max_protocol_version": "tlsv1.3", "gssencmode": "disable",
    "krbsrvname": "k", "gsslib": "gssapi", "gssdelegation": "0", "replication": "false",
    "target_session_attrs": "read-write", "load_balance_hosts": "random", "scram_client_key": None,
    "scram_server_key": None, "oauth_issuer": None, "oauth_client_id": None, "oauth_client_secret": None,
    "oauth_scope": None, "oauth_ca_file": None, "sslkeylogfile": None,
}  # fmt: skip


def test_each_parameter_has_been_thought_of() -> None:
    assert set(VALUES) == set(BY_KEYWORD)


@pytest.mark.parametrize(("keyword", "value"), [item for item in VALUES.items() if item[1] is not None])
def test_what_is_honoured_is_the_same_by_variable_keyword_and_url(keyword: str, value: str) -> None:
    wanted = resolve({"host": "h", keyword: value}, NOWHERE)
    variable = BY_KEYWORD[keyword].variable
    if variable is not None:
        environ = NOWHERE | {"PGHOST": "h", variable: value}
        assert resolve({}, environ) == wanted
        assert choose(None, environ).source == "PG* variables"
    written = f"host=h {keyword}='{value}'" if keyword != "host" else "host=h"
    for text in (written, f"postgresql://?{written.replace(chr(39), '').replace(' ', '&', 1).replace(' ', '%20')}"):
        dsn = choose(text, NOWHERE).dsn
        assert dsn is not None
        assert resolve_dsn(dsn, NOWHERE) == wanted


REFUSED = [
    ("channel_binding", "require"), ("channel_binding", "sometimes"), ("client_encoding", "LATIN1"),
    ("options", "-c client_encoding=LATIN1"), ("options", "-c nonsense"), ("connect_timeout", "soon"),
    ("sslmode", "verify"), ("sslnegotiation", "direct"), ("sslcertmode", "require"), ("sslsni", "0"),
    ("require_auth", "scram-sha-256"), ("require_auth", "!password"), ("min_protocol_version", "3.2"),
    ("max_protocol_version", "2.0"), ("ssl_min_protocol_version", "SSLv3"), ("gssencmode", "require"),
    ("gssdelegation", "1"), ("replication", "database"), ("target_session_attrs", "fast"),
    ("load_balance_hosts", "fair"), ("scram_client_key", "c2VjcmV0"), ("scram_server_key", "c2VjcmV0"),
    ("oauth_issuer", "https://c2VjcmV0"), ("oauth_client_id", "c2VjcmV0"), ("oauth_client_secret", "c2VjcmV0"),
    ("oauth_scope", "c2VjcmV0"), ("oauth_ca_file", "c2VjcmV0"), ("sslkeylogfile", "c2VjcmV0"), ("keepalives", "x"),
    ("service", "c2VjcmV0x"), ("sslcert", "/nowhere/c"), ("sslrootcert", "/nowhere/r"), ("gsslib", "heimdal"),
]  # fmt: skip


@pytest.mark.parametrize(("keyword", "value"), REFUSED)
def test_what_is_refused_says_so_wherever_it_comes_from(keyword: str, value: str) -> None:
    more = {"sslmode": "require"} if keyword in ("sslcert", "sslrootcert") else {}
    variable = BY_KEYWORD[keyword].variable
    written = "".join(f" {key}='{each}'" for key, each in {keyword: value, **more}.items())
    tries: list[tuple[str | None, dict[str, str], str]] = [(f"host=h{written}", {}, keyword)]
    if variable is not None:
        tries.append((f"host=h{''.join(f' {key}={each}' for key, each in more.items())}", {variable: value}, variable))
        tries.append((None, {"PGHOST": "h", "PGSSLMODE": more.get("sslmode", ""), variable: value}, variable))
    for option, environ, name in tries:
        with pytest.raises(BadDatabase) as caught:
            choose(option, NOWHERE | environ)
        text = str(caught.value)
        assert name in text or keyword == "service"
        assert "\n" not in text
        assert "c2VjcmV0" not in text or keyword == "service"


def test_what_holds_for_sockets_alone_is_refused_there() -> None:
    with pytest.raises(BadParameter, match="PGREQUIREPEER cannot be honoured"):
        resolve({"host": "/run/pg"}, NOWHERE | {"PGREQUIREPEER": "postgres"})


@pytest.mark.parametrize(
    ("variable", "setting"), [("PGTZ", "timezone"), ("PGDATESTYLE", "datestyle"), ("PGGEQO", "geqo")]
)
def test_variables_that_are_settings(variable: str, setting: str) -> None:
    assert resolve({}, NOWHERE | {variable: "x"}).settings == {setting: "x"}
    assert resolve({}, NOWHERE | {variable: "default"}).settings == {}


@pytest.mark.parametrize(
    ("environ", "mode"),
    [
        ({"PGREQUIRESSL": "1"}, "require"),
        ({"PGREQUIRESSL": "0"}, "prefer"),
        ({"PGREQUIRESSL": "1", "PGSSLMODE": "allow"}, "allow"),
        ({"PGSSLROOTCERT": "system"}, "verify-full"),
    ],
)
def test_the_mode_of_tls(environ: dict[str, str], mode: str) -> None:
    assert resolve({"host": "h"}, NOWHERE | environ).sslmode == mode


@pytest.mark.parametrize("name", FOREIGN)
def test_parameters_of_other_drivers_mean_nothing(name: str) -> None:
    assert resolve({"host": "h", name: "true"}, NOWHERE) == resolve({"host": "h"}, NOWHERE)


@pytest.mark.parametrize("name", RENAMED)
def test_other_names_for_parameters(name: str) -> None:
    dsn = choose(f"postgresql://h/?{name}=disable", NOWHERE).dsn
    assert dsn in (f"postgresql://h?{RENAMED[name]}=disable", "postgresql://h/disable")
