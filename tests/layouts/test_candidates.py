"""A store that a search_path or another name hides is named, instead of being made anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx.errors import SchemaMissing
from esx.eventstore import EventStore
from esx.model import NewEvent
from tests.cli.support import esx, one_line_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.roles import Role


async def run(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def said(dsn: str, store: str | None = None) -> SchemaMissing:
    async with EventStore.connect(dsn, store=store) as opened:
        with pytest.raises(SchemaMissing) as caught:
            await opened.head()
    assert "\n" not in str(caught.value)
    return caught.value


MOVED = ("CREATE SCHEMA other", "ALTER TABLE events SET SCHEMA other")


@pytest.mark.parametrize(
    ("statements", "names", "remedy"),
    [
        (MOVED, ["other.events"], "other.events exists: use --store other.events, or set search_path"),
        (["ALTER TABLE events RENAME TO old"], ["public.old"], "public.old exists: use --store public.old"),
        (
            ['CREATE SCHEMA "Odd one"', 'ALTER TABLE events RENAME TO "E"', 'ALTER TABLE "E" SET SCHEMA "Odd one"'],

            ['"Odd one"."E"'],
            """"Odd one"."E" exists: use --store '"Odd one"."E"'""",
        ),
        (
            [*MOVED, "CREATE SCHEMA app", "CREATE TABLE app.events (LIKE other.events)"],
            ["app.events", "other.events"],
            "app.events, other.events exist: use --store app.events, or set search_path",
        ),
        (
            [*MOVED, *(f"CREATE TABLE t{i} (LIKE other.events)" for i in range(9))],
            ["other.events", "public.t0", "public.t1", "public.t2"],
            "other.events, public.t0, public.t1 and more exist: use --store other.events, or set search_path",
        ),
        (
            ["ALTER TABLE events RENAME TO old", "CREATE TABLE events (id int)"],
            ["public.old"],
            "stream_seq, event_type, data, metadata, created_at, but public.old exists: use --store public.old",
        ),
        (
            ["DROP TABLE events CASCADE", "CREATE TABLE events_archive (id int, data json)"],
            [],
            "has no table events: run `esx init` to create it",
        ),
    ],
)  # fmt: skip
async def test_a_store_in_another_place_is_named(
    statements: Sequence[str], names: Sequence[str], remedy: str, dsn: str
) -> None:
    await run(dsn, "DROP VIEW IF EXISTS projections", *statements)
    error = await said(dsn)
    assert list(error.elsewhere) == names
    assert remedy in str(error)
    assert ("esx init" in str(error)) == (not names)


@pytest.mark.slow
async def test_a_search_path_that_hides_it(dsn18: str, store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T")])
    hidden = f"{dsn18}&search_path=pg_catalog"
    line = one_line_error(esx("streams", "-d", hidden), 1)
    assert line.endswith("public.events exists: use --store public.events, or set search_path")
    assert "\ns  " in esx("streams", "--store", "public.events", "-d", hidden).stdout

    done = esx("doctor", "-d", hidden)
    assert "public.events exists: use --store public.events, or set search_path" in done.stdout
    assert "esx doctor --store public.events" in done.stdout
    assert "esx init" not in done.stdout
    line = one_line_error(esx("streams", "--store", "tenant.events", "-d", dsn18), 1)
    assert "has no table or view tenant.events" in line
    assert "but public.events exists: use --store public.events" in line


async def test_only_what_the_user_may_read_is_named(dsn18: str, role: Role) -> None:
    await run(dsn18, *MOVED)
    assert not (await said(role.dsn(dsn18))).elsewhere
    await role.grant("SELECT ON other.events")
    assert not (await said(role.dsn(dsn18))).elsewhere
    await role.grant("USAGE ON SCHEMA other")
    assert (await said(role.dsn(dsn18))).elsewhere == ("other.events",)


async def test_partitions_and_what_only_a_session_has_are_not_named(dsn18: str) -> None:
    await run(
        dsn18,
        "ALTER TABLE events RENAME TO old",
        "CREATE TABLE parts (LIKE old) PARTITION BY RANGE (global_seq)",
        "CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9)",
        "CREATE TABLE child () INHERITS (old)",
    )
    assert (await said(dsn18)).elsewhere == ("public.old", "public.parts")
