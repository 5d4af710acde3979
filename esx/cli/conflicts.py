"""esx conflicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.filtering import filter_argument, filter_of
from esx.cli.forms import CsvLines, output_options
from esx.cli.opening import config, with_store
from esx.cli.options import as_moment, database_option, partial_option
from esx.cli.output import OutputLines, incomplete, narrate
from esx.cli.pager import paged
from esx.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from esx.cli.forms import Form
    from esx.eventstore import EventStore
    from esx.filters import Filter
    from esx.store.conflicts.conflict import ConflictSurvey

_MOST = 10_000


@click.command(name="conflicts")
@filter_argument
@click.option("--since", callback=as_moment, metavar="TIME", help="Only conflicts from '2026-08-07 14:00' or -2h on.")
@click.option(
    "--commutes",
    multiple=True,
    metavar="TYPE,TYPE",
    help="Two types (globs) whose events may be stored in either order; repeatable, adds to the config file's.",
)
@click.option("--each", is_flag=True, help="Print single conflicts, the newest first, instead of pairs of types.")
@click.option(
    "--limit",
    type=click.IntRange(0, _MOST),
    metavar="N",
    help="At most so many pairs (default: all), or with --each conflicts (default: 100).",
)
@output_options
@partial_option
@database_option
def command(
    dsn: str | None,
    words: tuple[str, ...],
    since: datetime | None,
    commutes: tuple[str, ...],
    each: bool,
    limit: int | None,
    form: Form,
) -> None:
    """Say why appends conflicted: which types of events lost to which, how often, on which streams, when.

    That is recorded where the application opens its store with record_conflicts=True, and by `esx load
    --record-conflicts on` (docs/conflicts.md). FILTER chooses among the conflicts: esx conflicts 'orders-* since:-1h'.
    A type, a user (user:) or a correlation id (corr:) may be that of either side.

    With --commutes 'Deposited,Deposited' the last column says whether the order of the two matters: a conflict of
    types that commute could have been appended without a new decision.

    Where there were too many to record each, counts are estimates (~).
    """
    from esx.store.conflicts.commuting import parse_rule

    chosen = filter_of(words, since=since)
    rules = [parse_rule(text) for text in (*config().commutes, *commutes)]

    async def work(store: EventStore) -> None:
        if each:
            await _print_each(store, chosen, rules, 100 if limit is None else limit, form)
        else:
            _print_pairs(await store.conflicts(chosen, commutes=rules), chosen, form, limit)

    with paged(form.paged):
        with_store(dsn, work, read_only=True)


async def _print_each(
    store: EventStore, chosen: Filter, rules: Sequence[tuple[str, str]], limit: int, form: Form
) -> None:
    from esx.cli.conflict_tables import print_conflicts

    found = await store.newest_conflicts(chosen, limit=limit, commutes=rules)
    lines = OutputLines()
    if form.kind == "table":
        print_conflicts(lines, form, found)
    else:
        write = lines.json if form.as_json else CsvLines().json
        for conflict in found:
            write(conflict.to_json())
    if not found and limit:
        _say_none(chosen)


def _print_pairs(found: ConflictSurvey, chosen: Filter, form: Form, limit: int | None) -> None:
    from esx.cli.conflict_tables import print_pairs
    from esx.times import clock

    lines = OutputLines()
    pairs = found.pairs[:limit]
    if form.kind == "table":
        print_pairs(lines, form, pairs)
    else:
        write = lines.json if form.as_json else CsvLines().json
        for pair in pairs:
            write(pair.to_json())
    if not found.pairs:
        _say_none(chosen)
        return
    total = f"{'' if found.exact else '~'}{counted(found.conflicts, 'conflict')}"
    told = f"{total} of {counted(len(found.pairs), 'pair')} from {clock(found.first_at)} to {clock(found.last_at)}"
    if (commuting := found.commuting) is not None:
        told += f"; {commuting / max(found.conflicts, 1):.0%} commute"
    narrate(told)
    if found.by_load_tests:
        narrate(f"{found.load_tests_text}; `esx load clean RUN` deletes those of a run")
    if found.more_pairs:
        incomplete("rarer pairs are left out: a filter chooses among them")
    began = found.oldest
    if found.full and began is not None and (chosen.since is None or chosen.since < began):
        incomplete(f"older conflicts have been dropped: the table keeps the newest, from {clock(began)} on")


def _say_none(chosen: Filter) -> None:
    if chosen:
        narrate("no conflict that was recorded passes the filter")
    else:
        narrate("no conflict is recorded: EventStore.connect(record_conflicts=True) does so (docs/conflicts.md)")
