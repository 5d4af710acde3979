"""Appending with an expected version.

The check and the insert are one statement. Under READ COMMITTED two writers can both pass the check; the second
then waits on the unique index and gets a unique violation. So a wrong version shows in two ways, as a statement that
inserted nothing and as a violation of that constraint, and both become `WrongVersion`.

With row-level locking, the second strategy, the statement first locks a row that stands for the stream, and then
reads the version in a snapshot of its own, so that writers queue instead of failing. The unique constraint still
decides, so both strategies can be mixed.
"""

import asyncio
import random
from collections.abc import Sequence

import asyncpg

from esx.errors import EventIdsReused, StoreFailed
from esx.expected import ANY, STREAM_EXISTS, ExpectedVersion
from esx.layouts.detection import all_places
from esx.layouts.unique_index import ids_unique, is_still_arbiter, same_place
from esx.model import AppendResult, NewEvent, Strategy
from esx.postgres.session import Session
from esx.store.append.refusals import REFUSALS, Refusals, no_arbiter
from esx.store.append.versions import accepted, refused
from esx.store.known_table import KnownTable

# $1 stream, $2 the lowest and $3 the highest version that is acceptable; the new events follow the actual one.
# The most frequent one is the shortest: what the statements below return of a refusal costs a sixth of an append.
_SHORT = """
    INSERT INTO {table} (stream_id, stream_seq, event_type, data, metadata{event_id_column})
    SELECT $1, stream.version + 1, $4, $5::jsonb, $6::jsonb{event_id_one}
    FROM ({version}) stream WHERE stream.version BETWEEN $2::bigint AND $3::bigint AND {holds}
    RETURNING stream_seq - 1, global_seq
"""
_HEAD = """
WITH stream AS MATERIALIZED (
    {version}
), appended AS (
    INSERT INTO {table} (stream_id, stream_seq, event_type, data, metadata{event_id_column})
"""
# Of a refused append, the event at the place of the batch's first one tells whether this is a retry.
_TAIL = """
    RETURNING global_seq
)
SELECT stream.version, appended.global_seq, CASE WHEN appended.global_seq IS NULL THEN {id_at} END
FROM stream LEFT JOIN (SELECT pg_catalog.max(global_seq) AS global_seq FROM appended) appended ON true
"""
_ONE = (
    _HEAD
    + """
    SELECT $1, stream.version + 1, $4, $5::jsonb, $6::jsonb{event_id_one}
    FROM stream WHERE stream.version BETWEEN $2::bigint AND $3::bigint AND {holds}
"""
    + _TAIL
)
# ORDER BY keeps global_seq in step with stream_seq: the sequence is drawn from after the sort.
_MANY = (
    _HEAD
    + """
    SELECT $1, stream.version + new.ord, new.event_type, new.data, new.metadata{event_id_many}
    FROM stream, ROWS FROM (pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::jsonb[]),
                            pg_catalog.unnest($6::jsonb[]), pg_catalog.unnest($7::uuid[]))
         WITH ORDINALITY AS new (event_type, data, metadata, event_id, ord)
    WHERE stream.version BETWEEN $2::bigint AND $3::bigint AND {holds}
    ORDER BY new.ord
"""
    + _TAIL
)
_ANY_RETRIES = 1000
_PAUSE = 0.002
_SURPRISES = 20


