"""Opening what a load test appends with, as its options say."""

from __future__ import annotations

from esx.eventstore import EventStore
from esx.load.errors import LoadFailed
from esx.load.model import LoadOptions
from esx.store.appenders.append_file import read_append_file
from esx.store.appenders.protocol import StreamAppender
from esx.store.appenders.statement import StatementAppender

_MOST_KEPT = 10_000


async def open_appender(store: EventStore, options: LoadOptions) -> StreamAppender:
    """Return the appender that the options name, the store itself by default. It is checked, and nothing is written.

    Raises EsxError, in one line with the remedy, if it cannot append to this store.
    """
    if options.by_esx:
        return await store.own_appender()
    how = options.appender if options.append_sql is None else read_append_file(options.append_sql)
    appender = await store.other_appender(how)
    if options.expected == "any" and not appender.tells_version:
        raise LoadFailed(
            f"{appender.called} returns no column version, so with --expected any nothing tells where an event was "
            "stored: return the version, or use --expected exact with :version"
        )
    return appender


def told(appender: StreamAppender, store: EventStore) -> str | None:
    """Return a line about an appender other than esx's own: what it writes to, and that this stays there."""
    if not isinstance(appender, StatementAppender):
        return None
    return f"appends by {appender.called}: events of streams load-RUN-N, which stay in {store.address}"


def described(appender: StreamAppender) -> dict[str, str]:
    """Return what appended, for a run's summary: a file may have changed when the summary is read."""
    if not isinstance(appender, StatementAppender):
        return {}
    text = {} if appender.text is None else {"statement": appender.text[:_MOST_KEPT]}
    return {"appended by": appender.called, **text}
