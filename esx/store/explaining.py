"""What PostgreSQL's planner makes of a query that is not run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from esx.store.careful import with_bytes

if TYPE_CHECKING:
    import asyncpg


async def explain(connection: asyncpg.Connection, query: str, *arguments: Any) -> dict[str, Any]:
    """Return PostgreSQL's plan for a query, which is not run."""
    query, given = await with_bytes(connection, query, arguments)
    text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {query}", *given)
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan
