"""What PostgreSQL's planner makes of a query that is not run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg


async def explain(connection: asyncpg.Connection, query: str, *arguments: Any) -> dict[str, Any]:
    """Return PostgreSQL's plan for a query, which is not run."""
    text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {query}", *arguments)
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan
