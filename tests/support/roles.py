"""A user of a database with no rights but those that a test gives it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Role:
    """A user whose name needs quoting."""

    def __init__(self, bare: str, admin: asyncpg.Connection) -> None:
        self.bare = bare
        self.name = f'"{bare}"'
        self._admin = admin

    def dsn(self, dsn: str) -> str:
        """Return the address with this user in it."""
        return dsn.replace("//postgres@", f"//{self.bare}@")

    async def grant(self, *rights: str) -> None:
        """Give it rights, e.g. ``SELECT ON events``."""
        for right in rights:
            await self._admin.execute(f"GRANT {right} TO {self.name}")


@contextlib.asynccontextmanager
async def new_role(dsn: str) -> AsyncIterator[Role]:
    """Make a user, and take it away again."""
    admin = await asyncpg.connect(dsn)
    role = Role(f"Guest-{uuid4().hex}", admin)
    await admin.execute(f"CREATE ROLE {role.name} LOGIN")
    try:
        yield role
    finally:
        await admin.execute(f"DROP OWNED BY {role.name}; DROP ROLE {role.name}")
        await admin.close()
