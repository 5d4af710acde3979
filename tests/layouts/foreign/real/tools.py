"""Other event stores themselves, where `.ci/writers` has installed them, each with a small program that writes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from platformdirs import user_cache_path

from tests.support.proxy import Proxy

INSTALLED = Path(os.environ.get("ESX_WRITERS") or user_cache_path("esx-writers", appauthor=False)).absolute()
"""The directory that was given to `.ci/writers`."""
_WRITERS = Path(__file__).parent / "writers"
_ROOT = _WRITERS.parents[4]


@dataclass(frozen=True)
class Tool:
    """A tool: the kind of its stores, what runs its writer, and what is there of it where it is installed."""

    kind: str
    runs: tuple[str, ...]
    part: str
    tags: bool = False
    """Whether it has tags instead of streams."""

    @property
    def absent(self) -> str | None:
        """Why its writer cannot run here."""
        if not any(INSTALLED.glob(self.part)):
            return f"{self.part} is not in {INSTALLED}: .ci/writers {INSTALLED}"
        return None if shutil.which(self.runs[0]) else f"there is no {self.runs[0]}"

    async def write(self, dsn: str) -> dict[str, Any]:
        """Let it write to the empty database at `dsn`, and return what it says that it refused and reads itself."""
        where = urlsplit(dsn)
        settings = {name: values[0] for name, values in parse_qs(where.query).items()}
        # Java knows no sockets with a path.
        relay = await asyncio.start_server(
            Proxy(f"{settings['host']}/.s.PGSQL.{settings['port']}").serve, host="127.0.0.1"
        )
        async with relay:
            writer = await asyncio.create_subprocess_exec(
                *self.runs,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=INSTALLED,  # some tools look there for a package.json
                env={
                    **os.environ,
                    "TZ": "UTC",
                    "ESX_WRITERS": str(INSTALLED),
                    "NODE_PATH": str(INSTALLED / "node_modules"),
                    "PYTHONPATH": f"{_ROOT}:{INSTALLED / 'python'}",
                    "DATABASE_URL": dsn,
                    "PGHOST": settings["host"],
                    "PGPORT": settings["port"],
                    "PGTCP": str(relay.sockets[0].getsockname()[1]),
                    "PGUSER": unquote(where.username or ""),
                    "PGDATABASE": unquote(where.path.removeprefix("/")),
                },
            )
            try:
                said, complaint = await writer.communicate()
            finally:
                if writer.returncode is None:
                    writer.kill()
        assert writer.returncode == 0, complaint.decode()
        told: dict[str, Any] = json.loads(said)
        return told


def _node(kind: str, package: str) -> Tool:
    return Tool(kind, ("node", str(_WRITERS / f"{kind}.cjs")), f"node_modules/{package}")


def _python(kind: str, part: str, *, tags: bool = False) -> Tool:
    return Tool(kind, (sys.executable, "-m", f"tests.layouts.foreign.real.writers.{kind}"), part, tags)


def _java(kind: str, program: str, part: str, *arguments: str) -> Tool:
    # A short program is done sooner without the second compiler.
    quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
    options = (*quick, "-Dfile.encoding=UTF-8", "-cp", str(INSTALLED / "java/*"))
    return Tool(kind, ("java", *options, str(_WRITERS / program), str(_WRITERS / "story.json"), *arguments), part)


def _rust(kind: str, *arguments: str) -> Tool:
    program = f"rust/target/debug/{kind}"
    return Tool(kind, (str(INSTALLED / program), str(_WRITERS / "story.json"), *arguments), program)


TOOLS = (
    _python("messagedb", "node_modules/@eventide/message-db"),
    _python("eventsourcing", "python/eventsourcing"),
    _python("eventsourcing_dcb", "python/eventsourcing/dcb", tags=True),
    _node("emmett", "@event-driven-io/emmett-postgresql"),
    _node("castore", "@castore/event-storage-adapter-postgres"),
    _node("act_pg", "@rotorsoft/act-pg"),
    _node("evtstore", "evtstore"),
    _node("acuris", "@acuris/eventstore-postgresql"),
    _java("axon_jdbc", "Axon.java", "java/axon-eventsourcing-*.jar", "jdbc"),
    _java("axon_jpa", "Axon.java", "java/hibernate-core-*.jar", "jpa"),
    _rust("cqrs_es", "rust/init.sql"),
)
