"""Building a read model anew in a shadow schema, while the old one serves, and swapping the two in one transaction.

The swap replaces the rows, not the tables: readers see the old rows until it commits, and the new ones after. So views,
grants, foreign keys, policies and sequences on the tables stay what they are. What a replacement of all rows would
break or fire is refused by name before anything is done: see esx/store/operate/shadow.py.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import asyncpg

from esx.errors import StoreFailed
from esx.filters import Filter
from esx.postgres.driver_errors import DRIVER_ERRORS
from esx.postgres.session import Session
from esx.store.feed.comparison import compare_kept
from esx.store.feed.history import history_at
from esx.store.feed.server import look
from esx.store.operate.replay import Recorded, Replay, ReplayOf
from esx.store.operate.shadow import Shadow, as_user, drop_shadow, examine, make_shadow, only_own, plan_shadow

_LOCK_CLASS = 0x65737872  # "esxr": one rebuild of a projection at a time
_ROUNDS = 5
"""How often the shadow catches up before the swap takes what is left, however much that is."""
_CLOSE = 1000
"""How many events are handled in the swap's transaction, if it can be helped."""


class RebuildProgress(NamedTuple):
    """How far a rebuild is: its position, that of the projection, how many events it has handled, and its rate.

    `phase` is rebuilding or swapping. `left` is an estimate of the seconds left, None if nothing is known yet.
    """

    phase: str
    position: int
    target: int
    handled: int
    rate: float
    left: float | None


class Rebuilt(NamedTuple):
    """What a rebuild has done: up to which position, with how many events, and the rows of each table."""

    position: int
    handled: int
    rows: dict[str, int]


