"""Runs that are kept: one file each, JSON lines, in the directory of esx's data.

The first line is a header (format, time, database, options, environment), then come the lines that the run told, a
second each, and its summary last. A file is written under another name and renamed at its end, so what is called
``<run>.ndjson`` is whole.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from esx.embedded import data_directory
from esx.files import Part, private_directory
from esx.load.errors import LoadFailed
from esx.load.model import LoadOptions, LoadProgress, LoadSummary, from_dict, to_dict
from esx.load.shape import check_shape
from esx.text import iso_utc, visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path
    from typing import IO, Protocol

    class Test(Protocol):
        """A load test under way: what is iterated over, and how it is ended."""

        options: LoadOptions

        def __aiter__(self) -> AsyncIterator[LoadProgress | LoadSummary]: ...
        def stop(self) -> None:
            """End it with its summary."""

        async def aclose(self) -> None:
            """End it now."""


FORMAT = 1
SUFFIX = ".ndjson"
_ID = re.compile(r"[A-Za-z0-9_.]{1,64}")
_CHUNK = 1 << 16
_LONGEST_LINE = 64 << 20  # bytes looked at for a file's last line
_NONE_SAVED = "no run has been saved yet: `esx load` makes one"


class NoSuchRun(LoadFailed):
    """There is no saved run of that name, or its file cannot be read. The message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a run before it begins. `database` is for people and holds no password."""

    started_at: datetime
    database: str
    options: LoadOptions
    sweep: str | None = None
    esx: str = ""


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A run as it was told, second by second. `summary` is None if it ended without one."""

    id: str
    header: Header
    series: tuple[LoadProgress, ...]
    summary: LoadSummary | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A saved run in a list: without its series."""

    id: str
    header: Header
    summary: LoadSummary | None


class Archive:
    """The saved runs in one directory, which is made when the first is saved."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Archive:
        """Return the archive that `environ` means."""
        return cls(data_directory(environ).expanduser() / "runs")

    def path(self, run: str) -> Path:
        """Return the file of a run; raises NoSuchRun for what cannot be a run's name."""
        return self.directory / f"{check_name(run)}{SUFFIX}"

    def entries(self, problems: list[str] | None = None) -> list[Entry]:
        """Return all saved runs, the newest first. What cannot be read is left out, with a line in `problems`."""
        found = []
        for path in self._files():
            try:
                found.append(_entry(path))
            except (OSError, ValueError) as error:
                if problems is not None:
                    problems.append(f"{visible(path.name, limit=80)} is left out: {visible(str(error), limit=200)}")
        found.sort(key=lambda entry: (entry.header.started_at, entry.id), reverse=True)
        return found

    def load(self, run: str) -> SavedRun:
        """Read a run; ``last`` is the newest one. Raises NoSuchRun, also where a file that cannot be read is newer."""
        if run == "last":
            run = self._last()
        path = self.path(run)
        try:
            return read_run(path)
        except FileNotFoundError:
            raise NoSuchRun(f"no run {run} is saved in {self.directory}: `esx load runs` lists what is") from None
        except (OSError, ValueError) as error:
            raise NoSuchRun(f"the file of run {run} cannot be read: {error}") from None

    def _last(self) -> str:
        problems: list[str] = []
        entries = self.entries(problems)
        if not entries:
            raise NoSuchRun(f"no run can be read: {problems[0]}" if problems else _NONE_SAVED)
        newest = self.path(entries[0].id).stat().st_mtime
        readable = {entry.id for entry in entries}
        for path in self._files():
            if path.stem not in readable and path.stat().st_mtime >= newest:
                raise NoSuchRun(
                    f"the last run may be {visible(path.name, limit=80)}, which cannot be read: name the one you mean"
                )
        return entries[0].id

    def _files(self) -> list[Path]:
        with suppress(FileNotFoundError, NotADirectoryError):
            return sorted(
                path for path in self.directory.iterdir() if path.suffix == SUFFIX and not path.name.startswith(".")
            )
        return []


class Recorder:
    """Writes one run down as it is told. Nothing is left behind of a run of which not a line was told."""

    def __init__(self, archive: Archive, header: Header) -> None:
        self._archive = archive
        self._header = header
        self._run = f"{header.started_at:%y%m%d%H%M%S}{secrets.randbelow(10_000):04d}"
        self._part: Part | None = None

    def line(self, line: LoadProgress | LoadSummary) -> None:
        """Add a line; raises OSError."""
        if self._part is None:
            private_directory(self._archive.directory)
            self._part = Part(self._archive.directory, f".{self._run}", private=True)
            self._part.open()
            self._write(_header_dict(self._header))
        if isinstance(line, LoadSummary):
            self._run = line.run
        self._write(to_dict(line))

    def close(self) -> Path | None:
        """Give the file its name and return it, None if there is nothing to keep; raises OSError."""
        part = self._part
        if part is None:
            return None
        path = self._archive.path(self._run)
        again = 1
        while path.exists():  # a name that was given twice
            again += 1
            path = self._archive.path(f"{self._run[:60]}.{again}")
        part.keep(path)
        self._part = None
        return path

    def discard(self) -> None:
        """Give up what has been written."""
        part, self._part = self._part, None
        if part is not None:
            with suppress(OSError):
                part.discard()

    def _write(self, fields: Mapping[str, Any]) -> None:
        assert self._part is not None
        self._part.file.write((json.dumps(fields, ensure_ascii=False, separators=(",", ":")) + "\n").encode())


