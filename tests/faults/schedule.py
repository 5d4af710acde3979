"""The faults: dealt from a shuffled deck, so that each kind happens, until the time is over."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

from esx import ANY
from tests.faults.clients import SlowWriter
from tests.faults.cluster import Patience, connected, sessions, stored, until
from tests.faults.history import Failover

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from esx import AppendResult, NewEvent
    from tests.faults.clients import Client, StoreClient
    from tests.faults.cluster import Cluster, Node
    from tests.faults.history import History
    from tests.faults.readers import Reader
    from tests.support.proxy import Moment

_SOME, _MANY = 60, 150
"""So many appends are acknowledged between two faults, at most; and in a failover, while the standby hears nothing."""

_OFTEN = {"failovers": 1, "killed servers": 2}


class Schedule:
    """Does harm to the cluster, one fault after another, each when the clients have got on since the last.

    `counts` says how often each kind has happened. `mark` appends an event of its own, to be waited for.
    """

    def __init__(
        self,
        seed: int,
        cluster: Cluster,
        history: History,
        readers: Sequence[Reader],
        clients: Sequence[Client],
        settler: StoreClient,
    ) -> None:
        self._mood = random.Random(seed)
        self._cluster = cluster
        self._history = history
        self._readers = readers
        self._clients = clients
        self._settler = settler
        self._faults = {
            "killed servers": self._kill,
            "ended backends": self._end_backends,
            "cancelled statements": self._cancel_statements,
            "connections cut in flight": lambda: self._cut("in flight"),
            "connections cut before the reply": lambda: self._cut("before the reply"),
            "silent connections": self._silence,
            "times the standby's receiver was stopped": self._stop_receiver,
            "times the standby's replay was paused": self._pause_replay,
            "times the address led to the standby": self._lead_astray,
            "restarted subscribers": self._restart_reader,
            "failovers": self._fail_over,
        }
        self.counts = dict.fromkeys(self._faults, 0)

    async def run(self, seconds: float) -> None:
        """Deal faults for so many seconds; longer where it takes longer for each kind to happen once."""
        began = time.monotonic()
        deck: list[str] = []
        while time.monotonic() < began + seconds or not all(self.counts[kind] for kind in self._faults):
            if not deck:
                # Each kind once; then those more often that take less time.
                kinds = [
                    kind
                    for kind in self._faults
                    for _ in range(_OFTEN.get(kind, 3) if any(self.counts.values()) else 1)
                ]
                deck = self._mood.sample(kinds, len(kinds))
            kind = deck.pop()
            print(f"{time.monotonic() - began:6.1f} s, {self._history.acknowledged:6} appends: {kind}", flush=True)
            self.counts[kind] += await self._faults[kind]()
            await self._appends(self._mood.randint(1, _SOME))

    async def mark(self) -> UUID:
        """Append an event and return its id, when that was acknowledged."""
        while True:
            events = [self._settler.event()]
            call = self._settler.begin("mark", ("hot-mark", events, ANY))

            async def act(events: list[NewEvent] = events) -> list[AppendResult]:
                return [await self._settler.store.append("hot-mark", events)]

            await self._settler.call(call, act, may_cancel=False)
            if call.outcome == "acknowledged":
                return events[0].event_id

    async def seen_by(self, readers: Sequence[Reader], event_id: UUID) -> None:
        """Wait until readers have been given an event."""
        await until(
            lambda: all(reader.has(event_id) for reader in readers),
            lambda: [reader.count for reader in readers],
            f"{[reader.name for reader in readers if not reader.has(event_id)]} to see event {event_id}",
        )

    async def everybody_gets_on(self) -> None:
        """Wait until each of the clients has come to the end of what it is at."""
        before = [client.turns for client in self._clients]

        def waiting() -> list[int]:
            return [client.number for client, turns in zip(self._clients, before, strict=True) if client.turns == turns]

        await until(lambda: not waiting(), waiting, "each client to get on")

    async def _appends(self, count: int) -> None:
        """Wait until so many more appends were acknowledged."""
        history = self._history
        goal = history.acknowledged + count
        await until(
            lambda: history.acknowledged >= goal,
            lambda: history.acknowledged,
            f"appends {history.acknowledged} to {goal}",
        )

    async def _kill(self) -> int:
        await self._cluster.restart_primary()
        return 1

    async def _end_backends(self) -> int:
        async with connected(self._cluster.primary.dsn) as connection:
            pids = await sessions(connection)
            chosen = self._mood.sample(pids, min(len(pids), self._mood.randint(1, 8)))
            return sum([await connection.fetchval("SELECT pg_terminate_backend($1)", pid) for pid in chosen])

    async def _cancel_statements(self) -> int:
        """Cancel whatever each session is at, again and again, until clients have heard of it."""
        hit = 0
        async with connected(self._cluster.primary.dsn) as connection:
            for _ in range(self._mood.randint(2, 6)):
                hit += await connection.fetchval(
                    "SELECT count(*) FILTER (WHERE pg_cancel_backend(pid)) FROM pg_stat_activity "
                    "WHERE state = 'active' AND backend_type = 'client backend' AND pid <> pg_backend_pid() "
                    "AND datname = current_database()"
                )
                await self._appends(1)
        return hit

    async def _cut(self, moment: Moment, most: int = 8) -> int:
        """Lose connections one by one, whatever they are about, or those that are about some stream."""
        gate, count = self._cluster.gate, self._mood.randint(min(3, most), most)
        for _ in range(count):
            gate.about = self._mood.choice([b"", b"warm-", b"few-"])
            gate.cut = moment
            await until(lambda: gate.cut is None, lambda: self._history.acknowledged, "a connection to cut")
        return count

    async def _silence(self) -> int:
        """Let connections fall silent: a few, or more than a pool has."""
        return await self._cut("no reply", 3 if self._mood.random() < 0.7 else 12)

    async def _lead_astray(self) -> int:
        """Let new connections come to the standby, which takes no appends, and a few be lost that then go there."""
        # Of a silent connection only its own server can be asked.
        await self.everybody_gets_on()
        gate, standby, errors = self._cluster.gate, self._standby, self._history.errors
        refused = errors["NotAllowed"]
        gate.target = standby.socket
        while errors["NotAllowed"] == refused:
            await self._cut("before the reply", 2)
            await asyncio.sleep(0.1)
        self._cluster.switch()
        return 1

    async def _stop_receiver(self) -> int:
        standby = self._standby
        standby.suspend(await self._cluster.receivers())
        try:
            await self._appends(_SOME)
        finally:
            standby.resume()
        return 1

    async def _pause_replay(self) -> int:
        async with connected(self._standby.dsn) as connection:
            await connection.execute("SELECT pg_wal_replay_pause()")
            await self._appends(_SOME)
            await connection.execute("SELECT pg_wal_replay_resume()")
        return 1

    async def _restart_reader(self) -> int:
        self._readers[0].restart()
        return 1

    async def _fail_over(self) -> int:
        """Kill the primary for good, and let the address lead to its standby, which has not heard all.

        What a transaction wrote before others, and committed after the standby had heard of those, is among what is
        lost: so the standby has events with higher numbers than that one, which readers were given as well.
        """
        cluster, history = self._cluster, self._history
        primary = cluster.primary
        slow = SlowWriter(history, f"hot-slow-{self.counts['failovers']}", self._mood)
        async with connected(primary.dsn) as connection:
            commit = await slow.write(connection)
            await self._appends(_SOME)
            known = history.tick()
            await cluster.standby_has_all()
            primary.suspend(await cluster.senders())
            await commit()
        await self.seen_by([reader for reader in self._readers if not reader.slow], slow.event_id)
        # So many that some of them have begun after the senders were stopped.
        await self._appends(_MANY)
        await asyncio.to_thread(primary.kill_all)
        # Nobody reaches either of the two now.
        inherited = await stored(self._standby)
        history.failovers.append(Failover(known, inherited))
        history.era += 1
        if self._mood.random() < 0.5:
            # The address is faster than the standby.
            cluster.gate.target = self._standby.socket
            await asyncio.sleep(self._mood.uniform(0, 0.5))
        former = await cluster.promote()
        cluster.switch()
        await asyncio.gather(self._keep_what_was(former), cluster.add_standby())
        await self._settle()
        return 1

    async def _keep_what_was(self, former: Node) -> None:
        """Write down what a primary that was killed had stored, where nobody else reaches it."""
        await asyncio.to_thread(former.start)
        self._history.tables.append(await stored(former))
        await asyncio.to_thread(former.end)

    async def _settle(self) -> None:
        """Wait until all readers have come to the new history: given one of its events, or begun anew."""
        marks = [await self.mark()]

        def missing() -> list[Reader]:
            return [reader for reader in self._readers if not any(reader.has(mark) for mark in marks)]

        # One that went on where it was is given nothing below that.
        patience = Patience()
        while missing():
            await self._appends(_SOME)
            marks.append(await self.mark())
            await patience.moment([reader.count for reader in self._readers], "readers to come to the new primary")

    @property
    def _standby(self) -> Node:
        assert self._cluster.standby is not None
        return self._cluster.standby
