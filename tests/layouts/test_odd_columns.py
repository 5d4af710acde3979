"""Columns of other types: one value that cannot be looked into must not hide all the others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx.eventstore import EventStore
from esx.layouts.detection import detect_layout
from esx.postgres.values import json_text
from esx.store.bulk.erase import Mark
from esx.store.feed.comparison import compare
from tests.cli.support import esx, ndjson, one_line_error
from tests.support.oddities import SQL_ASCII, database

if TYPE_CHECKING:
    from esx.embedded import EmbeddedServer

pytestmark = pytest.mark.slow

_JSON = (
    "DROP INDEX events_correlation_id_idx; ALTER TABLE events ALTER data TYPE json, ALTER metadata TYPE json;"
    "INSERT INTO events (stream_id, stream_seq, event_type, data, metadata) VALUES "
)
_BAD = {"a NUL": r"\u0000", "half a character": r"\ud800", "the other half": r"\uDE00", "as a name": r"\u0000\\"}
_GOOD = r"\ud83d\ude00 \\u0000 \\ud800"


def _rows(bad: str) -> str:
    """Return events 1 to 5 of one stream: the middle ones hold what cannot be looked into."""
    common = '"correlation_id": "c", "run": "7"'
    return ", ".join(
        f"('load-1', {n}, 'T', '{data}', '{metadata}')"
        for n, (data, metadata) in enumerate(
            [
                ('{"n": 1}', f"{{{common}}}"),
                (f'{{"n": 1, "x": "{bad}"}}', f"{{{common}}}"),
                ('{"n": 1}', f'{{{common}, "x": "{bad}"}}'),
                (f'{{"{bad}": 2, "n": 1}}', f'{{{common}, "{bad}": [1]}}'),
                (f'{{"n": 1, "x": "{_GOOD}"}}', f'{{{common}, "x": "{_GOOD}"}}'),
            ]
        )
    )


@pytest.mark.parametrize("bad", _BAD.values(), ids=_BAD.keys())
async def test_json_that_is_no_text_hides_nothing_else(bad: str, dsn18: str, sql18: asyncpg.Connection) -> None:
    await sql18.execute(_JSON + _rows(bad))
    every = [1, 2, 3, 4, 5]

    def numbers(*command: str) -> list[int]:
        done = esx(*command, "--json", "-d", dsn18)
        assert done.returncode == 0, done.stderr
        return [event["global_seq"] for event in ndjson(done.stdout)]

    assert numbers("trail", "c") == numbers("trail", "1") == numbers("trail", "3") == every
    # By the operator, by the function, over the metadata, and over both.
    for where in ("$.n == 1", "$.n", '$metadata.run == "7"', '$.n == 1 && $metadata.run == "7"'):
        assert numbers("read", "$all", "--where", where) == every, where
    for where in ("$.n == 1", '$metadata.run == "7"'):
        assert numbers("tail", "--no-follow", "--from", "0", "--where", where) == every, where
        exported = ndjson(esx("export", "--where", where, "-d", dsn18).stdout)
        assert [event["global_seq"] for event in exported] == every, where
    assert numbers("read", "$all", "--where", '$.x == "\U0001f600 \\\\u0000 \\\\ud800"') == [5]
    async with EventStore.connect(dsn18) as store:
        assert (await store.marked("load-", Mark("run", "7"))).events == 5


async def test_an_escape_that_the_database_has_no_character_for(server: EmbeddedServer) -> None:
    async with database(server, SQL_ASCII.name) as dsn:
        connection = await asyncpg.connect(dsn)
        await connection.execute(_JSON + _rows(r"\u20ac"))
        await connection.close()
        done = esx("trail", "c", "--json", "-d", dsn)
        assert [event["global_seq"] for event in ndjson(done.stdout)] == [1, 2, 3, 4, 5], done.stderr
        done = esx("read", "$all", "--where", "$.n == 1", "--json", "-d", dsn)
        assert [event["global_seq"] for event in ndjson(done.stdout)] == [1, 2, 3, 4, 5], done.stderr


@pytest.mark.parametrize(
    ("escaped", "meant"),
    [
        (r"\u0000", "\ufffd"),
        (r"a\ud800b", "a\ufffdb"),
        (r"\udc00", "\ufffd"),
        (r"\ud800\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\ud83d\ude00\ude00", "\U0001f600\ufffd"),
        (r"\ude00\ud83d", "\ufffd\ufffd"),
        (r"\\u0000", r"\u0000"),
        (r"\\\u0000", "\\\ufffd"),
        (r"\\ud83d\ude00", "\\ud83d\ufffd"),
        (r"\n\"\/\u00e9\u0001", '\n"/é\x01'),
    ],
)
async def test_what_is_read_of_such_json(escaped: str, meant: str, sql: asyncpg.Connection) -> None:
    read = f"SELECT ({json_text('given')})::jsonb ->> 'x' FROM (SELECT $1::text::json AS given) v"
    assert await sql.fetchval(read, f'{{"x": "{escaped}", "y": 1}}') == meant


_TYPES = {
    "text": "ALTER TABLE events ALTER created_at DROP DEFAULT, ALTER created_at TYPE text",
    "numbers": (
        "ALTER TABLE events ALTER created_at DROP DEFAULT, "
        "ALTER created_at TYPE bigint USING extract(epoch FROM created_at)"
    ),
}


@pytest.mark.parametrize("unique", [True, False], ids=["by the index", "by sorting"])
@pytest.mark.parametrize("change", _TYPES.values(), ids=_TYPES.keys())
async def test_a_time_that_is_none_keeps_nothing_from_being_looked_at(
    change: str, unique: bool, dsn18: str, sql18: asyncpg.Connection
) -> None:
    await sql18.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 0, 'T', '{}'), ('s', 1, 'T', '{}');"
        f"INSERT INTO projections (name) VALUES ('p'); {change}"
    )
    if not unique:
        await sql18.execute("ALTER TABLE events DROP CONSTRAINT events_stream_id_stream_seq_key")
    [health] = ndjson(esx("health", "--json", "-d", dsn18).stdout)
    assert health["head"] == 2
    assert [(each["name"], each["lag"]) for each in health["projections"]] == [("p", 2)]
    async with EventStore.connect(dsn18) as store:
        [status] = await store.projections()
        assert (status.lag, status.lag_seconds) == (2, None)
        feed = await store.feed()
        assert [e.global_seq async for batch in feed.to_safe_position() for e in batch.events] == [1, 2]
        assert feed.history is not None
        assert await compare(sql18, await detect_layout(sql18), feed.history, 2) is None
        again = await store.feed(after=2)
        assert [batch.events async for batch in again.to_safe_position()] in ([], [[]])
    done = esx("doctor", "--full", "--json", "-d", dsn18)
    found = {finding["check"]: finding for finding in ndjson(done.stdout)}
    assert (done.returncode, done.stderr) == (1, "")
    assert (found["columns"]["severity"], found["created-at"]["severity"]) == ("error", "ok")
    assert found["stream-seq"]["severity"] == "ok"
    for command in (["read", "$all", "--since", "2020-01-01"], ["state", "s", "--at", "2020-01-01T00:00:00Z"]):
        line = one_line_error(esx(*command, "-d", dsn18), 2)
        assert "holds no times to find an event by: `esx doctor` names the remedy" in line


async def test_a_missing_time_is_found_where_times_are_none(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute(
        f"{_TYPES['text']}; ALTER TABLE events ALTER created_at DROP NOT NULL;"
        "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 0, 'T', '{}')"
    )
    async with EventStore.connect(dsn) as store:
        [finding] = [each for each in await store.doctor(full=True) if each.check == "created-at"]
    assert json.loads(finding.to_json())["message"] == "1 event has no created_at: s@0"
    assert finding.severity.wrong
    assert finding.remedy == ()
