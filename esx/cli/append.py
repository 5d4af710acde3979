"""esx append."""

from __future__ import annotations

import json
import sys
from typing import IO, TYPE_CHECKING
from uuid import UUID, uuid4

import click

from esx.cli.opening import with_store
from esx.cli.options import complete_file, completing, database_option, json_option
from esx.cli.output import OutputLines

if TYPE_CHECKING:
    from esx.eventstore import EventStore
    from esx.expected import ExpectedVersion
    from esx.model import AppendResult, NewEvent

_MEMBERS = ("event_type", "data", "metadata", "event_id")


def _expected(ctx: click.Context, parameter: click.Parameter, value: str) -> ExpectedVersion:
    from esx.expected import parse_expected

    try:
        return parse_expected(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from None


@click.command(name="append")
@click.argument("stream", shell_complete=completing("stream"))
@click.argument("event_type", metavar="[TYPE]", required=False, shell_complete=completing("type"))
@click.argument("data", required=False)
@click.option("--metadata", metavar="JSON", help="The event's metadata.")
@click.option(
    "--expected",
    callback=_expected,
    metavar="any|none|exists|N",
    default="any",
    show_default=True,
    help="The version the stream must be at: anything, no stream yet, an existing one, or exactly N.",
)
@click.option("--event-id", type=click.UUID, metavar="UUID", help="The event's own id (default: a random one).")
@click.option(
    "--ndjson",
    type=click.File("r", encoding="utf-8"),
    metavar="FILE",
    shell_complete=complete_file,
    help="Append a batch, all or none: a JSON object a line with event_type and, if wanted, data, metadata, event_id; "
    "- is stdin.",
)
@json_option
@database_option
def command(
    dsn: str | None,
    stream: str,
    event_type: str | None,
    data: str | None,
    metadata: str | None,
    expected: ExpectedVersion,
    event_id: UUID | None,
    ndjson: IO[str] | None,
    as_json: bool,
) -> None:
    """Append one event of TYPE with DATA (JSON, {} if left out, - reads it from stdin) to STREAM.

    Prints the stream, its new version and the event's global_seq. Exits with 3, and appends nothing, if the stream
    is not at the expected version.
    """
    if not stream:
        raise click.UsageError("STREAM is empty")
    if stream.startswith("$"):
        raise click.UsageError(f"{stream} is no stream: $ is kept for $all and its like")
    if ndjson is not None:
        if event_type or data or metadata or event_id:
            raise click.UsageError("--ndjson takes the type, data, metadata and event id from its lines, not from here")
        events = _batch(ndjson)
    elif not event_type:
        raise click.UsageError("which event? Give its TYPE, or a batch with --ndjson FILE")
    else:
        events = [_event(event_type, data, metadata, event_id)]

    from esx.errors import InvalidEvent

    async def work(store: EventStore) -> AppendResult:
        try:
            return await store.append(stream, events, expected=expected)
        except InvalidEvent as error:
            if ndjson is not None:
                raise
            raise click.ClickException(f"the event cannot be stored: {error.reason}") from None

    done = with_store(dsn, work)
    lines = OutputLines()
    if as_json:
        lines.value(done._asdict())
    else:
        lines.text(f"{done.stream_id}  version {done.version}  global_seq {done.global_seq}")


def _event(event_type: str, data: str | None, metadata: str | None, event_id: UUID | None) -> NewEvent:
    from esx.model import NewEvent
    from esx.store.bulk.jsontext import check_json

    try:
        text = sys.stdin.read() if data == "-" else data
    except UnicodeDecodeError as error:
        raise click.UsageError(f"DATA on stdin is not UTF-8: {error.reason}") from None
    parts = {"DATA": text if text is not None else "{}", "--metadata": metadata}
    checked = {}
    for name, part in parts.items():
        try:
            checked[name] = None if part is None else check_json(part)
        except ValueError as error:
            raise click.UsageError(f"{name} is not JSON: {error}") from None
    kept = None if checked["--metadata"] == "null" else checked["--metadata"]
    return NewEvent(event_type, checked["DATA"], kept, event_id or uuid4())


def _batch(lines: IO[str]) -> list[NewEvent]:
    from esx.model import JsonText, NewEvent
    from esx.store.bulk.jsontext import split_object

    events = []
    try:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                members = split_object(line)
                unknown = [name for name in members if name not in _MEMBERS]
                if unknown:
                    raise ValueError(f"{unknown[0]!r} is unknown: use {', '.join(_MEMBERS)}")
                event_type = json.loads(members.get("event_type", JsonText("null")))
                if not isinstance(event_type, str):
                    raise ValueError("event_type must be there, as a string")
                event_id = json.loads(members.get("event_id", JsonText("null")))
                metadata = members.get("metadata")
                events.append(
                    NewEvent(
                        event_type,
                        members.get("data", JsonText("{}")),
                        None if metadata == "null" else metadata,
                        uuid4() if event_id is None else UUID(event_id),
                    )
                )
            except RecursionError:
                raise click.UsageError(f"--ndjson, line {number}: event_type or event_id is nested too deep") from None
            except (ValueError, AttributeError, TypeError) as error:
                raise click.UsageError(f"--ndjson, line {number}: {error}") from None
    except UnicodeDecodeError as error:
        raise click.UsageError(f"--ndjson is not UTF-8: {error.reason}") from None
    if not events:
        raise click.UsageError("--ndjson holds no events: nothing to append")
    return events
