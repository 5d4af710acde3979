"""The config file, as the commands use it."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from esx.cli.config import EXAMPLE
from esx.config import BadConfig, Connection, load
from esx.database_choice import UnknownConnection, choose
from esx.eventstore import EventStore
from esx.model import NewEvent
from tests.cli.support import esx, ndjson, one_line_error

if TYPE_CHECKING:
    from pathlib import Path


def write(directory: Path, text: str) -> Path:
    path = directory / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        ("them = 'nord'", "them ", "theme"),
        ("theme = 3", "theme", '"..."'),
        ("time_zone = 'Europe/Atlantis'", "time_zone", "Europe/Berlin"),
        ("time_zone = '../../etc/passwd'", "time_zone", "UTC"),
        ("statement_timeout = 'soon'", "statement_timeout", "30s"),
        ("statement_timeout = true", "statement_timeout", "seconds"),
        ("reducer = 'fold'", "reducer", "module:function"),
        ("fields = 3", "fields", "[fields]"),
        ("[fields]\ncorrelation = [1]", "fields.correlation", "list of names"),
        ("[keymap]\nstreams.filter = 'f'", "keymap.streams", "quotes"),
        ("[keymap]\n'streams.filter' = ''", "keymap.streams.filter", "key"),
        ("[connections.a]\nuser = 'x'", "connections.a.user", "dsn"),
        ("[connections.a]\nread_only = true", "connections.a has no dsn", "postgresql://"),
        ("[connections.a]\ndsn = 'x'\nread_only = 'yes'", "connections.a.read_only", "true or false"),
        ("[connections.'a b']\ndsn = 'x'", "connections.a b", "letters"),
        ("theme = ?", "is not TOML", "line 1"),
    ],
)
def test_a_bad_setting_is_named_with_its_remedy(tmp_path: Path, text: str, key: str, remedy: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(BadConfig) as error:
        load({"ESX_CONFIG": str(path)})
    line = str(error.value)
    assert line.startswith(str(path))
    assert key in line
    assert remedy in line
    assert "\n" not in line


def test_the_settings(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "time_zone = 'Asia/Tokyo'\nstatement_timeout = '500ms'\nfields.causation = 'cause'\n"
        "[keymap]\n'streams.filter' = 'f, ctrl+f'\n"
        "[connections.shop]\ndsn = 'host=h dbname=d'\nread_only = true\nstatement_timeout = '2m'\n",
    )
    config = load({"ESX_CONFIG": str(path)})
    assert str(config.zone) == "Asia/Tokyo"
    assert config.statement_timeout == 0.5
    assert config.fields.causation == ("cause",)
    assert "$correlationId" in config.fields.correlation
    assert config.keymap == {"streams.filter": "f,ctrl+f"}
    assert config.connections == {"shop": Connection("shop", "host=h dbname=d", None, True, 120.0)}


def test_where_the_file_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    environ = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "settings")}
    shown = esx("config", **environ)
    assert shown.stdout.startswith(f"# {home}")
    assert "these are the defaults" in shown.stdout
    line = one_line_error(esx("streams", ESX_CONFIG=str(tmp_path / "none.toml")), 2)
    assert "ESX_CONFIG" in line
    assert "esx config --example" in line


def test_the_example_is_a_config_file(tmp_path: Path) -> None:
    assert esx("config", "--example").stdout == EXAMPLE
    # What is commented out must hold as well.
    path = write(tmp_path, re.sub(r'^# ((?:[\w"].*) = (?:"|\[).*)$', r"\1", EXAMPLE, flags=re.MULTILINE))
    config = load({"ESX_CONFIG": str(path)})
    assert config.fields.correlation == ("correlation_id",)
    assert config.connections["shop"].password_env == "SHOP_PASSWORD"


@pytest.mark.slow
def test_passwords_are_never_shown(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "[connections.a]\ndsn = 'postgresql://me:hunter2@127.0.0.1:1/x'\n"
        "[connections.b]\ndsn = 'host=127.0.0.1 port=1 password=hunter2'\n"
        "[connections.c]\ndsn = 'postgresql://127.0.0.1:1/x'\npassword_env = 'P'\n"
        "[connections.d]\ndsn = 'mysql://me:hunter2@h/x'\n",
    )
    environ = {"ESX_CONFIG": str(path), "P": "hunter2"}
    shown = esx("config", ESX_DSN="a", **environ).stdout
    assert set(tomllib.loads(shown)["connections"]) == {"a", "b", "c", "d"}
    everything = shown
    for name in "abcd":
        # That the last one is not PostgreSQL shows without connecting.
        everything += one_line_error(esx("streams", "-d", name, **environ), 2 if name == "d" else 1)
    assert "hunter2" not in everything
    assert "me:***@127.0.0.1" in everything
    del environ["P"]
    assert "P, which is not set" in one_line_error(esx("streams", "-d", "c", **environ), 2)


def test_which_names_are_connections(tmp_path: Path) -> None:
    config = load({"ESX_CONFIG": str(write(tmp_path, "[connections.shop]\ndsn = 'postgresql://h/shop'"))})
    assert choose("shop", {}, config).label == "shop (h/shop)"
    assert choose(None, {"ESX_DSN": "shop"}, config).name == "shop"
    assert choose("embedded", {"ESX_DSN": "shop"}, config).embedded
    assert choose("dbname=other", {}, config).dsn == "postgresql:///other"
    with pytest.raises(UnknownConnection, match="use one of shop, embedded, or dbname=sho "):
        choose("sho", {}, config)
    # Without connections a name is that of a local database, as it always was.
    assert choose("sho", {}, load({"ESX_CONFIG": str(write(tmp_path, ""))})).dsn == "postgresql:///sho"


@pytest.mark.slow
async def test_a_named_connection(tmp_path: Path, dsn18: str, store18: EventStore) -> None:
    await store18.append("s-1", [NewEvent("T")])
    path = write(
        tmp_path,
        f"time_zone = 'Asia/Kolkata'\nreducer = 'nowhere:fold'\n[connections.test]\ndsn = '{dsn18}'\nread_only = true\n"
        f"[connections.open]\ndsn = '{dsn18}'\npassword_env = 'P'\n",
    )
    environ = {"ESX_CONFIG": str(path), "P": "unused: the socket asks for none"}
    assert "+05:30" in esx("-d", "test", "read", "s-1", **environ).stdout
    [event] = ndjson(esx("read", "s-1", "--json", "-d", "test", **environ).stdout)
    assert event["created_at"].endswith("Z")
    assert "nowhere" in one_line_error(esx("state", "s-1", "-d", "test", **environ), 2)
    assert "read-only" in one_line_error(esx("append", "s-1", "T", "-d", "test", **environ), 1)
    assert "connection test is read_only" in one_line_error(esx("load", "-d", "test", **environ), 1)
    assert esx("append", "s-1", "T", "-d", "open", **environ).returncode == 0
    line = one_line_error(esx("streams", "-d", "tset", **environ), 2)
    assert "known" not in line
    assert "open, test, embedded" in line
    assert urlsplit(dsn18).scheme not in line


def test_what_does_not_need_the_config_file_does_not_read_it(tmp_path: Path) -> None:
    environ = {"ESX_CONFIG": str(write(tmp_path, "nonsense"))}
    assert esx("--version", **environ).returncode == 0
    assert esx("config", "--example", **environ).returncode == 0
