"""Message DB: installs it with the scripts of the npm package, in their order, and writes with its functions."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path
from uuid import uuid4

import asyncpg

from tests.layouts.foreign.real.writers.story import STORY, say

_DATABASE = Path(os.environ["ESX_WRITERS"]) / "node_modules/@eventide/message-db/database"
_INSTALLERS = ("install", "install-functions", "install-indexes", "install-views", "install-privileges")
# PostgreSQL's own gen_random_uuid does what this extension was for, and the server of the tests has no extensions.
_LEFT_OUT = "extensions/pgcrypto.sql"


async def main() -> None:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    for installer in _INSTALLERS:
        for script in re.findall(r"\$base/(\S+\.sql)", (_DATABASE / f"{installer}.sh").read_text()):
            if script != _LEFT_OUT:
                await connection.execute((_DATABASE / script).read_text())
    await connection.execute("SET search_path TO message_store, public")
    refused = 0
    last: dict[str, int] = {}
    for step in STORY:
        name = f"{step.category}-{step.id}"
        expected = last.get(name, -1) - step.stale
        for event in step.events:
            try:
                expected = await connection.fetchval(
                    "SELECT write_message($1, $2, $3, $4, $5, $6)",
                    str(uuid4()),
                    name,
                    event["type"],
                    json.dumps(event["data"]),
                    json.dumps(event["metadata"]),
                    expected,
                )
            except asyncpg.RaiseError:
                refused += 1
            else:
                last[name] = expected
    read = [
        row
        for category in sorted({step.category for step in STORY})
        for row in await connection.fetch("SELECT * FROM get_category_messages($1)", category)
    ]
    await connection.close()
    events = [
        {
            "stream": row["stream_name"],
            "version": row["position"],
            "global": row["global_position"],
            "id": row["id"],
            "type": row["type"],
            "data": json.loads(row["data"]),
            "metadata": json.loads(row["metadata"]),
            "at": f"{row['time'].isoformat()}Z",
        }
        for row in sorted(read, key=lambda row: int(row["global_position"]))
    ]
    say(refused, events)


asyncio.run(main())
