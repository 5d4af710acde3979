"""NDJSON lines into rows for COPY, without decoding any payload.

A line as `esx export` writes it is cut apart at its fixed parts; any other is taken apart member by member. Either
way data and metadata reach PostgreSQL as the bytes they are, which keeps every digit, and PostgreSQL is the one to
say whether they are JSON. That also makes the quick cut safe: if both pieces are JSON values, then the line is the
object that it was cut as, for JSON can be read in one way only. If PostgreSQL refuses a piece, the cut may have been
wrong, and the line is taken apart member by member before it is called bad.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from esx.store.bulk.changes import Changes
from esx.store.bulk.jsontext import split_members
from esx.store.bulk.kurrent import KurrentLines
from esx.store.bulk.members import HIGHEST, optional_number, optional_text, shown

FIELDS = ("global_seq", "stream_id", "stream_seq", "event_type", "data", "metadata", "created_at", "event_id")
# What an export says of the events of other tools beside.
_NOTES = ("first", "data_note", "metadata_note")
_LINKS = ("correlation_id", "causation_id")
_KNOWN = frozenset((*FIELDS, *_NOTES, *_LINKS))
# Streams go on for a long time behind what is imported.
_HIGHEST_SEQ = HIGHEST - 2**59
_TEXT = rb'"([^"\\\x00-\x1f]+)"'
_NUMBER = rb"(0|[1-9][0-9]{0,17})"
_HEAD = re.compile(
    rb'\{"global_seq": ' + _NUMBER + rb', "stream_id": ' + _TEXT + rb', "stream_seq": ' + _NUMBER
    + rb'(?:, "first": ([0-9]))?, "event_type": ' + _TEXT + rb', "data": '
)  # fmt: skip
_TAIL = re.compile(
    rb', "created_at": "(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)", '
    rb'"event_id": "([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"\}'
)
_TAIL_LENGTH = len(', "created_at": "2026-01-01T00:00:00.000000Z", "event_id": ""}') + 36
_METADATA = b', "metadata": '
_TIME = re.compile(r"-?infinity|\d{4,6}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d(:?\d\d)?)( BC)?")


class BadLine(ValueError):
    """Line `number`, from 1, cannot be imported for `reason`."""

    def __init__(self, number: int, reason: str) -> None:
        self.number = number
        self.reason = reason
        super().__init__(f"line {number}: {reason}")


@dataclass(slots=True)
class ParsedLines:
    """Parsed lines, as columns: entry i of each list is about the same line.

    `texts` are the lines themselves, `rows` rows for COPY in its text format, `streams` the ids as UTF-8. `first` and
    `last` are each stream's first and last stream_seq, and `contiguous` says that there is no jump in between.
    """

    numbers: list[int] = field(default_factory=list)
    streams: list[bytes] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    event_ids: list[bytes] = field(default_factory=list)
    global_seqs: list[int] = field(default_factory=list)
    rows: list[bytes] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    first: dict[bytes, int] = field(default_factory=dict)
    last: dict[bytes, int] = field(default_factory=dict)
    contiguous: bool = True


class Parser:
    """Parses the lines of one import, in order; see `EventStore.import_ndjson` for what a line may hold.

    With `renumber`, stream_seq is counted per stream; so it is if the first line has none. With
    `keep_global_seq` the rows start with global_seq, which must not be above `highest`. With `faithful` nothing is
    filled in, and what esx itself would not write is taken too. With `from_kurrent` the lines are events of KurrentDB.
    `changes` counts what is not as in the lines.
    """

    def __init__(
        self,
        *,
        keep_global_seq: bool,
        renumber: bool,
        faithful: bool = False,
        no_stream: str | None = None,
        no_type: str | None = None,
        dollar_prefix: str | None = None,
        from_kurrent: bool = False,
    ) -> None:
        self._kurrent = KurrentLines(keep_system=dollar_prefix is not None) if from_kurrent else None
        self.highest = HIGHEST
        self.changes = Changes()
        self._no_stream = None if no_stream is None else no_stream.encode()
        self._no_type = no_type
        self._prefix = None if dollar_prefix is None else dollar_prefix.encode()
        self._keep = keep_global_seq
        self._faithful = faithful
        self._counting: bool | None = True if renumber else False if faithful else None
        self._renumber = renumber
        self._counts: _Counts | None = None
        self._global_seq = 0

    def parse(self, lines: Sequence[bytes], number: int) -> ParsedLines:
        """Parse `lines`, the first of which is line `number` of the import. Raises BadLine."""
        out = ParsedLines()
        last = out.last
        for number, line in enumerate(lines, number):  # noqa: B020, PLR1704 - goes on from where it starts
            text = line.strip(b" \t\r\n")
            if not text:
                continue
            try:
                if self._kurrent is None:
                    parts = self._quick(text) or self._exact(text, self.changes)
                elif (members := self._kurrent.members(text, self.changes)) is not None:
                    parts = self._taken(members, self.changes)
                else:
                    continue
                stream, global_seq, seq, row, event_id = parts
                before = last.get(stream)
                if before is None:
                    if not self._faithful:
                        _check_stream(stream)
                    out.first[stream] = seq
                elif seq != before + 1:
                    out.contiguous = False
                last[stream] = seq
                if self._keep:
                    self._check_global_seq(global_seq)
                    row = _numbered(global_seq, row)
            except UnicodeDecodeError as error:
                raise BadLine(number, f"it is not UTF-8: {error.reason}") from None
            except ValueError as error:
                raise BadLine(number, str(error)) from None
            out.numbers.append(number)
            out.streams.append(stream)
            out.seqs.append(seq)
            out.event_ids.append(event_id)
            out.global_seqs.append(global_seq)
            out.rows.append(row)
            out.texts.append(text)
        return out

    def exact_row(self, line: bytes) -> bytes | None:
        """Return the row of a parsed line, taken apart member by member; None where there was no other way.

        Raises ValueError for a line that only the quick cut let pass.
        """
        if self._counting is not False or not _HEAD.match(line):
            return None
        _, global_seq, _, row, _ = self._exact(line, Changes())  # it has been counted
        return _numbered(global_seq, row) if self._keep else row

    def _quick(self, line: bytes) -> tuple[bytes, int, int, bytes, bytes] | None:
        """Parse a line in the very form of an export; None for any other."""
        if self._counting is not False:
            return None
        head = _HEAD.match(line)
        at = len(line) - _TAIL_LENGTH
        tail = _TAIL.match(line, at) if head is not None and at > 0 else None
        if head is None or tail is None:
            return None
        data, between, metadata = _escaped(line[head.end() : at]).partition(_METADATA)
        if not between or _METADATA in metadata:
            return None
        global_seq, stream, seq, first, event_type = head.groups()
        if self._prefix is not None and stream.startswith(b"$"):
            return None
        if first is not None:
            if self._faithful or int(seq) < int(first):
                return None
            seq = b"%d" % (int(seq) - int(first))
            self.changes.translated += first != b"0"
        created_at, event_id = tail.groups()
        if metadata == b"null":
            metadata = rb"\N"
        row = b"\t".join((stream, seq, event_type, data, metadata, created_at, event_id))
        return stream, int(global_seq), int(seq), row, event_id

    def _exact(self, line: bytes, changes: Changes) -> tuple[bytes, int, int, bytes, bytes]:
        members = split_members(line)
        for name in members:
            if name not in _KNOWN:
                kurrent = "stream_name" in members or "eventNumber" in members
                hint = "--from-kurrent takes events of KurrentDB" if kurrent else f"use {', '.join(FIELDS)}"
                raise ValueError(f"{shown(name)} is unknown: {hint}")
        return self._taken(members, changes)

    def _taken(self, members: dict[str, bytes], changes: Changes) -> tuple[bytes, int, int, bytes, bytes]:
        """Make what is stored of the members of a line."""
        for name in ("stream_id", "event_type", "data"):
            if name not in members:
                raise ValueError(f"{name} is missing")
        if self._faithful:
            for name in ("global_seq", "stream_seq", "created_at", "event_id"):
                if members.get(name, b"null") == b"null":
                    raise ValueError(f"{name} is missing, and a faithful import makes up nothing")
            for name in (*_NOTES, *_LINKS):
                if name in members:
                    raise ValueError(f"it has {name}, as events of another tool, and --faithful is for esx's own")
        event_type = self._type(members, changes).encode()
        global_seq = optional_number(members, "global_seq")
        stream, seq = self._located(members, changes)
        data, metadata = members["data"], _linked(members, changes)
        created_at = optional_text(members, "created_at")
        if created_at is None:
            # PostgreSQL's word for the time at which the transaction began.
            created_at = "now"
            changes.times_made += 1
        elif not _TIME.fullmatch(created_at):
            raise ValueError(
                f"created_at {shown(created_at)} is not ISO 8601 with an offset, such as 2026-08-07T14:00:00.123456Z"
            )
        given = optional_text(members, "event_id")
        try:
            event_id = _derived_id(stream, seq, event_type, data, metadata) if given is None else UUID(given)
        except ValueError:
            raise ValueError(f"event_id {shown(given or '')} is not a UUID") from None
        changes.ids_made += given is None
        changes.data_lost += "data_note" in members
        changes.metadata_lost += "metadata_note" in members
        id_text = str(event_id).encode()
        row = b"\t".join(
            (
                _escaped(stream),
                b"%d" % seq,
                _escaped(event_type),
                _escaped(data),
                rb"\N" if metadata == b"null" else _escaped(metadata),
                created_at.encode(),
                id_text,
            )
        )
        return stream, -1 if global_seq is None else global_seq, seq, row, id_text

    def _type(self, members: dict[str, bytes], changes: Changes) -> str:
        if members["event_type"] not in (b"null", b'""') or self._faithful:
            return self._text(members, "event_type")
        if self._no_type is None:
            raise ValueError("event_type is empty: --no-type NAME gives such events a type")
        changes.without_type += 1
        return self._no_type

    def _located(self, members: dict[str, bytes], changes: Changes) -> tuple[bytes, int]:
        """Return the stream and the stream_seq of a line."""
        if members["stream_id"] in (b"null", b'""') and not self._faithful:
            if self._no_stream is None:
                raise ValueError(
                    "stream_id is empty, as of an event without a stream: --no-stream NAME puts such events into one"
                )
            changes.without_stream += 1
            return self._no_stream, self._counted(self._no_stream)
        stream = self._text(members, "stream_id").encode()
        if self._prefix is not None and stream.startswith(b"$"):
            stream = self._prefix + stream
            changes.prefixed += 1
        first = optional_number(members, "first") or 0
        given = optional_number(members, "stream_seq", any_sign=self._faithful)
        if given is not None and not self._faithful:
            if given < first:
                raise ValueError(f"stream_seq {given} comes before {first}, which is the first one")
            given -= first
        seq = self._place(stream, given)
        if given is not None:
            changes.translated += first > 0
            changes.renumbered += seq != given
        return stream, seq

    def _text(self, members: dict[str, bytes], name: str) -> str:
        text = optional_text(members, name)
        if text is None:
            raise ValueError(f"{name} is not a string")
        if not text and not self._faithful:
            raise ValueError(f"{name} is empty")
        return text

    def _place(self, stream: bytes, given: int | None) -> int:
        if self._counting is None:
            self._counting = given is None
        if not self._counting:
            if given is None:
                raise ValueError("stream_seq is missing, but the first line has one: give it in all lines or in none")
            if given > _HIGHEST_SEQ and not self._faithful:
                raise ValueError(
                    f"stream_seq {given} is too high, it leaves the stream few numbers to go on with: the highest is "
                    f"{_HIGHEST_SEQ}; --renumber counts from 0 again"
                )
            return given
        if given is not None and not self._renumber:
            raise ValueError("it has a stream_seq, but the first line has none: give it in all lines or in none")
        return self._counted(stream)

    def _counted(self, stream: bytes) -> int:
        if self._counts is None:
            self._counts = _Counts()
        return self._counts.next(stream)

    def _check_global_seq(self, global_seq: int) -> None:
        if global_seq < 1:
            raise ValueError("global_seq is missing, and it is to be kept")
        if global_seq > self.highest:
            raise ValueError(
                f"global_seq {global_seq} is too high to be kept, it leaves few numbers for the events to come: the "
                f"highest is {self.highest}; without --keep-global-seq or --faithful they get new numbers"
            )
        if global_seq <= self._global_seq:
            raise ValueError(f"global_seq {global_seq} does not ascend: it comes after {self._global_seq}")
        self._global_seq = global_seq


class _Counts:
    """Counts the lines of each stream, in a temporary file: there may be more streams than memory holds."""

    def __init__(self) -> None:
        # Parsing moves between threads, one at a time.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE counts (stream BLOB PRIMARY KEY, lines INTEGER NOT NULL) WITHOUT ROWID; BEGIN"
        )

    def next(self, stream: bytes) -> int:
        found = self._database.execute("SELECT lines FROM counts WHERE stream = ?", (stream,)).fetchone()
        count: int = 0 if found is None else found[0]
        self._database.execute("INSERT OR REPLACE INTO counts VALUES (?, ?)", (stream, count + 1))
        return count


def _linked(members: dict[str, bytes], changes: Changes) -> bytes:
    """Return the metadata of a line, with the ids of a trail that the old store has in columns of their own."""
    metadata = members.get("metadata", b"null")
    links = [name for name in _LINKS if members.get(name, b"null") != b"null"]
    if not links:
        return metadata
    if metadata not in (b"null", b"[]") and not metadata.startswith(b"{"):
        changes.links_lost += 1
        return metadata
    there = split_members(metadata) if metadata.startswith(b"{") else {}
    changes.linked += 1
    added = b", ".join(b'"%b": %b' % (name.encode(), members[name]) for name in links if name not in there)
    # The text of the others stays as it is.
    rest = metadata[1:] if there else b"}"
    return b"{" + added + (b", " if added and there else b"") + rest


def _check_stream(stream: bytes) -> None:
    if stream.decode().startswith("$"):
        raise ValueError(
            f"stream id {shown(stream.decode())} starts with $, which is kept for $all and its like: "
            "--dollar-prefix TEXT puts a text before such ids"
        )


def _derived_id(stream: bytes, seq: int, *parts: bytes) -> UUID:
    """Return the id of an event that brings none: made from what it is, so that it is the same next time."""
    digest = hashlib.sha256(b"\n".join((b"esx import", json.dumps(stream.decode()).encode(), b"%d" % seq)))
    for part in parts:
        digest.update(b"\n%d\n" % len(part))
        digest.update(part)
    made = bytearray(digest.digest()[:16])
    made[6] = 0x80 | made[6] & 0x0F  # version 8: an id made in a way of one's own
    made[8] = 0x80 | made[8] & 0x3F
    return UUID(bytes=bytes(made))


def _numbered(global_seq: int, row: bytes) -> bytes:
    return b"%d\t%b" % (global_seq, row)


def _escaped(value: bytes) -> bytes:
    """Return `value` as COPY's text format wants it."""
    return value.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