class Rebuild(Replay):
    """One rebuild."""

    doing = "rebuild"

    def __init__(self, given: ReplayOf, on_progress: Callable[[RebuildProgress], object] | None) -> None:
        super().__init__(given)
        self._on_progress = on_progress
        self._position = 0
        self._handled = 0
        self._began = time.monotonic()

    async def run(self, tables: Sequence[str]) -> Rebuilt:
        """Build the tables anew, and swap."""
        recorded = await self._recorded()
        if not await self._session.fetchval("SELECT pg_try_advisory_lock($1, $2)", _LOCK_CLASS, recorded.id):
            raise StoreFailed(f"projection {self._called} is being rebuilt already")
        schema = f"esx_rebuild_{recorded.id}"
        async with self._session.transaction():
            shadow = await plan_shadow(self._session, schema, tables, swapped=True)
            await drop_shadow(self._session, schema)
            await make_shadow(self._session, shadow)
        try:
            return await self._fill_and_swap(shadow, recorded)
        finally:
            with contextlib.suppress(*DRIVER_ERRORS, OSError):
                await drop_shadow(self._session, schema)

    async def _fill_and_swap(self, shadow: Shadow, recorded: Recorded) -> Rebuilt:
        await self._leave_out("skipped")
        self._position = recorded.start
        for _ in range(_ROUNDS):
            await self._catch_up(shadow, recorded.filter)
            row = await self._recorded()
            if row.id != recorded.id or row.start != recorded.start or row.filter != recorded.filter:
                raise StoreFailed(f"projection {self._called} was reset or changed meanwhile: again")
            if row.position - self._position <= _CLOSE:
                break
        # A position in another history need not be met: to make the read model anew is the remedy then.
        here = await look(self._session, self._layout)
        other = await compare_kept(self._session, self._layout, here, row.history, row.position)
        return await self._swap(shadow, recorded, meets=other is None)

    async def _catch_up(self, shadow: Shadow, where: Filter) -> None:
        """Handle everything up to the safe position, a transaction for each batch."""
        async with contextlib.aclosing(self._read(self._position, where)) as parts:
            async for part in parts:
                if part.events:
                    async with self._session.transaction():
                        self._handled += await self._handle(shadow, part.events)
                self._position = part.position
                await self._tell("rebuilding")

    async def _swap(self, shadow: Shadow, recorded: Recorded, *, meets: bool) -> Rebuilt:
        """Replace the rows and move the position, in one transaction; if it `meets` the projection, not back."""
        session, rows = self._session, dict[str, int]()
        async with session.transaction():
            # The row first, as an instance that handles a batch does: it waits here until the swap is done.
            position: int | None = await session.fetchval(
                f"SELECT position FROM {self._layout.ours('projections')} WHERE name = $1 AND id = $2 FOR UPDATE",
                *(self._name, recorded.id),
            )
            if position is None:
                raise StoreFailed(f"projection {self._called} was deleted meanwhile")
            await self._tell("swapping", position)
            if meets and position > self._position:
                await self._take_the_rest(shadow, recorded.filter, position)
            await self._lock(shadow)
            await as_user(session)
            for table in reversed(shadow.tables):
                await session.execute(f"DELETE FROM {table.live}")
            for table in shadow.tables:
                done = await session.execute(
                    f"INSERT INTO {table.live} ({table.listed}) OVERRIDING SYSTEM VALUE "
                    f"SELECT {table.listed} FROM {table.shadow}"
                )
                rows[table.live] = int(done.split()[-1])
            await only_own(session)
            for table in shadow.tables:
                await _carry_sequences(session, table.live, table.shadow)
            await self._move_checkpoint()
        return Rebuilt(self._position, self._handled, rows)

    async def _lock(self, shadow: Shadow) -> None:
        """Lock the tables that serve. Raises StoreFailed or InvalidQuery if they are not what they were.

        Since the plan was made a trigger may have come, or a foreign key whose rows would be deleted with these.
        """
        altered = StoreFailed("the tables of the read model were altered meanwhile: rebuild it again")
        try:
            for table in reversed(shadow.tables):
                await self._session.execute(f"LOCK TABLE {table.live} IN SHARE ROW EXCLUSIVE MODE")
        except asyncpg.UndefinedTableError:
            raise altered from None
        now = await examine(self._session, shadow.schema, [table.oid for table in shadow.tables], swapped=True)
        if now != shadow:
            raise altered

    async def _take_the_rest(self, shadow: Shadow, where: Filter, position: int) -> None:
        """Handle the events up to the projection's position, in the swap's transaction."""
        async with contextlib.aclosing(self._read(self._position, where, position)) as parts:
            async for part in parts:
                self._handled += await self._handle(shadow, part.events)
                self._position = part.position

    async def _move_checkpoint(self) -> None:
        history = await history_at(self._session, self._layout, self._position)
        await self._session.execute(
            f"""
            UPDATE {self._layout.ours("projections")} SET position = $2, history = $3::text::jsonb, last_error = NULL,
                   error_seq = NULL, failed_at = NULL, updated_at = pg_catalog.now() WHERE name = $1
            """,
            *(self._name, self._position, history.to_json()),
        )
        await self._session.execute(
            f"DELETE FROM {self._layout.ours('parked_events')} "
            "WHERE consumer = $1 AND state <> 'skipped' AND global_seq <= $2",
            *(self._name, self._position),
        )

    async def _tell(self, phase: str, target: int | None = None) -> None:
        if self._on_progress is None:
            return
        if target is None:
            target = await self._session.fetchval(f"SELECT max(global_seq) FROM {self._layout.numbers}") or 0
        seconds = max(time.monotonic() - self._began, 0.001)
        rate = self._handled / seconds
        done = self._position
        left = None if not done else max(target - done, 0) / done * seconds
        self._on_progress(RebuildProgress(phase, done, target, self._handled, rate, left))


async def _carry_sequences(session: Session, live: str, shadow: str) -> None:
    """Let the sequences of the table go on where those of its shadow are."""
    rows = await session.fetch(
        """
        SELECT pg_catalog.pg_get_serial_sequence($1, a.attname) AS live,
               pg_catalog.pg_get_serial_sequence($2, a.attname) AS shadow
        FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
        """,
        *(live, shadow),
    )
    for row in rows:
        if row["live"] is not None and row["shadow"] is not None:
            await session.fetchval(
                f"SELECT setval($1::text::regclass, s.last_value, s.is_called) FROM {row['shadow']} s",
                row["live"],
            )
