"""Data directories of servers: initdb makes one a version for all processes of pytest, and each server gets a copy.

Also what the system identifier says is copied. So tests that compare servers make one of them by initdb.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from uuid import uuid4

from esx.embedded import EmbeddedServer
from esx.eventstore import EventStore
from tests.support.connections import connected

TEMPLATE = "esx_template"
"""A database with the schema, in each copy."""
_HOME = "ESX_TEST_CLUSTERS"


def choose_home() -> None:
    """Choose where the originals are to be, for this process and those that it starts."""
    os.environ[_HOME] = str(Path(tempfile.gettempdir()) / f"esx-origin-{uuid4().hex[:8]}")


def remove_home() -> None:
    """Remove the originals."""
    shutil.rmtree(os.environ[_HOME], ignore_errors=True)


async def copy_cluster(directory: Path, version: int, settings: str = "") -> None:
    """Make the data of an embedded server in that directory, from which none has been started yet."""
    original = await _original(version)
    subprocess.run(["cp", "-a", original, directory], check=True, capture_output=True)
    with (directory / original.name / "data" / "postgresql.conf").open("a") as file:
        file.write(settings)


async def _original(version: int) -> Path:
    home = Path(os.environ[_HOME])
    home.mkdir(exist_ok=True, mode=0o711)
    original = home / f"postgresql-{version}"
    with (home / f"lock-{version}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not original.exists():
            # Made elsewhere, so that it is there as a whole or not at all.
            with tempfile.TemporaryDirectory(dir=home) as beside:
                with EmbeddedServer.start(Path(beside), version=version) as server:
                    async with connected(server.dsn_for("postgres")) as connection:
                        await connection.execute(f"CREATE DATABASE {TEMPLATE}")
                    async with EventStore.connect(server.dsn_for(TEMPLATE)) as store:
                        await store.init()
                (Path(beside) / original.name).rename(original)
    return original
