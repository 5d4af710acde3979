"""A logical subscriber: rows arrive in the order of commits, so nothing there is safe, and every way in says so."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest

from esx import EventStore, NewEvent, OrderUnknown
from esx.embedded import EmbeddedServer
from tests.cli.support import esx, one_line_error
from tests.support.clusters import copy_cluster
from tests.support.partitions import HASH, make

if TYPE_CHECKING:
    from collections.abc import Iterator


_DEADLINE = 120.0
_SUBSCRIBED = "is filled by logical replication"


@pytest.fixture(scope="module", params=[16, 18], ids=["pg16", "pg18"])
def logical(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """Yield a server whose log can be decoded."""
    directory = Path(tempfile.mkdtemp(prefix="esx-logical-"))
    try:
        asyncio.run(copy_cluster(directory, request.param, "wal_level = logical\nfsync = off\n"))
        with EmbeddedServer.start(directory, version=request.param) as server:
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


class Pair:
    """A publisher and its subscriber: two databases of one server. The slot is made beforehand, or both would wait."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._name = f"s{uuid4().hex}"
        self.publisher = server.dsn_for(f"{self._name}_pub")
        self.subscriber = server.dsn_for(f"{self._name}_sub")

    async def make(self, there: str, here: str, publication: str = "FOR TABLE events", options: str = "") -> None:
        """Make both tables, by `there` and by `here`, and what connects them."""
        await _execute(self._server.dsn, *(f"CREATE DATABASE {self._name}_{kind}" for kind in ("pub", "sub")))
        await make(self.publisher, there)
        await make(self.subscriber, here)
        await _execute(
            self.publisher,
            f"CREATE PUBLICATION p {publication}",
            f"SELECT pg_create_logical_replication_slot('{self._name}', 'pgoutput')",
        )
        where = f"host={self._server.socket_dir} user=postgres dbname={self._name}_pub"
        await _execute(
            self.subscriber,
            f"CREATE SUBSCRIPTION copies CONNECTION '{where}' PUBLICATION p "
            f"WITH (create_slot = false, slot_name = '{self._name}', copy_data = false{options})",
        )
        if "enabled = false" not in options:
            await self._ready()

    async def _ready(self) -> None:
        """Wait until no table is being prepared: that would wait for every transaction that is open by then."""
        connection = await asyncpg.connect(self.subscriber)
        async with asyncio.timeout(_DEADLINE):
            while await connection.fetchval("SELECT EXISTS (SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r')"):
                await asyncio.sleep(0.02)
        await connection.close()

    async def end(self) -> None:
        await _execute(
            self.subscriber,
            "ALTER SUBSCRIPTION copies DISABLE",
            "ALTER SUBSCRIPTION copies SET (slot_name = NONE)",
            "DROP SUBSCRIPTION copies",
        )
        connection = await asyncpg.connect(self.publisher)
        async with asyncio.timeout(_DEADLINE):
            while await connection.fetchval("SELECT active FROM pg_replication_slots WHERE slot_name = $1", self._name):
                await asyncio.sleep(0.02)
        await connection.execute("SELECT pg_drop_replication_slot($1)", self._name)
        await connection.close()
        await _execute(
            self._server.dsn, *(f"DROP DATABASE {self._name}_{kind} WITH (FORCE)" for kind in ("pub", "sub"))
        )


_PLAIN = "SELECT 1"
CASES = {
    "a table": (_PLAIN, _PLAIN, "FOR TABLE events", ""),
    "disabled": (_PLAIN, _PLAIN, "FOR TABLE events", ", enabled = false"),
    "its partitions": (HASH, HASH, "FOR TABLE events", ""),
    "the root of its partitions": (HASH, HASH, "FOR TABLE events WITH (publish_via_partition_root)", ""),
    "one partition": (HASH, HASH, "FOR TABLE events_1", ""),
    "a root that is plain there": (HASH, _PLAIN, "FOR TABLE events WITH (publish_via_partition_root)", ""),
}


