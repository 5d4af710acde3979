"""Masks values: pseudonyms in their place, wherever they are, and a check that none of them is left.

The first pass puts pseudonyms where the paths lead, and remembers the values. The second one, when all values are
known, puts the same pseudonyms wherever else a value of six or more characters stands: in texts, numbers and ids. Then
each line that goes into the file is searched once more, byte by byte. A value that stands where no pseudonym can be,
such as in the name of a member, makes the recording fail.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec

from esx.capsule.format import CONTENTS, EVENTS, KINDS
from esx.capsule.paths import MaskPath, below, find
from esx.capsule.pseudonyms import Pseudonyms
from esx.errors import EsxError
from esx.filters import CORRELATION_NAMES
from esx.fold.value import Number, dump, parse

LEAST = 6
"""How many characters a value has that is looked for everywhere; a shorter one stands in other texts by chance."""
_MOST = 1_000_000
_FIGURES = re.compile(r"(?=.*\d)[0-9.,:+\-eETZ /]+")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
_IDS = "an id"
_FREE = ("database", "filter")
"""What the contents say in the words of the user."""
_quote = json.encoder.encode_basestring


class MaskRefused(EsxError):
    """A masked value would remain in the capsule, or there are too many. Nothing was recorded."""


class Masker:
    """Masks the events and the other lines of one capsule: `first` for all events, `settle`, then the others.

    With `ids` the ids of streams (behind the `separator` that ends their category) and of correlations are masked too,
    the latter by the names that members of metadata have for them. Its methods raise MaskRefused.
    """

    def __init__(
        self,
        paths: Sequence[MaskPath],
        *,
        ids: bool = False,
        separator: str = "-",
        correlation: Sequence[str] = CORRELATION_NAMES,
    ) -> None:
        self.paths = tuple(path.text for path in paths)
        self.ids = ids
        self._paths = paths
        self._separator = separator
        self._correlation = correlation
        self._pseudonyms = Pseudonyms()
        self._short: set[str] = set()
        self._whole: set[str] = set()
        """Ids of streams with their categories: a part of each counts as masked already."""
        self._found: dict[str, str] = {}
        """The pseudonyms of values of six characters or more."""
        self._path_of: dict[str, str] = {}
        self._starts: dict[str, list[str]] = {}
        self._raw_starts: dict[bytes, list[tuple[bytes, str]]] = {}
        self._slices: list[slice] = []

    @property
    def masked(self) -> int:
        """How many different values were masked."""
        return len(self._short) + len(self._found) - len(self._whole)

    # -- the first pass ----------------------------------------------------------------------------------------

    def first(self, lines: bytes) -> bytes:
        """Return lines of events with pseudonyms where the paths lead."""
        return b"".join(self._first(line) for line in lines.split(b"\n") if line)

    def _first(self, line: bytes) -> bytes:
        event = parse(line.decode())
        masked: set[tuple[int, Any]] = set()
        # Kept until the end, as places are known by the identity of what they are in.
        roots = {column: {"": event.get(column)} for column in ("data", "metadata")}
        for path in self._paths:
            for holder, key in find(roots[path.column], path.steps):
                if (id(holder), key) not in masked:
                    # What is within is masked with it; deeper places that the path leads to come later.
                    for place in [(holder, key), *below(holder[key])]:
                        self._mask(*place, path.text, masked)
        for column, root in roots.items():
            if column in event:
                event[column] = root[""]
        if self.ids:
            self._mask_ids(event, masked)
        return dump(event).encode() + b"\n"

    def _mask(self, holder: Any, key: Any, path: str, masked: set[tuple[int, Any]]) -> None:
        value = holder[key]
        if (id(holder), key) not in masked:
            masked.add((id(holder), key))
            if value is not None and not isinstance(value, dict | list):
                holder[key] = self._pseudonym(value, path)

    def _mask_ids(self, event: dict[str, Any], masked: set[tuple[int, Any]]) -> None:
        stream = event["stream_id"]
        if stream:
            category, separator, rest = stream.partition(self._separator)
            masked_id = f"{category}{separator}{self._pseudonym(rest, _IDS)}" if rest else self._pseudonym(stream, _IDS)
            event["stream_id"] = masked_id
            # As a whole, too: a number behind the category is short, and events name the streams of others.
            if rest and len(stream) >= LEAST:
                self._whole.add(stream)
                self._found.setdefault(stream, masked_id)
                self._path_of.setdefault(stream, _IDS)
        metadata = event.get("metadata")
        for holder, names in ((metadata, self._correlation), (event, ("correlation_id",))):
            if isinstance(holder, dict):
                for name in names:
                    if name in holder:
                        self._mask(holder, name, _IDS, masked)

    def _pseudonym(self, value: Any, path: str) -> Any:
        if isinstance(value, bool):
            self._short.add(str(value))
            return self._pseudonyms.truth(value)
        made = self._pseudonyms.number(value) if isinstance(value, Number) else self._pseudonyms.text(value)
        if len(value) < LEAST:
            self._short.add(str(value))
            return made
        self._found.setdefault(str(value), str(made))
        self._path_of.setdefault(str(value), path)
        if len(self._found) > _MOST:
            raise MaskRefused(f"there are more than {_MOST:,} values to mask: record a shorter slice")
        return made

    # -- the second pass ---------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Note that all values are known."""
        for value in sorted(self._found, key=len, reverse=True):
            self._starts.setdefault(value[:LEAST], []).append(value)
            for raw in {_quote(value)[1:-1].encode("utf-8", "replace"), value.encode("utf-8", "replace")}:
                self._raw_starts.setdefault(raw[:LEAST], []).append((raw, value))

    def second(self, name: str, lines: Iterable[bytes]) -> bytes:
        """Return lines of a member, without their ends, with pseudonyms wherever a value stands; and check them."""
        done = []
        for line in lines:
            if self._may_hold(line):
                line = self._replaced(name, line)  # noqa: PLW2901
                self._check(name, line)
            done.append(line)
        done.append(b"")
        return b"\n".join(done)

    def _may_hold(self, line: bytes) -> bool:
        count = len(line) - LEAST + 1
        while len(self._slices) < count:
            self._slices.append(slice(len(self._slices), len(self._slices) + LEAST))
        # All of it in C: most lines hold none.
        return not self._raw_starts.keys().isdisjoint(map(line.__getitem__, islice(self._slices, max(count, 0))))

    def _replaced(self, name: str, line: bytes) -> bytes:
        value = parse(line.decode())
        if name == CONTENTS:
            for key in _FREE:
                value[key] = None if value[key] is None else self._in_text(value[key])
            value["notes"] = [self._in_text(note) for note in value["notes"]]
            return dump(value).encode()
        if name != EVENTS:
            for holder, key in list(below({"": value})):
                if isinstance(holder[key], str) and not isinstance(holder[key], Number):
                    text = holder[key]
                    holder[key] = text if _TIME.fullmatch(text) else self._in_text(text)
            return self._still_read(name, dump(value).encode())
        for column in ("data", "metadata", "data_note", "metadata_note"):
            root = {"": value.get(column)}
            for holder, key in list(below(root)):
                holder[key] = self._in_scalar(holder[key])
            if column in value:
                value[column] = root[""]
        for column in ("stream_id", "correlation_id", "causation_id"):
            text = value.get(column)
            if text is not None and (changed := self._in_text(text)) != text:
                if not self.ids:
                    raise MaskRefused(
                        f"a value of {self._path_in(text)} stands in {column} of event {value['global_seq']}, too: "
                        "mask ids with --mask-ids"
                    )
                value[column] = changed
        value["event_id"] = self._found.get(value.get("event_id") or "", value.get("event_id"))
        return dump(value).encode()

    def _still_read(self, name: str, line: bytes) -> bytes:
        kind = KINDS.get(name)
        try:
            if kind is not None:
                msgspec.json.decode(line, type=kind)
        except ValueError:
            raise MaskRefused(
                f"a masked value is a word that esx itself writes in {name}: it tells nothing there; leave its path out"
            ) from None
        return line

    def _in_scalar(self, value: Any) -> Any:
        if isinstance(value, Number):
            if str(value) in self._found:
                return Number(self._found[value]) if self._found[value].isdigit() else self._pseudonyms.number(value)
            return self._pseudonyms.number(value) if self._in_text(str(value)) != value else value
        return self._in_text(value) if isinstance(value, str) else value

    def _in_text(self, text: str) -> str:
        if text in self._found:
            return self._found[text]
        pieces = []
        at = begin = 0
        while at <= len(text) - LEAST:
            for value in self._starts.get(text[at : at + LEAST], ()):
                if text.startswith(value, at):
                    pieces += [text[begin:at], self._found[value]]
                    at = begin = at + len(value)
                    break
            else:
                at += 1
        return "".join((*pieces, text[begin:])) if pieces else text

    def _path_in(self, text: str) -> str:
        at = 0
        for at in range(len(text) - LEAST + 1):
            for value in self._starts.get(text[at : at + LEAST], ()):
                if text.startswith(value, at):
                    return self._path_of[value]
        return _IDS

    # -- the check ---------------------------------------------------------------------------------------------

    def _check(self, name: str, line: bytes) -> None:
        """Raise MaskRefused if a value is left in a line that goes into the file."""
        for at in range(len(line) - LEAST + 1):
            for raw, value in self._raw_starts.get(line[at : at + LEAST], ()):
                if line.startswith(raw, at) and not (_FIGURES.fullmatch(value) and self._is_ours(name, line, value)):
                    raise MaskRefused(
                        f"a value of {self._path_of[value]} would remain in {name}, where no pseudonym can be (a name "
                        "of a member, a type, or a word of esx's own): leave that path out, or record other streams"
                    )

    def _is_ours(self, name: str, line: bytes, figures: str) -> bool:
        """Return whether figures stand only in numbers and times that esx itself writes, as a global_seq is."""
        value = parse(line.decode())
        if name == EVENTS:
            parts = [value.get(each) for each in ("data", "metadata", "stream_id", "event_type")]
            return not any(figures in dump(part) for part in parts)
        texts = (holder[key] for holder, key in below({"": value}))
        return not any(
            figures in text
            for text in texts
            if isinstance(text, str) and not isinstance(text, Number) and not _TIME.fullmatch(text)
        )