class Appender:
    """Appends to one events table, in one attempt on one connection.

    It holds statements only, so all connections share it. Nothing can be appended to a table without an arbiter.
    """

    def __init__(self, table: KnownTable) -> None:
        layout, self._arbiter, as_user = table.layout, table.arbiter, table.as_user
        self._layout = layout
        self._places = layout.places
        self.refusals = Refusals(layout, as_user)
        self._lock = f"SELECT {layout.ours('esx_lock_stream')}($1)"
        has_id = layout.event_id is not None
        id_at = (
            f"(SELECT e.{layout.event_id} FROM {layout.table} e "
            "WHERE e.stream_id = $1 AND e.stream_seq = $2::bigint + 1)"
            if has_id
            else "NULL::uuid"
        )
        self._has_id = has_id
        # esx does not write a stream whose events all have numbers below 0, but it is not an empty one either.
        state = (
            "SELECT coalesce(pg_catalog.max(e.stream_seq), -1) AS version, "
            "coalesce(pg_catalog.max(e.stream_seq) < 0, false) AS below "
            f"FROM {layout.table} e WHERE e.stream_id = $1"
        )
        found = " AND ".join(f"{each} IS NOT NULL" for each in as_user) or "true"
        found_too = "".join(f", {each}" for each in as_user)
        # A function sees what was committed while it waited for the lock; a subquery would not.
        locked_state = (
            "SELECT l.version, l.version = -1 AND EXISTS "
            f"(SELECT FROM {layout.table} e WHERE e.stream_id = $1) AS below "
            f"FROM (SELECT CASE WHEN {found} THEN {layout.ours('esx_lock_stream')}($1) END AS version) l"
        )
        holds = "false" if self._arbiter is None else f"NOT stream.below AND {is_still_arbiter(layout, self._arbiter)}"
        # An append for any version that is sent again is recognised by its event ids alone.
        holds_again = f"{holds} AND {ids_unique(layout)}"

        # A trigger for each statement may run before the first row is made, and without any row. The longer statements
        # insert in a part that does not begin before the version is known.
        shortest = _ONE if layout.for_statements else _SHORT

        def statements(version: str, short: str, holds: str) -> dict[bool, str]:
            """Return them by whether it is a batch."""
            return {
                many: template.format(
                    version=version if template is _SHORT else f"SELECT v.*{found_too} FROM ({version}) v",
                    table=layout.table,
                    id_at=id_at,
                    holds=f"{holds} AND {found}" if template is _SHORT else holds,
                    event_id_column=f", {layout.event_id}" if has_id else "",
                    event_id_one=", $7::uuid" if has_id else "",
                    event_id_many=", new.event_id" if has_id else "",
                )
                for many, template in ((False, short), (True, _MANY))
            }

        self._conditional, self._locking = statements(state, shortest, holds), statements(locked_state, _ONE, holds)
        self._again = {
            Strategy.CONDITIONAL: statements(state, shortest, holds_again),
            Strategy.ROW_LOCK: statements(locked_state, _ONE, holds_again),
        }
        self._refused = f"SELECT s.version, {id_at}, $2::bigint, s.below FROM ({state}) s"

    async def append(
        self,
        connection: Session,
        stream_id: str,
        events: Sequence[NewEvent],
        expected: ExpectedVersion,
        strategy: Strategy = Strategy.CONDITIONAL,
        *,
        again: bool = False,
    ) -> AppendResult:
        """Append `events` to the stream, all or none, in one statement.

        With ANY and STREAM_EXISTS a writer that lost the race tries again; that needs a connection outside of a
        transaction. An append that repeats the event ids of a successful one returns its result. `again` says that it
        may be such a repetition: then it is stored only if a repetition would be recognised. Raises WrongVersion,
        InvalidEvent and EventIdsReused.
        """
        self._layout.check_appends()
        if self._arbiter is None:
            raise StoreFailed(no_arbiter(self._layout))
        if strategy is not Strategy.CONDITIONAL:
            strategy = Strategy(strategy)  # its text is as good
            self._check_strategy(strategy)
        lowest, highest = accepted(expected)
        again = again and lowest != highest
        arguments = self.refusals.arguments(stream_id, events)
        many = len(events) > 1
        # None until it is known whether there may be any.
        retries: int | None = None
        surprises = 0
        while True:
            try:
                statements = self._conditional if strategy is Strategy.CONDITIONAL else self._locking
                if again:
                    statements = self._again[strategy]
                rows = await connection.repeat(statements[many], stream_id, lowest, highest, *arguments)
                row = rows[0] if rows else None
            except asyncpg.UniqueViolationError as error:
                if not await self.lost_race(connection, error):
                    found = await self._recognise_anywhere(connection, stream_id, events)
                    if found is not None:
                        return found
                    await self.refusals.raise_meaning(connection, error, stream_id, events)
                if retries is None:
                    any_suits = expected is ANY or expected is STREAM_EXISTS
                    retries = _ANY_RETRIES if any_suits and not connection.is_in_transaction() else 0
                if retries:
                    retries -= 1
                    if self._layout.lockable:
                        # Any version suits it: better to queue than to lose again.
                        strategy = Strategy.ROW_LOCK
                    else:
                        await asyncio.sleep(random.uniform(0, _PAUSE))  # noqa: S311 - jitter, not a secret
                    continue
                if connection.is_in_transaction():
                    raise
                row = None
            except (*REFUSALS, ValueError) as error:
                await self.refusals.raise_meaning(connection, error, stream_id, events)
            if row is not None:
                version, global_seq, *told = row
                if global_seq is not None:
                    return AppendResult(stream_id, version + len(events), global_seq)
                # With the lock the statement began before it had it, so it does not see what it waited for, which may
                # be this append's own first attempt.
                if strategy is Strategy.CONDITIONAL and version >= 0 and not lowest <= version <= highest:
                    if lowest == highest and told[0] == events[0].event_id:
                        return await self._recognise(connection, stream_id, events, lowest)
                    raise refused(stream_id, expected, version)
            found = await self._lost(connection, stream_id, events, expected)
            if found is not None:
                return found
            surprises += 1
            if surprises > _SURPRISES:
                raise StoreFailed(
                    f"{self._layout.called} took no event though the stream's version fits: a trigger or a rule on the "
                    "table may refuse it, or its indexes have changed"
                )
            await asyncio.sleep(random.uniform(0, _PAUSE))  # noqa: S311 - jitter, not a secret

    async def lock(self, connection: Session, stream_ids: Sequence[str]) -> None:
        """Lock streams until the end of the transaction, in an order that cannot deadlock with others."""
        self._check_strategy(Strategy.ROW_LOCK)
        for stream_id in sorted(set(stream_ids)):
            await connection.execute(self._lock, stream_id)

    async def lock_one(self, connection: Session, stream_id: str) -> int:
        """Lock a stream until the end of the transaction and return its version, -1 if it has no events."""
        self._check_strategy(Strategy.ROW_LOCK)
        return int(await connection.fetchval(self._lock, stream_id))

    async def version(self, connection: Session, stream_id: str) -> int:
        """Return the stream's version, -1 if it has no events."""
        return int(await connection.fetchval(self._layout.version(), stream_id))

    def _check_strategy(self, strategy: Strategy) -> None:
        self._layout.check_appends()
        if strategy is Strategy.ROW_LOCK and not self._layout.lockable:
            raise StoreFailed(
                "row-level locking needs the function esx_lock_stream, which `esx init` creates, and the rights "
                "SELECT, INSERT, UPDATE ON stream_locks"
            )

    async def _lost(
        self, connection: Session, stream_id: str, events: Sequence[NewEvent], expected: ExpectedVersion
    ) -> AppendResult | None:
        """Tell a lost race from a retry of an append that was still being committed.

        Returns None if the stream is at an acceptable version by now, so that the append can be tried again.
        """
        lowest, highest = accepted(expected)
        version, id_there, _, below = (await connection.repeat(self._refused, stream_id, lowest))[0]
        if lowest == highest and id_there is not None and id_there == events[0].event_id:
            return await self._recognise(connection, stream_id, events, lowest)
        if below:
            raise refused(stream_id, expected, version, below=True)
        if lowest <= version <= highest:
            return None
        raise refused(stream_id, expected, version)

    async def _recognise(
        self, connection: Session, stream_id: str, events: Sequence[NewEvent], version: int
    ) -> AppendResult:
        """Return the result of the append that had stored these events after `version`."""
        rows = await connection.fetch(
            f"SELECT {self._layout.event_id}, global_seq FROM {self._layout.table} "
            "WHERE stream_id = $1 AND stream_seq > $2 AND stream_seq <= $3 ORDER BY stream_seq",
            stream_id,
            version,
            version + len(events),
        )
        if [row[0] for row in rows] != [event.event_id for event in events]:
            raise EventIdsReused(stream_id)
        return AppendResult(stream_id, version + len(events), rows[-1][1])

    async def _recognise_anywhere(
        self, connection: Session, stream_id: str, events: Sequence[NewEvent]
    ) -> AppendResult | None:
        """Return the result of the append that had stored these events, None if their ids do not tell."""
        if not self._layout.unique_event_id or connection.is_in_transaction():
            return None
        rows = await connection.fetch(
            f"SELECT {self._layout.event_id}, stream_id, stream_seq, global_seq FROM {self._layout.table} "
            f"WHERE {self._layout.event_id} = ANY($1::uuid[]) ORDER BY stream_seq",
            [event.event_id for event in events],
        )
        if rows:
            first = rows[0][2]
            stored = [(event.event_id, stream_id, first + place) for place, event in enumerate(events)]
            if [(row[0], row[1], row[2]) for row in rows] == stored:
                return AppendResult(stream_id, rows[-1][2], rows[-1][3])
        return None

    async def lost_race(self, connection: Session, error: Exception) -> bool:
        """Return whether `error` says that another writer has stored an event at the same place of the stream.

        In a partitioned table the index is one of a partition, which may be new. Inside a transaction, which has
        failed, PostgreSQL cannot be asked for it; then only the error itself decides.
        """
        if not isinstance(error, asyncpg.UniqueViolationError):
            return False
        index = (error.schema_name, error.constraint_name)
        if same_place(error) or index in self._places:
            return True
        if not connection.is_in_transaction():
            self._places = await all_places(connection, self._layout)
        return index in self._places