@pytest.mark.one_older
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_nothing_is_safe_on_a_subscriber(case: tuple[str, str, str, str], logical: EmbeddedServer) -> None:
    pair = Pair(logical)
    await pair.make(*case)
    try:
        async with EventStore.connect(pair.publisher) as publisher:
            await publisher.append("s", [NewEvent("T")])
            await publisher.feed()
            assert (await publisher.health()).order_unknown is None
            assert {f.check for f in await publisher.doctor() if f.check == "order" and f.severity.wrong} == set()
        async with EventStore.connect(pair.subscriber) as store:
            health = await store.health()
            assert health.order_unknown is not None
            assert _SUBSCRIBED in health.order_unknown
            assert "copies" in health.order_unknown
            assert "follow the publisher" in health.order_unknown
            for asking in (store.feed(), store.feed_from_end(), store.export(), anext(store.subscribe())):
                with pytest.raises(OrderUnknown, match=_SUBSCRIBED):
                    await asking
            with pytest.raises(OrderUnknown):
                await store.project("p", lambda *_: asyncio.sleep(0))
            assert await store.projections() == []
            [finding] = [finding for finding in await store.doctor() if finding.check == "order"]
            assert (str(finding.severity), finding.remedy) == ("error", ())
    finally:
        await pair.end()


@pytest.mark.slow
async def test_the_events_of_a_subscriber_can_be_read_and_the_doctor_is_not_appeased(logical: EmbeddedServer) -> None:
    pair = Pair(logical)
    await pair.make(_PLAIN, _PLAIN)
    writer = await asyncpg.connect(pair.publisher)
    try:
        await writer.execute(
            "BEGIN; INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('slow', 0, 'T', '{}')"
        )
        async with EventStore.connect(pair.publisher) as publisher, EventStore.connect(pair.subscriber) as store:
            await publisher.append("quick", [NewEvent("T")])
            await arrived(pair.subscriber, 1)
            # The reason for all this: 2 is there, 1 is not, and nobody here is writing it.
            assert [event.global_seq async for event in store.read_all()] == [2]
            await writer.execute("COMMIT")
            await arrived(pair.subscriber, 2)
            behind = next(finding for finding in await store.doctor() if finding.check == "sequence-position")
            await _execute(pair.subscriber, *behind.remedy)
            checks = {finding.check: str(finding.severity) for finding in await store.doctor()}
            assert (checks["sequence-position"], checks["order"]) == ("ok", "error")
        await writer.close()
        for command in (
            ["tail"],
            ["tail", "--no-follow"],
            ["tail", "--no-follow", "--json", "--from", "0"],
            ["export"],
        ):
            assert "follow the publisher" in one_line_error(esx(*command, "-d", pair.subscriber), 1)
        shown = esx("health", "-d", pair.subscriber)
        assert (shown.returncode, "follow the publisher" in shown.stdout) == (0, True)
        [line] = [json.loads(line) for line in esx("health", "--json", "-d", pair.subscriber).stdout.splitlines()]
        assert _SUBSCRIBED in line["order_unknown"]
        assert line["safe"] is None
        assert esx("read", "$all", "-d", pair.subscriber).returncode == 0
        doctor = esx("doctor", "-d", pair.subscriber)
        assert (doctor.returncode, "follow the publisher" in doctor.stdout) == (1, True)
    finally:
        # Before the end, which would wait for a transaction that is still open.
        await writer.close()
        await pair.end()


async def test_a_user_without_rights_is_told_too(logical: EmbeddedServer) -> None:
    pair = Pair(logical)
    await pair.make(_PLAIN, _PLAIN)
    role = f"guest{uuid4().hex}"
    try:
        await _execute(pair.subscriber, f"CREATE ROLE {role} LOGIN", f"GRANT SELECT ON events TO {role}")
        async with EventStore.connect(pair.subscriber.replace("//postgres@", f"//{role}@")) as store:
            with pytest.raises(OrderUnknown, match=f"{_SUBSCRIBED} .subscription copies"):
                await store.feed()
        await _execute(pair.subscriber, f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    finally:
        await pair.end()


async def arrived(dsn: str, events: int) -> None:
    connection = await asyncpg.connect(dsn)
    async with asyncio.timeout(_DEADLINE):
        while await connection.fetchval("SELECT count(*) FROM events") < events:
            await asyncio.sleep(0.02)
    await connection.close()
