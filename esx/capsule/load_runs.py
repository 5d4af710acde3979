"""The seconds of load tests that ran while a capsule was recorded, from the runs saved on this machine."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from esx.capsule.format import LoadSecond
from esx.load.archive import Archive, NoSuchRun
from esx.load.model import LoadProgress, LoadSummary, to_dict

_MOST = 100_000


def seconds_between(archive: Archive, begin: datetime, end: datetime, database: str) -> list[LoadSecond]:
    """Return the lines of the saved runs against a database that ran between two times, at most 100,000."""
    found: list[LoadSecond] = []
    for entry in archive.entries():
        header = entry.header
        longest = timedelta(seconds=2 * (header.options.warm_up + header.options.duration) + 60)
        if header.database != database or not begin - longest <= header.started_at <= end:
            continue
        with suppress(NoSuchRun):
            run = archive.load(entry.id)
            lines: list[LoadProgress | LoadSummary] = [*run.series]
            if run.summary is not None:
                lines.append(run.summary)
            for line in lines:
                at = header.started_at + timedelta(seconds=line.elapsed)
                if begin <= at <= end:
                    found.append(LoadSecond(at, entry.id, to_dict(line)))
    return found[:_MOST]
