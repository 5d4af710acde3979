"""Notes conflicts while appends go on, and records them a moment later on a connection of its own.

To note one costs an append less than a microsecond on average, and never waits. It is bounded: of the conflicts between
two writes at most `sample` are kept, drawn by chance so that each of them is as likely, and each row says how many it
stands for. While nothing can be written, the same sample goes on, so nothing grows.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from esx.errors import EsxError, StoreClosed, StoreFailed, WrongVersion
from esx.expected import NO_STREAM, ExpectedVersion
from esx.filters import CORRELATION_NAMES, USER_NAMES
from esx.layouts.layout import Layout
from esx.model import NewEvent
from esx.postgres.background import tell_failure
from esx.postgres.pool import Pool
from esx.store.conflicts.conflict import KEPT, TYPES, ConflictRecording
from esx.store.conflicts.recording import check_recordable, write
from esx.store.known_table import KnownTable
from esx.text import visible

_log = logging.getLogger("esx.conflicts")
_MOST_PARSED = 100_000
"""Metadata that are longer text than this are not looked into."""
_MOST_EVENTS = 1000
_LONGEST = 500
"""How many characters of a type, a user or a correlation id are kept."""


@dataclass(frozen=True, slots=True)
class RecorderLimits:
    """How a recorder works; times are seconds. Tests change them.

    It writes `every` so often, gives one write up after `limit`, and waits up to `last_pause` after a failure. Closing
    waits up to `closing` for the last write. It holds up to `sample` conflicts for one write, and keeps the newest
    `keep` rows in the table.
    """

    every: float = 1.0
    limit: float = 10.0
    last_pause: float = 30.0
    closing: float = 2.0
    sample: int = 50
    keep: int = KEPT


@dataclass(frozen=True, slots=True)
class _Noted:
    at: datetime
    stream_id: str
    expected: ExpectedVersion
    actual: int
    types: tuple[str, ...]
    metadata: object


class ConflictRecorder:
    """Records the conflicts of one store.

    `pool` returns what lends the connection, the same each time, and `table` what is known of the events.
    """

    def __init__(
        self, pool: Callable[[], Pool], table: Callable[[], KnownTable | None], limits: RecorderLimits | None = None
    ) -> None:
        self._open = pool
        self._pool: Pool | None = None
        self._table = table
        self._limits = limits or RecorderLimits()
        self._kept: list[_Noted] = []
        self._since = 0
        """How many conflicts there were since the last write began."""
        self._seen = self._recorded = self._dropped = 0
        self._problem: str | None = None
        self._checked: Layout | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._wait = self._limits.every

    @property
    def state(self) -> ConflictRecording:
        """How recording goes."""
        return ConflictRecording(self._seen, self._recorded, self._dropped, self._problem)

    def note(self, conflict: WrongVersion, events: Sequence[NewEvent]) -> None:
        """Note a conflict of an append of these events; it never waits, and never fails."""
        self._seen += 1
        if self._closing.is_set():
            self._dropped += 1
            return
        self._since += 1
        place = len(self._kept)
        if place >= self._limits.sample:
            place = int(random.random() * self._since)  # noqa: S311 - draws a sample
            if place >= self._limits.sample:
                return
        first = events[0] if events else None
        types = dict.fromkeys(event.event_type for event in islice(events, _MOST_EVENTS))
        noted = _Noted(
            datetime.now(UTC),
            # Not the error itself, which holds all that its frames hold.
            conflict.stream_id,
            conflict.expected,
            conflict.actual,
            tuple(islice(types, TYPES)),
            # A value that the caller may change is read now, a text later.
            None if first is None else first.metadata if isinstance(first.metadata, str) else _who(first.metadata),
        )
        self._kept[place : place + 1] = [noted]
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="esx-conflicts")
            self._task.add_done_callback(tell_failure)

    async def close(self) -> None:
        """Write what is kept, for a moment at most, and close the connection."""
        self._closing.set()
        task = self._task
        if task is not None:
            await asyncio.wait([task], timeout=self._limits.closing)
            task.cancel()
        self._dropped += self._since
        self._since = 0
        self._kept.clear()
        if self._pool is not None:
            await self._pool.settled()
            self._pool.terminate()

    async def _run(self) -> None:
        try:
            await self._write_all()
        finally:
            # At once: what is noted before the callbacks of this task ran would stay until the next conflict.
            self._task = None

    async def _write_all(self) -> None:
        while self._kept:
            await self._pause(self._wait)
            kept, self._kept = self._kept, []
            since, self._since = self._since, 0
            try:
                async with asyncio.timeout(self._limits.limit):
                    await self._write(kept, since / len(kept))
            except Exception as error:
                self._dropped += since
                self._tell(_reason(error))
                self._wait = min(self._wait * 2, self._limits.last_pause)
                if self._closing.is_set():
                    return
            except BaseException:
                self._dropped += since
                raise
            else:
                self._recorded += since
                self._tell(None)
                self._wait = self._limits.every

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return

    async def _write(self, kept: Sequence[_Noted], stands_for: float) -> None:
        table = self._table()
        if table is None:
            raise StoreFailed("the table of the events is not known yet")
        layout = table.layout
        pool = self._pool = self._open()
        async with pool.lend(grouped=False) as connection:
            if self._checked is not layout or self._problem is not None:
                await check_recordable(connection, layout)
                self._checked = layout
            rows = [_row(each, stands_for, ascii_only=layout.encoding != "UTF8") for each in kept]
            await write(connection, layout, json.dumps(rows, ensure_ascii=False), self._limits.keep)

    def _tell(self, problem: str | None) -> None:
        """Say in the log that conflicts can no longer be recorded, or can be again."""
        if problem == self._problem:
            return
        if problem is not None:
            _log.warning("conflicts are not recorded: %s", problem)
        else:
            _log.info("conflicts are recorded again")
        self._problem = problem


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the database does not answer"
    if isinstance(error, StoreClosed):
        return "the store is closed"
    text = str(error) if isinstance(error, EsxError) else f"{type(error).__name__}: {error}"
    return visible((text.splitlines() or [""])[0], limit=300)


def _row(noted: _Noted, stands_for: float, *, ascii_only: bool) -> dict[str, Any]:
    expected = noted.expected
    user, correlation = _who(noted.metadata)

    def clean(text: str | None) -> str | None:
        # Nothing of the event that lost was looked at by PostgreSQL, and one bad character would lose all rows.
        if text is None:
            return None
        text = text[:_LONGEST].replace("\0", "\ufffd")
        return text.encode("ascii" if ascii_only else "utf-8", "backslashreplace").decode()

    return {
        "at": noted.at.isoformat(),
        "stream_id": noted.stream_id.encode("utf-8", "backslashreplace").decode(),
        "expected": -1 if expected is NO_STREAM else expected if isinstance(expected, int) else None,
        "actual": noted.actual,
        "lost_types": [clean(each) for each in noted.types],
        "lost_user": clean(user),
        "lost_correlation": clean(correlation),
        "stands_for": stands_for,
    }


def _who(metadata: object) -> tuple[str | None, str | None]:
    """Return the user and the correlation id in metadata, as texts."""
    if isinstance(metadata, tuple):
        return metadata
    if isinstance(metadata, str):
        if len(metadata) > _MOST_PARSED:
            return None, None
        try:
            metadata = json.loads(metadata)
        except (ValueError, RecursionError):
            return None, None
    if not isinstance(metadata, dict):
        return None, None
    return _member(metadata, USER_NAMES), _member(metadata, CORRELATION_NAMES)


def _member(metadata: dict[Any, Any], names: Sequence[str]) -> str | None:
    for name in names:
        value = metadata.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
    return None
