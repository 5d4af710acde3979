"""No part of a password is shown, or asked of the DNS, however it is written."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from esx.config import Connection
from esx.database_choice import BadDatabase, choose, configured, place, without_secrets
from esx.errors import StoreUnavailable
from esx.eventstore import EventStore
from esx.libpq.address import Odd, parse, without_password
from esx.libpq.parameters import BadParameter
from esx.libpq.target import resolve_dsn
from esx.postgres.connection import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

NOWHERE = {"HOME": "/nowhere"}
# Parts that nothing else holds, between characters that mean something in an address.
_PARTS = ("qzx", "1234", "Zxq")
_PASSWORD = st.lists(
    st.one_of(st.sampled_from(_PARTS), st.sampled_from("/?#@:%[]&=+,;'\"\\ .-"), st.just("%2F"), st.just("@h:5/")),
    min_size=1,
    max_size=9,
).map("".join)
_FORMS = (
    "postgresql://u:{}@host/x",
    "postgresql://u:{}@host:5432/x?sslmode=require",
    "postgresql://u:{}@/x?host=/tmp",
    "postgresql://:{}@host",
    "postgresql://u:{}@a,b:6/x",
    "postgresql://u:{}@[::1]/x",
    "postgresql+asyncpg://u:{}@host/x",
    "postgresql://u@host/x?password={}",
    "postgresql://u@host/x?password={}&sslmode=prefer",
    "postgresql://host/x?user=u&password={}&application_name=me",
    "postgresql://u@host/x?sslpassword={}",
    "mysql://u:{}@host/x",
    "postgresql:/u:{}@host/x",
    "postgresql:u:{}@host/x",
    "u:{}@host/x",
    "//u:{}@host/x",
    "host=host user=u password={}",
    "password={} host=host user=u",
    "host=host password='{}' user=u",
    "host=host sslpassword='{}'",
    "Server=host;Password={};",
)


def leaked(text: str, password: str) -> list[str]:
    """Return the parts of the password that are in the text."""
    return [part for part in _PARTS if part in password and part in text]


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(_FORMS), _PASSWORD)
@example("u:{}@host/x", "//qzx")
@example("postgresql://u:{}@host/x", "qzx@Zxq/x")
@example("postgresql://u:{}@host/x", "qzx?Zxq=1234")
@example("postgresql://u:{}@host/x", "qzx@Zxq?x=1234")
@example("postgresql://u@host/x?password={}", "qzx&Zxq=1234")
def test_no_part_of_a_password_is_shown_or_looked_up(form: str, password: str) -> None:
    written = form.format(password)
    shown = [repr(Connection("c", written)), without_password(written), place(written), describe(written)]
    try:
        database = choose(written, NOWHERE)
    except BadDatabase as error:
        shown.append(str(error))
    else:
        assert database.dsn is not None
        shown += [database.label, repr(database), without_secrets(database.dsn), describe(database.dsn)]
        target = resolve_dsn(database.dsn, NOWHERE)
        assert target.hosts
        shown += [repr(target), *(host.goes_to for host in target.hosts), target.database, target.user]
        assert target.settings.keys() <= {"application_name"}
    for environ in ({"DATABASE_URL": written}, {"ESX_DSN": written}):
        try:
            shown.append(choose(None, NOWHERE | environ).label)
        except BadDatabase as error:
            shown.append(str(error))
    try:
        shown.append(configured(Connection("c", written), NOWHERE).label)
    except BadDatabase as error:
        shown.append(str(error))
    for text in shown:
        assert leaked(text, password) == [], text


@pytest.mark.parametrize(
    "written",
    [
        "postgresql://u:PASS@ER2/x@host/x",
        "postgresql://u:PASS/ER2@host/x",
        "postgresql://u:PASS?ER2@host/x",
        "postgresql://u:12/ER2@host/x",
        "postgresql://u:PASS@ER2?x=ER2@host/x",
        "postgresql://u:PASS#ER2@host/x",
        "postgresql://u:PASS%ER2@host/x",
        "postgresql://u:PASS ER2@host/x",
        "postgresql://u:PASSER2",
        "postgresql://h/x?password=PASS&ER2=1",
        "password=PASS ER2 host=h",
        "host=h password=PASS ER2=x",
    ],
)
async def test_nothing_is_looked_up(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    async def look_up(_loop: object, host: object, *_: object, **__: object) -> Sequence[Any]:
        asked.append(host)
        raise OSError("no such host")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
    with pytest.raises(BadDatabase) as refused:
        choose(written, NOWHERE)
    with pytest.raises(StoreUnavailable) as unavailable:
        await EventStore.connect(written)
    assert asked == []
    for caught in (refused, unavailable):
        assert not re.search("PASS|ER2", str(caught.value).replace("PASSWORD", ""))


@pytest.mark.parametrize(
    "variable", ["PGDATABASE", "PGHOST", "PGHOSTADDR", "PGUSER", "PGPORT", "PGSSLMODE", "PGSSLCERT"]
)
def test_variables_that_hold_an_address_show_nothing_of_it(variable: str) -> None:
    environ = NOWHERE | {"PGHOST": "h", variable: "postgresql://u:PASS@ER2/x@host/x"}
    with pytest.raises(BadDatabase) as caught:
        choose(None, environ)
    assert variable in str(caught.value)
    assert variable == "PGSSLCERT" or not re.search("PASS|ER2", str(caught.value))


@pytest.mark.parametrize("written", ["postgresql://u:a@b@h", "postgresql://u:a@b:c@h1,h2/d"])
def test_an_at_sign_that_can_be_told_is_a_part_of_the_password(written: str) -> None:
    assert parse(written)["password"] == written.removeprefix("postgresql://u:").rpartition("@")[0]


@pytest.mark.parametrize("host", ["a b", "@abstract", "a/b", "h?x", "h'", "a\nb", "user:pw@h"])
def test_a_host_that_cannot_be_one(host: str) -> None:
    with pytest.raises((Odd, BadParameter)):
        resolve_dsn(f"host='{host}'".replace("h''", "h\\''"), NOWHERE)
