"""Sends groups of appends, and gives each append its outcome."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from esx.errors import EsxError, QueryGivenUp, StoreUnavailable
from esx.model import AppendResult
from esx.postgres.pool import Pool
from esx.store.append.group_statement import GroupStatement, Unit, UnitOutcome
from esx.store.append.groups import Alone, Members, Queued
from esx.store.append.versions import refused
from esx.store.known_table import KnownTable


class _Part(NamedTuple):
    """A unit, and the appends that it stands for: several if each accepts what the one before leaves."""

    unit: Unit
    appends: list[Queued]


class GroupSender:
    """Sends groups on connections of `pool` to the table that `table` returns."""

    def __init__(self, pool: Pool, table: Callable[[], KnownTable | None], guarded: Callable[[], bool]) -> None:
        self._pool = pool
        self._table = table
        self._guarded = guarded

    async def send(self, group: list[Members]) -> None:
        """Send a group. An append that gets no answer is to be sent again, in a group or by itself."""
        group.sort()
        parts = [(members, list(_parts(members.appends))) for members in group]
        table = self._table()
        statement = None if table is None else table.of(GroupStatement)
        if statement is None or not statement.possible:
            _leave(group, Alone())
            return
        sent = False
        guarded = self._guarded()
        try:
            with self._pool.idle(guarded=guarded) or await self._pool.taken(guarded=guarded) as connection:
                sent = True
                outcomes = await statement.send(connection, [part.unit for _, own in parts for part in own])
        except Exception as error:
            lost = sent and isinstance(error, StoreUnavailable | QueryGivenUp)
            _leave(group, Alone(error if lost and isinstance(error, EsxError) else None))
            return
        told = iter(outcomes)
        for members, own in parts:
            _tell(members.stream_id, own, [next(told) for _ in own])


def _all(group: Sequence[Members]) -> Iterator[Queued]:
    return (each for members in group for each in members.appends)


def _leave(group: Sequence[Members], how: Alone) -> None:
    for each in _all(group):
        each.by_itself = how


def _parts(appends: Sequence[Queued]) -> Iterator[_Part]:
    """Yield the appends to one stream; those that accept any version and follow each other are one part."""
    part: list[Queued] = []
    for each in appends:
        if part and (each.lowest == each.highest or (part[-1].lowest, part[-1].highest) != (each.lowest, each.highest)):
            yield _part(part)
            part = []
        part.append(each)
    yield _part(part)


def _part(appends: list[Queued]) -> _Part:
    rows = [row for each in appends for row in each.rows or ()]
    first = appends[0]
    return _Part(Unit(first.stream_id, first.lowest, first.highest, rows), appends)


def _tell(stream_id: str, parts: Sequence[_Part], outcomes: Sequence[UnitOutcome]) -> None:
    """Answer the appends to one stream in order, up to the first whose outcome is not certain."""
    after: int | None = None
    stored: UUID | None = None
    for (unit, appends), outcome in zip(parts, outcomes, strict=True):
        first = appends[0]
        if outcome.numbers is not None:
            after, stored = outcome.version, unit.rows[0][3]
            for each in appends:
                after += len(each.events)
                number = outcome.numbers[after - outcome.version - 1]
                _answer(each, AppendResult(stream_id, after, number))
            continue
        event_id = unit.rows[0][3]
        actual = outcome.version if after is None else after
        if unit.lowest <= actual <= unit.highest:
            if after is None:
                first.by_itself = Alone()  # another writer was faster, or the table has changed
            return
        if outcome.below or (unit.lowest == unit.highest and event_id in (outcome.id_there, stored)):
            first.by_itself = Alone()  # perhaps it is a repetition
            return
        for each in appends:
            if not each.answer.done():
                each.answer.set_exception(refused(stream_id, each.expected, actual))


def _answer(append: Queued, result: AppendResult) -> None:
    if not append.answer.done():  # else its caller has gone
        append.answer.set_result(result)
