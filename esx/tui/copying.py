"""A view as a command and as a query, to be pasted elsewhere."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from esx.database import without_secrets
from esx.store.views import EventsView, EventView, FeedView, StreamsView, TrailView
from esx.text import iso_utc, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esx.database import Database
    from esx.store.barrier import Filter
    from esx.store.views import View


def command_of(view: View, database: Database | None = None, limit: int | None = None) -> str:
    """Return the esx command that prints the rows of `view`, at most `limit`, as it is typed in a shell.

    `database` is named without its password. What a terminal would obey is written as ``$'\\x1b'``, which bash, zsh and
    ksh know.
    """
    return " ".join(map(quoted, ["esx", *_arguments(view, limit, _database(database))]))


def quoted(text: str) -> str:
    """Return `text` as one word for a shell."""
    if visible(text) == text:
        return shlex.quote(text)
    escaped = (
        "".join(f"\\x{byte:02x}" for byte in char.encode()) if visible(char) != char or char in "\\'" else char
        for char in text
    )
    return f"$'{''.join(escaped)}'"


def _database(database: Database | None) -> list[str]:
    if database is None:
        return []
    store = [] if database.store is None else ["--store", database.store]
    if database.name is not None or database.embedded:
        return ["-d", database.name or "embedded", *store]
    return store if database.dsn is None else ["-d", without_secrets(database.dsn), *store]


def _arguments(view: View, limit: int | None, database: list[str]) -> Sequence[str]:
    most = [] if limit is None else [f"--limit={limit}"]
    if isinstance(view, StreamsView):
        options = [f"--prefix={view.prefix}"] if view.prefix else []
        options += [f"--match={view.match}"] if view.match is not None else []
        options += [f"--contains={view.contains}"] if view.contains is not None else []
        options += ["--sort=recent"] if view.recent else []
        return ["streams", *options, *most, *database]
    if isinstance(view, EventsView):
        options = _filter(view.where)
        options += [f"--since={iso_utc(view.since)}"] if view.since is not None else []
        options += [f"--until={iso_utc(view.until)}"] if view.until is not None else []
        options += [f"--from={view.start}"] if view.start is not None else []
        options += ["--backwards"] if view.backwards else []
        stream = "$all" if view.stream_id is None else view.stream_id
        # Behind -- nothing is an option, whatever a stream is called.
        return ["read", *options, *most, *database, *(["--"] if stream.startswith("-") else []), stream]
    if isinstance(view, EventView):
        return ["read", f"--from={view.global_seq}", "--limit=1", *database, "$all"]
    if isinstance(view, FeedView):
        streams = [f"--stream={view.where.stream}"] if view.where.stream is not None else []
        return ["tail", f"--from={view.after}", *streams, *_filter(view.where), *database]
    assert isinstance(view, TrailView)
    scan = [] if view.scan is None else [f"--scan={view.scan}"]
    return ["trail", *scan, *database, str(view.global_seq)]


def _filter(where: Filter) -> list[str]:
    chosen = [f"--type={where.event_type}"] if where.event_type is not None else []
    return chosen + ([f"--where={where.where}"] if where.where is not None else [])
