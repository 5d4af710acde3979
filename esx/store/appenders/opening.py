"""Opening a way to append: what can be known to fail, or could not be judged, is refused before anything is written."""

from __future__ import annotations

from esx.errors import StoreFailed
from esx.layouts.layout import Layout
from esx.layouts.stream_keys import Joined
from esx.postgres.session import Session
from esx.store.appenders.append_file import AppendFile
from esx.store.appenders.marten import MartenAppender
from esx.store.appenders.messagedb import MessageDbAppender
from esx.store.appenders.sql import SqlAppender
from esx.store.appenders.statement import Lend, StatementAppender

BUILT_IN: dict[str, type[MessageDbAppender | MartenAppender]] = {
    "messagedb": MessageDbAppender,
    "marten": MartenAppender,
}
"""The ways that need no file, by the kind of their store."""


async def open_way(lend: Lend, session: Session, layout: Layout, how: str | AppendFile) -> StatementAppender:
    """Return what appends to the store of this layout as a file says, or as the kind of a store does.

    Raises StoreFailed, in one line with the remedy.
    """
    if isinstance(how, AppendFile):
        return await SqlAppender.open(lend, session, layout, how)
    kind = None if layout.foreign is None else layout.foreign.kind
    if kind is None or kind.name != how:
        other = "esx" if kind is None else kind.title
        raise StoreFailed(f"{layout.called} is a store of {other}: --appender {how} appends to its own kind alone")
    return await BUILT_IN[how].open(lend, session, layout)


def check_judged(layout: Layout) -> None:
    """Raise StoreFailed for a table in which the events of a load test could not be found again."""
    if isinstance(layout.keys, Joined):
        kind = "UUIDs" if any(layout.keys.uuids) else "several columns"
        raise StoreFailed(
            f"the streams of {layout.called} are named by {kind}, and a load test's are called load-RUN-N: use a store "
            "whose stream ids are texts"
        )
    if layout.event_id is None:
        raise StoreFailed(
            f"the events of {layout.called} have no ids, by which the verdict knows them: name a view with a column "
            "event_id, by --store"
        )


def check_own(layout: Layout) -> None:
    """Raise StoreFailed if esx cannot append here itself; for another tool's store it names the way."""
    if layout.foreign is not None:
        kind = layout.foreign.kind.name
        how = f"--appender {kind} or --append-sql FILE" if kind in BUILT_IN else "--append-sql FILE"
        raise StoreFailed(f"{layout.refuses_appends}: to append as that tool does, name {how}")
    layout.check_appends()
