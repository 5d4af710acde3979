"""Reading conflicts: pairs of types, streams, times, filters, and the rule that says which pairs commute."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from esx import EventStore, Filter, InvalidQuery, StoreFailed
from esx.filter_language import parse_filter
from esx.store.conflicts.commuting import Commuting, parse_rule
from esx.store.conflicts.conflict import KEPT

if TYPE_CHECKING:
    import asyncpg

    from tests.support.roles import Role

BEGAN = datetime(2026, 8, 7, 12, tzinfo=UTC)
_ROW = """
    INSERT INTO conflicts (at, stream_id, expected, actual, lost_types, lost_user, lost_correlation, won_types, won_seq,
                           won_user, stands_for)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""


async def put(
    sql: asyncpg.Connection,
    lost: str,
    won: str,
    *,
    minute: float = 0,
    stream: str = "account-1",
    missed: int = 1,
    user: str | None = None,
    correlation: str | None = None,
    won_user: str | None = None,
    weight: float = 1,
) -> None:
    """Record a conflict of these types, separated by spaces."""
    at, types, others = BEGAN + timedelta(minutes=minute), lost.split(), won.split()
    seq = 7 if others else None
    await sql.execute(_ROW, at, stream, 3, 3 + missed, types, user, correlation, others, seq, won_user, weight)


async def test_pairs_with_their_streams_and_times(store: EventStore, sql: asyncpg.Connection) -> None:
    for minute in range(48):
        await put(sql, "Withdrawn", "Deposited", minute=minute, stream=f"account-{minute % 3}", weight=1 + minute % 2)
    await put(sql, "Closed", "Deposited", minute=5)
    await put(sql, "Opened", "", minute=6)
    found = await store.conflicts()
    assert [(pair.lost, pair.won, pair.conflicts, pair.exact, pair.recorded) for pair in found.pairs] == [
        ("Withdrawn", "Deposited", 72, False, 48),
        ("Closed", "Deposited", 1, True, 1),
        ("Opened", "", 1, True, 1),
    ]
    pair = found.pairs[0]
    assert (pair.stream_count, dict(pair.streams)) == (3, {"account-0": 24, "account-1": 24, "account-2": 24})
    assert (pair.first_at, pair.last_at) == (BEGAN, BEGAN + timedelta(minutes=47))
    assert sum(pair.times) == 72
    assert all(2 <= count <= 4 for count in pair.times)
    assert (pair.commuting, pair.commutes) == (None, None)
    assert (found.conflicts, found.exact, found.recorded, found.more_pairs, found.full) == (74, False, 50, False, False)
    assert json.loads(pair.to_json())["streams"][0] == {"stream_id": "account-0", "conflicts": 24}
    assert json.loads(found.pairs[2].to_json())["won"] is None


async def test_whether_a_pair_commutes_is_for_the_user_to_say(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await put(sql18, "Deposited", "Deposited")
    await put(sql18, "Deposited", "Withdrawn")
    await put(sql18, "Deposited", "Deposited Closed")  # the other that won does not
    await put(sql18, "Deposited", "Deposited", missed=21)  # of so many not all are known
    await put(sql18, "Withdrawn", "Deposited", weight=3)
    await put(sql18, "Deposited", "")
    rules = [("Depos*", "Deposited"), parse_rule("Deposited, Withdrawn")]
    found = await store18.conflicts(commutes=rules)
    told = {(pair.lost, pair.won): (pair.commuting, pair.conflicts, pair.commutes) for pair in found.pairs}
    assert told == {
        ("Deposited", "Deposited"): (1, 3, None),
        ("Deposited", "Withdrawn"): (1, 1, True),
        ("Withdrawn", "Deposited"): (3, 3, True),
        ("Deposited", ""): (0, 1, False),
    }
    assert found.commuting == 5
    each = await store18.newest_conflicts(commutes=rules)
    assert [one.commutes for one in each] == [False, True, False, False, True, True]
    assert {one.commutes for one in await store18.newest_conflicts()} == {None}


@pytest.mark.parametrize("text", ["Deposited", "a,b,c", ",b", " , "])
def test_a_rule_is_two_types(text: str) -> None:
    with pytest.raises(InvalidQuery, match="write two"):
        parse_rule(text)
    with pytest.raises(InvalidQuery, match="its ]"):
        Commuting([("[a", "b")])


async def test_filters_choose_among_conflicts(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await put(sql18, "Deposited", "Deposited", minute=0, user="ann", won_user="bob")
    await put(sql18, "Deposited", "Withdrawn", minute=1)
    await put(sql18, "Withdrawn", "Closed", minute=2, correlation="c-1")
    await put(sql18, "Shipped", "Cancelled", minute=3, stream="order-1", won_user="Ann")
    choices: list[tuple[str, set[int]]] = [
        ("", {0, 1, 2, 3}),
        ("account-*", {0, 1, 2}),
        ("type:deposited", {0, 1}),
        ("type:With*", {1, 2}),
        ("user:ann", {0, 3}),
        ("user:BOB", set()),
        ("corr:c-1", {2}),
        ("since:'2026-08-07 12:01 UTC' until:'2026-08-07 12:03 UTC'", {1, 2}),
        ("order-1 user:a*", {3}),
    ]
    for text, minutes in choices:
        where = parse_filter(text)
        each = await store18.newest_conflicts(where)
        assert {round((one.at - BEGAN).total_seconds() / 60) for one in each} == minutes, text
        pairs = (await store18.conflicts(where)).pairs
        assert sum(pair.recorded for pair in pairs) == len(minutes), text


async def test_what_conflicts_cannot_tell_is_one_line(
    store18: EventStore, sql18: asyncpg.Connection, dsn18: str, role: Role
) -> None:
    with pytest.raises(InvalidQuery, match="keep no data"):
        await store18.conflicts(Filter(where="$.amount > 10"))
    with pytest.raises(InvalidQuery, match="use a number"):
        await store18.newest_conflicts(limit=-1)
    assert (await store18.conflicts()).pairs == ()
    await role.grant("SELECT ON events")
    async with EventStore.connect(role.dsn(dsn18), read_only=True) as theirs:
        with pytest.raises(StoreFailed, match="permission denied for table conflicts"):
            await theirs.conflicts()
    await sql18.execute("DROP TABLE conflicts")
    with pytest.raises(StoreFailed, match="`esx init` adds it"):
        await store18.conflicts()


@pytest.mark.slow
async def test_a_full_table_is_read_in_time(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await sql18.execute(
        "INSERT INTO conflicts (at, stream_id, expected, actual, lost_types, won_types, won_seq) "
        f"SELECT now() - n * interval '1 s', 's-' || n % 5000, 0, 1, ARRAY['L' || n % 40], ARRAY['W' || n % 50], 1 "
        f"FROM generate_series(1, {KEPT}) n"
    )
    began = datetime.now(UTC)
    found = await store18.conflicts(commutes=[("L1", "W*")])
    assert (datetime.now(UTC) - began).total_seconds() < 10
    assert (found.conflicts, len(found.pairs), found.full) == (KEPT, 200, True)
    assert found.commuting == KEPT // 40