class RecordedRun:
    """A load test that is saved as it goes: iterate over it, `stop` it and `aclose` it like the test itself.

    A run that cannot be saved goes on; `problem` then says why. `saved` is the file, once the run is over.
    """

    def __init__(self, test: Test, archive: Archive, database: str, *, sweep: str | None = None) -> None:
        from esx import __version__

        self.options = test.options
        self.saved: Path | None = None
        self.problem: str | None = None
        self._test = test
        self._recorder = Recorder(archive, Header(datetime.now(UTC), database, test.options, sweep, __version__))
        self._lines = self._follow()

    def __aiter__(self) -> AsyncIterator[LoadProgress | LoadSummary]:
        return self._lines

    def stop(self) -> None:
        """End it with its summary."""
        self._test.stop()

    async def aclose(self) -> None:
        """End it now; what it told until now is kept."""
        await self._lines.aclose()  # type: ignore[attr-defined]
        await self._test.aclose()

    async def _follow(self) -> AsyncIterator[LoadProgress | LoadSummary]:
        try:
            async for line in self._test:
                if self.problem is None:
                    try:
                        self._recorder.line(line)
                    except OSError as error:
                        self._failed(error)
                yield line
        finally:
            if self.problem is None:
                try:
                    self.saved = self._recorder.close()
                except (OSError, NoSuchRun) as error:
                    self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.problem = f"the run is not saved: {error}"
        self._recorder.discard()


def check_name(name: str) -> str:
    """Return a name that can be a file's, and no other; raises NoSuchRun."""
    if not _ID.fullmatch(name) or not name.strip("."):
        raise NoSuchRun(f"{visible(name, limit=80)!r} is not the name of a run: `esx load runs` lists them")
    return name


def read_run(path: Path) -> SavedRun:
    """Read a run's file; raises OSError, and ValueError if it is not one."""
    series: list[LoadProgress] = []
    summary: LoadSummary | None = None
    with path.open(encoding="utf-8") as file:
        header = _header_of(_json(file.readline()))
        for text in file:
            line = from_dict(_json(text))
            if not series or isinstance(line, LoadSummary):
                check_shape(line)  # not each of 86,400 lines: whoever wrote the first wrote the others
            if isinstance(line, LoadSummary):
                summary = line
            else:
                series.append(line)
    return SavedRun(path.stem, header, tuple(series), summary)


def _entry(path: Path) -> Entry:
    with path.open("rb") as file:
        header = _header_of(_json(_decoded(file.readline(_LONGEST_LINE))))
        last = from_dict(_json(_decoded(_last_line(file))))
        check_shape(last)
    return Entry(path.stem, header, last if isinstance(last, LoadSummary) else None)


def _last_line(file: IO[bytes]) -> bytes:
    at = file.seek(0, os.SEEK_END)
    pieces: list[bytes] = []
    size = 0
    while at > 0 and size < _LONGEST_LINE:
        step = min(_CHUNK, at)
        at -= step
        file.seek(at)
        piece = file.read(step)
        if not pieces:
            piece = piece.rstrip(b"\n")
        pieces.insert(0, piece)
        size += step
        if b"\n" in piece:
            break
    return b"".join(pieces).rpartition(b"\n")[2]


def _decoded(text: bytes) -> str:
    return text.decode("utf-8")


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise ValueError("it is not a run of esx, or is cut off") from None
    if not isinstance(found, dict):
        raise ValueError("it is not a run of esx")
    return found


def _header_dict(header: Header) -> dict[str, Any]:
    return {
        "kind": "run",
        "format": FORMAT,
        "esx": header.esx,
        "started_at": iso_utc(header.started_at),
        "database": header.database,
        "sweep": header.sweep,
        "options": asdict(header.options),
    }


def _header_of(found: Mapping[str, Any]) -> Header:
    if found.get("kind") != "run":
        raise ValueError("it is not a run of esx")
    if found.get("format") != FORMAT:
        raise ValueError(f"its format is {found.get('format')!r}, this esx reads {FORMAT}: use the esx that wrote it")
    try:
        sweep = found.get("sweep")
        return Header(
            datetime.fromisoformat(found["started_at"]),
            str(found["database"]),
            options_of(found["options"]),
            None if sweep is None else str(sweep),
            str(found.get("esx", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its first line cannot be read: {error!r}") from None


def options_of(found: Mapping[str, Any]) -> LoadOptions:
    """Return the options that were written down; what this esx does not know is left out. Raises ValueError."""
    known = {field.name for field in fields(LoadOptions)}
    options = LoadOptions(**{name: value for name, value in found.items() if name in known})
    check_shape(options)
    return options
