"""Saved runs: a file of JSON lines each, in the directory of esx's data.

The first line is a header (format, time, database, options), then comes the run's progress, a line a second, and its
summary last. A file is written under another name and renamed at the end, so ``<run>.ndjson`` is whole.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol, Self, TypeVar

import msgspec

from esx.embedded import data_directory
from esx.files import PartFile, private_directory
from esx.load.errors import LoadFailed
from esx.load.model import LoadOptions, LoadProgress, LoadSummary, from_dict, to_dict
from esx.text import visible


class Test(Protocol):
    """A load test under way: iterate over its lines, and end it with `stop` or `aclose`."""

    options: LoadOptions

    def __aiter__(self) -> AsyncIterator[LoadProgress | LoadSummary]: ...
    def stop(self) -> None:
        """End it with its summary."""

    async def aclose(self) -> None:
        """End it now."""


T = TypeVar("T")
FORMAT = 1
_ID = re.compile(r"[A-Za-z0-9_.]{1,64}")
_CHUNK = 1 << 16
_LONGEST_LINE = 64 << 20  # bytes looked at for a file's last line
_NONE_SAVED = "no run has been saved yet: `esx load` makes one"


class NoSuchRun(LoadFailed):
    """There is no saved run or sweep of that name, or its file cannot be read. The message has the remedy."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is known about a run before it begins. `database` is for people and holds no password."""

    started_at: datetime
    database: str
    options: LoadOptions
    sweep: str | None = None
    esx: str = ""


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A run with a line of progress for each second. `summary` is None if it ended without one."""

    id: str
    header: Header
    series: tuple[LoadProgress, ...]
    summary: LoadSummary | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A saved run without its series, for lists."""

    id: str
    header: Header
    summary: LoadSummary | None


class SavedFiles:
    """The saved runs, or sweeps, in one directory, which is made when the first is saved."""

    kind: ClassVar[str]
    suffix: ClassVar[str]
    hint: ClassVar[str] = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Return those in the data directory that `environ` names."""
        return cls(data_directory(environ).expanduser() / f"{cls.kind}s")

    def path(self, name: str) -> Path:
        """Return the file of that name. Raises NoSuchRun for a name that a file cannot have."""
        if not _ID.fullmatch(name) or not name.strip("."):
            raise NoSuchRun(f"{visible(name, limit=80)!r} is not the name of a run: `esx load runs` lists them")
        return self.directory / f"{name}{self.suffix}"

    def _read(self, name: str, read: Callable[[Path], T]) -> T:
        try:
            return read(self.path(name))
        except FileNotFoundError:
            raise NoSuchRun(f"no {self.kind} {name} is saved in {self.directory}{self.hint}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise NoSuchRun(f"the file of {self.kind} {name} cannot be read: {error}") from None


class Archive(SavedFiles):
    """The saved runs."""

    kind, suffix, hint = "run", ".ndjson", ": `esx load runs` lists what is"

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

    def runs_of(self, sweep: str, problems: list[str] | None = None) -> list[str]:
        """Return the ids of the saved runs of a sweep, the newest first; else as `entries`."""
        return [entry.id for entry in self.entries(problems) if entry.header.sweep == sweep]

    def load(self, run: str) -> SavedRun:
        """Read a run; ``last`` is the newest one. Raises NoSuchRun, also where a file that cannot be read is newer."""
        return self._read(self._last() if run == "last" else run, read_run)

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
            found = self.directory.iterdir()
            return sorted(path for path in found if path.suffix == self.suffix and not path.name.startswith("."))
        return []


class Recorder:
    """Saves the lines of one run as they come. A run without any line leaves no file."""

    def __init__(self, archive: Archive, header: Header) -> None:
        self._archive = archive
        self._header = header
        self._run = f"{header.started_at:%y%m%d%H%M%S}{secrets.randbelow(10_000):04d}"
        self._part: PartFile | None = None

    def line(self, line: LoadProgress | LoadSummary) -> None:
        """Add a line; raises OSError."""
        if self._part is None:
            private_directory(self._archive.directory)
            self._part = PartFile(self._archive.directory, f".{self._run}", private=True)
            self._part.open()
            self._write({"kind": "run", "format": FORMAT, **msgspec.to_builtins(self._header)})
        if isinstance(line, LoadSummary):
            self._run = line.run
        self._write(to_dict(line))

    def close(self) -> Path | None:
        """Give the file its name and return its path, None if there is nothing to keep; raises OSError."""
        part = self._part
        if part is None:
            return None
        path = self._archive.path(self._run)
        again = 1
        while path.exists():  # another run has that name
            again += 1
            path = self._archive.path(f"{self._run[:60]}.{again}")
        part.keep(path)
        self._part = None
        return path

    def discard(self) -> None:
        """Remove what has been written."""
        part, self._part = self._part, None
        if part is not None:
            with suppress(OSError):
                part.discard()

    def _write(self, fields: Mapping[str, Any]) -> None:
        assert self._part is not None
        self._part.file.write(msgspec.json.encode(fields) + b"\n")


class RecordedRun:
    """A load test that is saved as it runs, with the interface of the test itself.

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
        """End it now; the lines until now are kept."""
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


def read_run(path: Path) -> SavedRun:
    """Read a run's file. Raises OSError, and ValueError for another kind of file."""
    series: list[LoadProgress] = []
    summary: LoadSummary | None = None
    with path.open("rb") as file:
        header = read_saved(_object(file.readline()), "run", Header)
        for text in file:
            line = from_dict(_object(text))
            if isinstance(line, LoadSummary):
                summary = line
            else:
                series.append(line)
    return SavedRun(path.stem, header, tuple(series), summary)


def read_saved(found: Any, kind: str, type_: type[T]) -> T:
    """Return the object that was saved as this kind of file, without unknown fields. Raises ValueError."""
    if not isinstance(found, dict) or found.get("kind") != kind:
        raise ValueError(f"it is not a {kind} of esx")
    if found.get("format") != FORMAT:
        raise ValueError(f"its format is {found.get('format')!r}, this esx reads {FORMAT}: use the esx that wrote it")
    return msgspec.convert({**found, "plan": found}, type_)


def _entry(path: Path) -> Entry:
    with path.open("rb") as file:
        header = read_saved(_object(file.readline(_LONGEST_LINE)), "run", Header)
        last = from_dict(_object(_last_line(file)))
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


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        raise ValueError("it is not a run of esx, or is cut off") from None
    if not isinstance(found, dict):
        raise ValueError("it is not a run of esx")
    return found
