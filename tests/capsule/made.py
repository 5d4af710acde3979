"""Capsules made by hand, whole and odd ones."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from esx.capsule.format import FEED, FORMAT, CapsuleInfo, FeedMoment, encode
from esx.capsule.writing import CapsuleWriter
from esx.store.feed.batch import Counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

BEGUN = datetime(2026, 8, 7, 14, 0, tzinfo=UTC)


def line(global_seq: int, stream: str = "s-1", seq: int | None = None, *, at: int = 0, **fields: Any) -> str:
    """Return the line of an event that was created `at` seconds after the recording began."""
    event = {
        "global_seq": global_seq,
        "stream_id": stream,
        "stream_seq": global_seq - 1 if seq is None else seq,
        "event_type": "T",
        "data": {"n": global_seq},
        "metadata": None,
        "created_at": f"{(BEGUN + timedelta(seconds=at)).replace(tzinfo=None).isoformat(timespec='microseconds')}Z",
        "event_id": f"00000000-0000-4000-8000-{global_seq:012}",
    }
    return json.dumps(event | fields, ensure_ascii=False)


def moment(at: float, position: int, **fields: Any) -> FeedMoment:
    """Return a moment of the feed, `at` seconds after the recording began."""
    return FeedMoment(BEGUN + timedelta(seconds=at), Counts(position), **fields)


def make(
    path: Path,
    lines: Iterable[str] = (),
    moments: Iterable[FeedMoment] = (),
    beside: Iterable[tuple[str, object]] = (),
    **fields: Any,
) -> Path:
    """Write a capsule that has these events, moments and lines of other members."""
    lines = list(lines)
    numbers = [json.loads(each)["global_seq"] for each in lines]
    with path.open("wb") as file, CapsuleWriter(file) as writer:
        for each in lines:
            writer.events(each.encode() + b"\n", 1)
        for seen in moments:
            writer.add(FEED, encode(seen))
        for name, value in beside:
            writer.add(name, encode(value))
        members = writer.members()
        given: dict[str, Any] = {
            "format": FORMAT,
            "esx": "0",
            "server": "18.4",
            "database": "shop",
            "store": "esx",
            "begun": BEGUN,
            "ended": BEGUN + timedelta(minutes=1),
            "since": BEGUN - timedelta(hours=1),
            "after": 0,
            "until": numbers[-1] if numbers else 0,
            "followed": False,
            "filter": None,
            "masks": (),
            "masked_ids": False,
            "masked": 0,
            "events": len(lines),
            "first": numbers[0] if numbers else None,
            "last": numbers[-1] if numbers else None,
            "notes": (),
            "members": members,
        }
        writer.finish(CapsuleInfo(**given | fields))
    return path


def members_of(path: Path) -> dict[str, bytes]:
    """Return the members of a zip."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Write a capsule again, with other members."""
    members = members_of(path)
    change(members)
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    path.write_bytes(kept.getvalue())
    return path
