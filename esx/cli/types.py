"""esx types."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from esx.cli.forms import CsvLines, output_options
from esx.cli.opening import with_store
from esx.cli.options import as_moment, completing, database_option, partial_option
from esx.cli.output import OutputLines, incomplete, narrate, say_doubt
from esx.cli.pager import paged
from esx.cli.writing import FILE, check, force_option, write_text
from esx.text import counted, visible

if TYPE_CHECKING:
    from datetime import datetime

    from esx.cli.forms import Form
    from esx.eventstore import EventStore
    from esx.fold.type_shapes import TypeShape
    from esx.store.overview.types import TypeSurvey


@click.command(name="types")
@click.argument("glob", required=False, metavar="[GLOB]", shell_complete=completing("type"))
@click.option(
    "--since", callback=as_moment, metavar="TIME", help="Only events from about '2026-08-07 14:00' or -2h on."
)
@click.option("--full", is_flag=True, help="Count all events, which looks at each, instead of a sample.")
@click.option("--changed", is_flag=True, help="Only types whose shape changed, the last change first.")
@click.option("--save", type=FILE, metavar="FILE", help="Save the shapes of all types, for --check.")
@click.option("--check", "saved", type=FILE, metavar="FILE", help="Compare with saved shapes; exit with 1 on drift.")
@force_option
@output_options
@partial_option
@database_option
def command(
    dsn: str | None,
    glob: str | None,
    since: datetime | None,
    full: bool,
    changed: bool,
    save: Path | None,
    saved: Path | None,
    force: bool,
    form: Form,
) -> int:
    """List the event types: how many events, the rate, the first and the last, the categories of their streams.

    With GLOB, such as 'order*', show the shape of their data: each path with its JSON types, in how many of the samples
    it is, an example, and since or until when it is there. --json has both for each type.

    A store of more than 10,000 events is not read in full: some 5,000 are drawn by chance, among them the oldest and
    the newest. Counts are then estimates (~), a rare type can be missing, and it exits with 4, unless an index on
    event_type and global_seq finds all, or --full is given. Shapes come from at most 100 events of a type. A shape has
    changed if a path came or went by more than chance: one that is rare in the samples has not.

    --check is for CI: it prints how the shapes differ from FILE, and exits with 1 if they do.
    """
    from esx.fold.type_shapes import changed_first, read_saved, saved_text, type_shapes

    if save is not None and saved is not None:
        raise click.UsageError("--save writes what --check compares with: give one of them")
    if (glob is not None or changed) and (save is not None or saved is not None):
        raise click.UsageError("--save and --check are about all types: leave GLOB and --changed out")
    if save is not None:
        check(save, force=force)
    try:
        before = None if saved is None else read_saved(_text_of(saved))
    except ValueError as error:
        raise click.UsageError(f"{visible(str(saved))} {error}") from None

    async def work(store: EventStore) -> int:
        survey = await store.types(since=since, full=full)
        if survey.doubt is not None:
            say_doubt(survey.doubt)
        types = type_shapes(survey)
        if save is not None:
            write_text(save, saved_text(types, complete=survey.complete), force=force)
            _say_bounds(survey, narrate)
            narrate(f"saved the shapes of {counted(len(types), 'type')} in {visible(str(save))}")
            return 0
        if before is not None:
            _say_bounds(survey, narrate)
            return _print_drift(before.drift(types, complete=survey.complete), form)
        if glob is not None:
            types = _matching(types, glob)
        found = len(types)
        if changed:
            types = [one for one in changed_first(types) if one.changed_at is not None]
        _print(types, form, in_detail=glob is not None)
        if changed and found:
            narrate(f"{len(types) or 'none'} of {counted(found, 'type')} changed shape")
        elif not types:
            narrate("no events yet" if glob is None else f"no type that was found is like {visible(glob, limit=80)}")
        _say_bounds(survey, narrate if survey.complete else incomplete)
        return 0

    with paged(form.paged):
        return with_store(dsn, work, read_only=True)


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise click.FileError(str(path), error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8: --save writes such a file") from None


def _matching(types: list[TypeShape], glob: str) -> list[TypeShape]:
    """Return the types that the glob matches, as it does in a filter."""
    import re

    from esx.filters import Filter

    pattern = Filter(event_type=glob, any_case=True).type_pattern
    assert pattern is not None
    return [one for one in types if re.search(pattern.regex, one.summary.event_type, re.DOTALL)]


def _print(types: list[TypeShape], form: Form, *, in_detail: bool) -> None:
    from esx.cli.type_tables import print_shape, print_types

    lines = OutputLines()
    if form.kind != "table":
        write = lines.json if form.as_json else CsvLines().json
        for one in types:
            write(one.to_json())
    elif in_detail:
        for one in types:
            print_shape(lines, form, one)
    elif types:
        print_types(lines, form, types)


def _print_drift(drift: list[tuple[str, str]], form: Form) -> int:
    lines, csv = OutputLines(), CsvLines()
    for name, text in drift:
        if form.as_json:
            lines.value({"event_type": name, "drift": text})
        elif form.as_csv:
            csv.row({"event_type": name, "drift": text})
        else:
            lines.text(text)
    if not drift:
        narrate("the shapes are as they were saved")
    return 1 if drift else 0


def _say_bounds(survey: TypeSurvey, say: object) -> None:
    """Say what was looked at, where that is not all."""
    assert callable(say)
    if survey.looked_at and (not survey.complete or not survey.events.exact):
        looked = f"looked at {survey.looked_at:,} of {survey.events.text} events"
        rare = max(survey.events.count // max(survey.looked_at, 1), 1)
        missing = "" if survey.complete else f": a type with fewer than some {rare * 3:,} of them can be missing"
        say(f"{looked}{missing}{'' if survey.complete else ' (--full counts all)'}")
    if survey.large:
        narrate(f"left out of the shapes: {counted(survey.large, 'event')} of the sample, with more than 8 kB of data")
