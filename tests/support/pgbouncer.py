"""PgBouncer in transaction mode before a test's server, with so few sessions that its clients really share them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

needs_pgbouncer = pytest.mark.skipif(_PROGRAM is None, reason="pgbouncer is not installed")

_CONFIG = """
[databases]
* = host={server} port={port} user=postgres

[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {directory}
auth_type = any
pool_mode = {mode}
default_pool_size = {sessions}
server_round_robin = 1
max_client_conn = 200
logfile = {directory}/log
"""


@contextlib.asynccontextmanager
async def pooled(dsn: str, *, mode: str = "transaction", sessions: int = 3) -> AsyncIterator[str]:
    """Run PgBouncer before the server of `dsn` and yield the DSN of the same database through it."""
    assert _PROGRAM is not None
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    server = Path(query["host"][0])
    owner = server.stat()
    with tempfile.TemporaryDirectory(prefix="esx-pool-") as directory:
        config = Path(directory) / "pgbouncer.ini"
        config.write_text(
            _CONFIG.format(server=server, port=query["port"][0], directory=directory, mode=mode, sessions=sessions)
        )
        # It does not run as root, and only its owner may reach the server.
        root = os.geteuid() == 0
        if root:
            os.chown(directory, owner.st_uid, owner.st_gid)
            config.chmod(0o644)
        process = await asyncio.create_subprocess_exec(
            *(_PROGRAM, "-q", str(config)),
            user=owner.st_uid if root else None,
            group=owner.st_gid if root else None,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            address = dsn.replace(parts.query, f"host={directory}&port=6432&sslmode=disable")
            async with asyncio.timeout(120):
                while not await _answers(f"{directory}/.s.PGSQL.6432"):
                    assert process.returncode is None, Path(directory, "log").read_text()
                    await asyncio.sleep(0.01)
            yield address
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _answers(path: str) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True
