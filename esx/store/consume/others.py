"""How far the consumers of another tool's store are, by what that tool keeps itself."""

import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import asyncpg

from esx.errors import OwnerNotTrusted
from esx.layouts.foreign.checkpoints import checkpoint_tables, surroundings
from esx.layouts.foreign.tables import StoreTable
from esx.layouts.layout import Layout
from esx.layouts.trust import check_owners
from esx.postgres.driver_errors import first_line, is_cancelled
from esx.postgres.session import Session
from esx.postgres.values import fetch
from esx.store.consume.ages import read_ages
from esx.text import ago, encodable, iso_utc, lapse, visible

MOST = 1000
_NUMBER = re.compile(r"-?0*[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """How far a consumer of another tool's store is.

    `position` is the number of the global order that it keeps, None if it keeps none; then `at` is what it keeps, as
    text. `head` is the highest number of the store. `state`, `owner` and `last_error` are what the tool has noted, and
    `updated_at` when it has noted it; None where it does not. `lag_seconds` is the age of the first visible event after
    the position: 0 if there is none, None where it is not known. One that is `apart` cannot be behind the events of
    this store: it reads another one, or works in the transaction that appends.
    """

    name: str
    position: int | None
    at: str | None
    head: int
    state: str | None = None
    owner: str | None = None
    last_error: str | None = None
    updated_at: datetime | None = None
    lag_seconds: float | None = None
    apart: bool = False

    @property
    def lag(self) -> int | None:
        """How many numbers the position is behind the head, None where no position is known.

        Numbers without an event and events that it does not want count too.
        """
        return None if self.position is None else max(self.head - self.position, 0)

    @property
    def beyond(self) -> int:
        """How far the position is above the head; 0 if it is not."""
        return 0 if self.position is None else max(self.position - self.head, 0)

    @property
    def progress(self) -> str:
        """Where it is, for people: ``at 300, ~126 behind (2 d 4 h)``."""
        if self.position is None:
            return "not begun" if self.at is None else f"at {self.at}"
        behind = f"{'~' if self.lag else ''}{self.lag:,} behind"
        if self.age_text:
            behind += f" ({self.age_text})"
        return f"at {self.position:,}, {f'{self.beyond:,} beyond the head' if self.beyond else behind}"

    @property
    def age_text(self) -> str:
        """How old the oldest event is that is not handled, for people; "" if there is none, or it is not known."""
        return lapse(self.lag_seconds) if self.lag and self.lag_seconds is not None else ""

    @property
    def text(self) -> str:
        """The same with what its tool has noted beside, the longest last."""
        parts = [self.progress, self.state, self.owner and f"owner {self.owner}"]
        if self.updated_at is not None:
            when = ago(self.updated_at)
            parts.append(f"noted {when} ago" if when[0].isdigit() else f"noted {when}")
        if self.position is not None:
            parts.append(self.at)
        return ", ".join(part for part in parts if part)

    def to_json(self) -> str:
        """Return it as one line of NDJSON; null is what is not known."""
        fields = {
            "name": self.name,
            "kind": "other",
            "state": self.state,
            "position": self.position,
            "at": self.at,
            "head": self.head,
            "beyond_head": self.beyond,
            "lag": self.lag,
            "lag_exact": self.lag == 0,
            "lag_seconds": self.lag_seconds,
            "last_error": self.last_error,
            "owner": self.owner,
            "updated_at": None if self.updated_at is None else iso_utc(self.updated_at),
        }
        return encodable(json.dumps(fields, ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class OtherConsumers:
    """The consumers of another tool's store, by name, at most 1,000; `notes` tell in a line each which are left out."""

    consumers: tuple[ConsumerStatus, ...] = ()
    notes: tuple[str, ...] = ()


async def distrusted(connection: asyncpg.Connection, layout: Layout, table: StoreTable) -> str | None:
    """Return why a table beside the events is not read, where its owner is not trusted; None if he is."""
    try:
        await check_owners(connection, replace(layout, base=table.oid, beside=()))
    except OwnerNotTrusted as error:
        return str(error)
    return None


async def read_others(connection: Session, layout: Layout, *, trust_owner: bool = False) -> OtherConsumers:
    """Read the checkpoints that consumers keep in the schema of the store; costs the same at any size of the store.

    A table that cannot be read, or whose owner is not trusted, is a note.
    """
    if layout.foreign is None or layout.base is None or not layout.foreign.kind.checkpoints:
        return OtherConsumers()
    kind = layout.foreign.kind
    tables = await surroundings(connection, kind, layout.base)
    if tables is None:
        return OtherConsumers()
    found_tables, notes = checkpoint_tables(kind, tables)
    head = await connection.fetchval(f"SELECT {layout.head()}")
    consumers: list[ConsumerStatus] = []
    for found in found_tables:
        try:
            note = found.problem
            if note is None and not trust_owner:
                note = await distrusted(connection, layout, found.table)
            if note is None:
                rows = await fetch(connection, found.query(MOST + 1 - len(consumers)))
                if found.columns.cut and any(row[0] is None for row in rows):
                    note, rows = found.columns.cut, [row for row in rows if row[0] is not None]
                consumers += [_status(row, head, numbered=layout.numbered) for row in rows]
        except asyncpg.PostgresError as error:
            if is_cancelled(error):
                raise
            await connection.recover()
            note = f"{visible(found.table.quoted, limit=200)} cannot be read: {first_line(error)}"
        if note is not None:
            notes.append(note)
    if len(consumers) > MOST:
        notes.append(f"there are more consumers than {MOST:,}, which are not listed")
        del consumers[MOST:]
    consumers = await _with_ages(connection, layout, consumers)
    return OtherConsumers(tuple(sorted(consumers, key=lambda each: each.name)), tuple(notes))


async def _with_ages(connection: Session, layout: Layout, consumers: list[ConsumerStatus]) -> list[ConsumerStatus]:
    behind = {each.position for each in consumers if each.position is not None and each.lag}
    ages = await read_ages(connection, layout, behind)
    return [
        replace(each, lag_seconds=0.0 if each.lag == 0 else None if each.position is None else ages.get(each.position))
        for each in consumers
    ]


def _status(row: Any, head: int, *, numbered: bool) -> ConsumerStatus:
    name, number, at, state, owner, error, updated_at, apart = row
    position = int(number) if numbered and number is not None and _NUMBER.fullmatch(number) else None
    at = at if at is not None or position is not None else number
    return ConsumerStatus(
        name or "", position, at, head, state, owner, error, _moment(updated_at), apart=apart == "true"
    )


def _moment(text: str | None) -> datetime | None:
    """Return the time that a tool wrote; None for what is none that Python has."""
    try:
        found = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found is None or found.tzinfo is not None else found.replace(tzinfo=UTC)
