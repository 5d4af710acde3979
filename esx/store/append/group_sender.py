"""Sends groups of appends, and gives each append its outcome."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from esx.errors import EsxError, QueryGivenUp, StoreUnavailable
from esx.model import AppendResult
from esx.postgres.pool import Pool
from esx.store.append.group_statement import GroupStatement, Unit, UnitOutcome
from esx.store.append.groups import Alone, Members, Queued
from esx.store.append.refusals import EventRow
from esx.store.append.versions import HIGHEST_BEFORE, refused
from esx.store.known_table import KnownTable


class _Part(NamedTuple):
    """A unit, and the appends that it stands for: several if each accepts whatever those before leave."""

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
    """Yield the appends to one stream in order, in as few parts as possible."""
    part: _Part | None = None
    for each in appends:
        if part is None or not _suits(each, part.unit):
            if part is not None:
                yield part
            part = _Part(Unit(each.stream_id, each.lowest, each.highest, []), [])
        part.unit.rows.extend(each.rows or ())
        part.appends.append(each)
    if part is not None:
        yield part


def _suits(append: Queued, before: Unit) -> bool:
    """Return whether an append accepts whatever version the unit before it leaves."""
    events = len(before.rows)
    return append.lowest <= before.lowest + events and min(before.highest + events, HIGHEST_BEFORE) <= append.highest


def _tell(stream_id: str, parts: Sequence[_Part], outcomes: Sequence[UnitOutcome]) -> None:
    """Answer the appends to one stream, up to the first whose outcome is not certain.

    Those that lost are told first. Callers that decide again at once take turns so: else who has won would always be
    the first to ask again.
    """
    won: list[tuple[Queued, AppendResult]] = []
    _judge(stream_id, parts, outcomes, won)
    for each, result in won:
        if not each.answer.done():  # else its caller has gone
            each.answer.set_result(result)


def _judge(
    stream_id: str, parts: Sequence[_Part], outcomes: Sequence[UnitOutcome], won: list[tuple[Queued, AppendResult]]
) -> None:
    """Refuse appends in their order, and add those that are stored to `won`."""
    after: int | None = None
    stored: Sequence[EventRow] = ()
    for (unit, appends), outcome in zip(parts, outcomes, strict=True):
        version = outcome.version
        if outcome.numbers is not None:
            after, stored = version, unit.rows
            for each in appends:
                after += len(each.rows or ())  # its caller may have changed `events` meanwhile
                won.append((each, AppendResult(stream_id, after, outcome.numbers[after - version - 1])))
            continue
        actual = version if after is None else after
        if unit.lowest <= actual <= unit.highest:
            if after is None:
                appends[0].by_itself = Alone()  # another writer was faster, or the table has changed
            return
        if outcome.below:
            appends[0].by_itself = Alone()
            return
        left = False
        for each in appends:
            looked = each is appends[0]
            again = each.lowest == each.highest and _may_be_there(each, outcome, stored, looked=looked)
            left = left or again or each.lowest <= actual <= each.highest
            if again:
                each.by_itself = Alone()
            elif not left and not each.answer.done():
                each.answer.set_exception(refused(stream_id, each.expected, actual))
        if left:
            return


def _may_be_there(append: Queued, outcome: UnitOutcome, stored: Sequence[EventRow], *, looked: bool) -> bool:
    """Return whether an append for an exact version may repeat one that was stored.

    After the version of the `outcome` the group has stored the events `stored`. `looked` says that the outcome's
    `id_there` is that of the append's place.
    """
    [(*_, event_id), *_] = append.rows or ()
    at = append.lowest - outcome.version
    if at < 0:
        return not looked or outcome.id_there == event_id
    return at < len(stored) and stored[at][3] == event_id
