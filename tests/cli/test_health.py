from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from esx import EventStore, NewEvent
from esx.errors import ProjectionFailed
from tests.cli.support import esx
from tests.support.prepared import prepare_append, preparing_server

if TYPE_CHECKING:
    from esx import Event
    from tests.support.roles import Role

pytestmark = pytest.mark.slow


async def test_figures_for_people_and_for_programs(dsn18: str, store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T") for _ in range(4)])

    async def refuses(_connection: Any, event: Event) -> None:
        if event.global_seq == 3:
            raise ValueError("cannot\x1b[2J")

    with pytest.raises(ProjectionFailed):
        await store18.project("balances", refuses)
    slow = await asyncpg.connect(dsn18, server_settings={"application_name": "slow import"})
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute("INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('slow', 0, 'T', '{}')")
    await store18.append("s", [NewEvent("T")])

    done = esx("health", "--json", "-d", dsn18)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["head"], figures["last"], figures["safe"], figures["lag"]) == (6, 6, 4, 2)
    assert [writer["application"] for writer in figures["writers"]] == ["slow import"]
    [projection] = figures["projections"]
    assert (projection["name"], projection["position"], projection["lag"]) == ("balances", 2, 3)
    assert (figures["estimated_events"], figures["events_exact"], figures["events_at_least"]) == (5, True, 5)

    shown = esx("health", "-d", dsn18).stdout
    for piece in (
        "safe position  4  at most 2 numbers behind the head",
        "events         5",
        f"pid {slow.get_server_pid()}, slow import, idle in transaction",
        "balances: at 2, 3 behind",
        "stopped at the next event: ValueError: cannot␛[2J",
    ):
        assert piece in shown
    await slow.close()


async def test_what_a_user_who_may_only_read_events_may_know(dsn18: str, store18: EventStore, role: Role) -> None:
    await store18.append("s", [NewEvent("T") for _ in range(4)])
    await role.grant("SELECT ON events")
    done = esx("health", "--json", "-d", role.dsn(dsn18))
    assert done.returncode == 4, done.stderr
    assert "permission denied for view projections" in done.stderr
    assert "GRANT SELECT" in done.stderr
    allowed = esx("health", "--json", "--allow-partial", "-d", role.dsn(dsn18))
    assert (allowed.returncode, allowed.stderr) == (0, done.stderr)
    figures = json.loads(done.stdout)
    assert (figures["head"], figures["head_exact"], figures["projections"]) == (4, False, None)
    shown = esx("health", "-d", role.dsn(dsn18)).stdout
    assert "head           4  or above: this user may not read the sequence" in shown
    assert "projections    this user may not read them" in shown
    async with EventStore.connect(role.dsn(dsn18), read_only=True) as store:
        assert (await (await store.feed()).state()).head == 4
    await role.grant("SELECT ON projections", "SELECT ON SEQUENCE events_global_seq_seq")
    done = esx("health", "--json", "-d", role.dsn(dsn18))
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(done.stdout)
    assert (figures["head_exact"], figures["projections"]) == (True, [])


async def test_a_prepared_transaction_is_called_one() -> None:
    async with preparing_server(18) as server:
        await prepare_append(server.dsn, "import")
        async with EventStore.connect(server.dsn) as store:
            await store.append("s", [NewEvent("T")])
        connection = await asyncpg.connect(server.dsn)
        await connection.execute("INSERT INTO projections (name) VALUES ('balances')")
        await connection.close()
        shown = esx("health", "-d", server.dsn).stdout
    assert "writers        1 in flight\n               a prepared transaction\n" in shown
    assert "                 may be held back by a prepared transaction\n" in shown
