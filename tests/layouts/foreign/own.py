"""A home-made store, with columns unlike those of any tool, and the layout that describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esx.config import load
from tests.layouts.foreign.fixtures import TABLES_HERE

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from esx.layouts.foreign.own import OwnLayout

LAYOUT = """
[layouts.shop]
title = "the shop"
relation = "shop.log"
global_seq = "no"
stream_id = ["tenant", "subject"]
separator = ":"
stream_seq = "n"
event_type = "w.word"
data = "body"
metadata = "about"
created_at = "happened"
event_id = "ref"
first = 1
joins = "JOIN shop.words w ON w.id = r.what"
where = "NOT r.hidden"
"""
TABLES = """
CREATE SCHEMA shop;
CREATE TABLE shop.words (id smallint PRIMARY KEY, word text NOT NULL);
CREATE TABLE shop.log (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant text COLLATE "C" NOT NULL, subject uuid NOT NULL,
    n int NOT NULL, what smallint NOT NULL, body bytea NOT NULL, about text, happened text, ref text,
    hidden bool NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX of_subject ON shop.log (tenant, subject, n);
INSERT INTO shop.words VALUES (1, 'Opened'), (2, 'Paid'), (3, 'Shut');
INSERT INTO shop.log (tenant, subject, n, what, body, about, happened, ref)
SELECT 't' || s / 3, ('0000000' || s || '-0000-4000-8000-000000000000')::uuid, n, 1 + n % 3,
       convert_to('{"n": ' || n || '.50}', 'UTF8'), CASE WHEN n = 2 THEN NULL ELSE '{"correlation_id": "c"}' END,
       CASE WHEN n = 3 AND s = 4 THEN 'at noon or so'
            ELSE to_char(timestamp '2026-01-02 03:04:05' + n * interval '1 minute', 'YYYY-MM-DD"T"HH24:MI:SS') END,
       CASE WHEN n <> 4 THEN '0000000' || s || '-0000-4000-8000-00000000000' || n % 10 ELSE 'none' END
FROM generate_series(1, 8) n CROSS JOIN generate_series(0, 5) s ORDER BY n, s;
INSERT INTO shop.log (tenant, subject, n, what, body, hidden)
VALUES ('hidden', gen_random_uuid(), 1, 1, '\\x00', true);
"""


async def make(connection: asyncpg.Connection) -> None:
    """Make the store: 6 streams of 8 events each, and a row that is none."""
    await connection.execute(TABLES)
    await connection.execute(f"ANALYZE {await connection.fetchval(TABLES_HERE)}")


def facts() -> dict[str, Any]:
    """Return what a reader must find, as the fixtures of other stores say it."""
    streams = {
        f"t{s // 3}:0000000{s}-0000-4000-8000-000000000000": {
            "events": 8,
            "first_version": 1,
            "last_version": 8,
            "last_type": "Shut",
        }
        for s in range(6)
    }
    first = next(iter(streams))
    return {
        "events": 48,
        "streams": 6,
        "global": {"first": 1, "last": 48},
        "types": {"Opened": 12, "Paid": 18, "Shut": 18},
        "named_streams": streams,
        "named_events": [
            {
                "global": 1,
                "stream": first,
                "version": 1,
                "type": "Paid",
                "data": {"n": 1.5},
                "metadata": {"correlation_id": "c"},
                "correlation_id": "c",
                "causation_id": None,
                "at": "2026-01-02T03:05:05.000000Z",
                "event_id": "00000000-0000-4000-8000-000000000001",
            },
            {
                "global": 17,
                "stream": "t1:00000004-0000-4000-8000-000000000000",
                "version": 3,
                "type": "Opened",
                "data": {"n": 3.5},
                "metadata": {"correlation_id": "c"},
                "correlation_id": "c",
                "causation_id": None,
                "at": None,
                "event_id": "00000004-0000-4000-8000-000000000003",
            },
        ],
    }


def layout_of(config: Path, *changes: tuple[str, str]) -> OwnLayout:
    """Write the layout, with changes, to the config file, and return it."""
    text = LAYOUT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    return load().layouts[0]
