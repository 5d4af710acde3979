"""The filter of a command: its words, in the language of docs/filters.md, and the options that are a part of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from esx.cli.options import completing

if TYPE_CHECKING:
    from datetime import datetime

    from esx.eventstore import EventStore
    from esx.filters import Filter

filter_argument = click.argument("words", nargs=-1, metavar="[FILTER]...", shell_complete=completing("filter"))
"""Words that the command receives as `words`, for `filter_of`."""


def filter_of(
    words: tuple[str, ...],
    *,
    stream: str | None = None,
    event_type: str | None = None,
    where: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    of_one: bool = False,
) -> Filter:
    """Return the filter of the words and of the options, which have to hold both. Raises UsageError.

    `of_one` says that it chooses among the events of one stream.
    """
    from esx.filters import Filter

    options = Filter(stream, event_type, where, since=since, until=until)
    chosen = parse_words(words, of_one=of_one)
    for option, part in (("--stream", "stream"), ("--type", "event_type"), ("--since", "since"), ("--until", "until")):
        if getattr(options, part) is not None and getattr(chosen, part) is not None:
            name = {"event_type": "type"}.get(part, part)
            raise click.UsageError(f"{option} and {name}: in the filter choose the same: give one of them")
    return Filter(
        options.stream if chosen.stream is None else chosen.stream,
        options.event_type if chosen.event_type is None else chosen.event_type,
        chosen.where if where is None else where,
        chosen.also if where is None else chosen.paths,
        chosen.members,
        since or chosen.since,
        until or chosen.until,
        any_case=chosen.any_case and stream is None and event_type is None,
        mentions=chosen.mentions,
    )


def parse_words(words: tuple[str, ...], *, of_one: bool = False) -> Filter:
    """Return the filter that the words of a command are; `of_one` as in `filter_of`. Raises InvalidQuery."""
    from esx.filters import Filter

    if not words:
        return Filter()
    from esx.cli.opening import config
    from esx.filter_language import Dialect, parse_filter

    bare = "type" if of_one else "stream"
    return parse_filter(" ".join(words), Dialect(bare=bare, correlation=config().fields.correlation))


def split_times(chosen: Filter) -> tuple[Filter, datetime | None, datetime | None]:
    """Return the filter without its times, and these."""
    return replace(chosen, since=None, until=None), chosen.since, chosen.until


async def first_after(store: EventStore, moment: datetime) -> int:
    """Return the global_seq after which all events from a time on are, and say so where that is not certain."""
    from esx.cli.output import say_doubt
    from esx.positions import Position

    place = await store.locate(Position(moment=moment))
    if place.doubt is not None:
        say_doubt(place.doubt)
    return (place.end if place.first is None else place.first) - 1


async def like_type(store: EventStore, chosen: Filter) -> str:
    """Return what to say where nothing passes: the types that may have been meant."""
    from esx.fold.vocabulary import types_like

    return types_like(chosen, await store.known_types()) if chosen.event_type or chosen.stream else ""
