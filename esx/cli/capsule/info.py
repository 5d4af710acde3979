"""esx capsule info."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.capsule.opening import capsule_argument, opened
from esx.cli.opening import config
from esx.cli.options import json_option
from esx.cli.output import OutputLines
from esx.text import counted, lapse, size_of, visible
from esx.times import clock

if TYPE_CHECKING:
    from esx.capsule.format import CapsuleInfo


@click.command(name="info")
@capsule_argument
@json_option
def command(path: str, as_json: bool) -> None:
    """Say what is in a capsule: when and where it was recorded, and how much of what it has."""
    from esx.capsule.format import encode

    config()  # sets the time zone
    with opened(path) as capsule:
        lines = OutputLines()
        if as_json:
            lines.json(encode(capsule.info).decode().rstrip("\n"))
            return
        for name, text in _described(capsule.info):
            lines.text(f"{name:<11} {visible(text, limit=400)}")


def _described(info: CapsuleInfo) -> list[tuple[str, str]]:
    members = info.members
    took = (info.ended - info.begun).total_seconds()
    since = "the start" if info.since is None else clock(info.since)
    found = [
        ("recorded", f"{clock(info.begun)}, {f'followed for {lapse(took)}' if info.followed else 'not followed'}"),
        ("from", f"{info.database}, {info.store}, PostgreSQL {info.server}, by esx {info.esx}"),
        ("events", f"{counted(info.events, 'event')} after global_seq {info.after:,}, from {since} on"),
    ]
    if info.first is not None and info.last is not None:
        found.append(("numbers", f"{info.first:,} to {info.last:,}, all final up to {info.until:,}"))
    if info.filter is not None:
        found.append(("streams", f"only {info.filter}"))
    if info.masks:
        ids = ", and ids of streams and correlations" if info.masked_ids else ""
        found.append(("masked", f"{', '.join(info.masks)}{ids}: {counted(info.masked, 'value')}"))
    names = {"feed": "moment", "consumers": "change", "health": "sample", "doctor": "examination", "load": "second"}
    beside = [
        f"{name} {counted(members[f'{name}.ndjson'].lines, noun)}"
        for name, noun in names.items()
        if members[f"{name}.ndjson"].lines
    ]
    found += [("beside", ", ".join(beside)), ("unpacked", size_of(sum(each.bytes for each in members.values())))]
    return found + [("note", note) for note in info.notes]
