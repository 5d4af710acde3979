"""Masks values: pseudonyms in their place, wherever they are, and a check that none of them is left.

The first pass puts pseudonyms where the paths lead, and remembers the values. The second one, when all values are
known, puts the same pseudonyms wherever else a value of six or more characters stands: in texts, numbers and ids. Then
each line that goes into the file is searched once more. A value that stands where no pseudonym can be, such as in the
name of a member, makes the recording fail.

A pseudonym can have a value in it by chance, as a number of 15 digits has several of six. It is then made anew; if
nearly all such numbers are values, it stays, and is passed over as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from esx.capsule.format import CONTENTS, EVENTS, FEED, KINDS
from esx.capsule.paths import MaskPath, below, find
from esx.capsule.pseudonyms import Pseudonyms
from esx.capsule.spellings import LEAST, LONGEST, UUID, Spellings, plain_number, spellings
from esx.errors import EsxError
from esx.filters import CORRELATION_NAMES
from esx.fold.value import Number, dump, parse
from esx.text import encodable

_MOST = 1_000_000
_MOST_CHARACTERS = 2**28
_TRIES = 30
_FIGURES = re.compile(r"(?=.*\d)[0-9.,:+\-eETZ /]+")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
_SUM = re.compile(r"[0-9a-f]{64}")
_IDS = "an id"
_NONE_MISSED = b'"missed":[]'
_FREE = ("database", "filter")
"""What the contents say in the words of the user."""
_OURS = ("global_seq", "stream_seq", "first")
"""What esx itself writes of an event, beside its time."""


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
        self._characters = 0
        self._made: set[str] = set()
        """All pseudonyms that the first pass made."""
        self._sought = Spellings()
        self._put: dict[str, str] = {}
        """What stands in place of what is sought, as it is last."""

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
        return _line(event) + b"\n"

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
            masked_id = f"{category}{separator}{self._pseudonym(rest or stream, _IDS)}" if rest else None
            event["stream_id"] = masked_id or self._pseudonym(stream, _IDS)
            # As a whole, too: a number behind the category is short, and events name the streams of others.
            if masked_id is not None and len(stream) >= LEAST:
                self._whole.add(stream)
                self._remember(stream, masked_id, _IDS)
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
        self._made.add(str(made))
        if len(value) < LEAST:
            self._short.add(str(value))
        else:
            self._remember(str(value), str(made), path)
        return made

    def _remember(self, value: str, made: str, path: str) -> None:
        if value in self._found:
            return
        self._found[value] = made
        self._path_of[value] = path
        self._characters += len(value)
        if len(self._found) > _MOST or self._characters > _MOST_CHARACTERS:
            raise MaskRefused(
                f"there are more than {_MOST:,} values to mask, or more than {_MOST_CHARACTERS:,} characters of them: "
                "record a shorter slice"
            )

    # -- the second pass ---------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Note that all values are known."""
        for value, made in self._found.items():
            self._put[value] = made
            for spelling in spellings(value):
                self._sought.add(spelling, value)
            # The same number, however it is written.
            self._sought.add(plain_number(value), value)
            self._put.setdefault(plain_number(value), made)
        for made in sorted(self._made):
            self._without_values(made)
        for value, made in list(self._put.items()):
            self._put[value] = self._in_text(made)

    def _without_values(self, made: str) -> str:
        """Return a pseudonym, or another one in its place if a value stands in it by chance."""
        found = made
        for _ in range(_TRIES):
            if self._has_none(found):
                break
            found = str(self._pseudonyms.number(found) if found.isdecimal() else self._pseudonyms.text(found))
        else:
            # Passed over from now on.
            self._sought.add(found, found)
            self._put[found] = found
        if found != made:
            self._sought.add(made, made)
            self._put[made] = found
        return found

    def _has_none(self, text: str) -> bool:
        """Return whether nothing has to be put into a text any more."""
        return not self._sought.may_stand_in(text.encode("utf-8", "surrogatepass")) or all(
            self._is_kept(match.value) for match in self._sought.first_in(text)
        )

    def _is_kept(self, value: str) -> bool:
        return self._put[value] == value

    def second(self, name: str, lines: Iterable[bytes]) -> bytes:
        """Return lines of a member, without their ends, with pseudonyms wherever a value stands; and check them."""
        done = []
        for line in lines:
            if self._sought.may_stand_in(line) or (self.ids and name == FEED and _NONE_MISSED not in line):
                line = self._replaced(name, line)  # noqa: PLW2901
                self._check(name, line)
            done.append(line)
        done.append(b"")
        return b"\n".join(done)

    def _replaced(self, name: str, line: bytes) -> bytes:
        value = parse(line.decode())
        if name == CONTENTS:
            for key in _FREE:
                value[key] = None if value[key] is None else self._in_text(value[key])
            value["notes"] = [self._in_text(note) for note in value["notes"]]
        elif name == EVENTS:
            self._in_event(value)
        else:
            if name == FEED and self.ids:
                # No event tells the ids of those that were missed.
                for missed in value.get("missed", ()):
                    missed[1] = self._masked_id(missed[1])
            for holder, key in list(below({"": value})):
                if isinstance(holder[key], str) and not isinstance(holder[key], Number):
                    text = holder[key]
                    holder[key] = text if _TIME.fullmatch(text) else self._in_text(text)
            return self._still_read(name, _line(value))
        return _line(value)

    def _in_event(self, event: dict[str, Any]) -> None:
        for column in ("data", "metadata", "data_note", "metadata_note"):
            root = {"": event.get(column)}
            for holder, key in list(below(root)):
                scalar = holder[key]
                if isinstance(scalar, Number):
                    holder[key] = self._in_number(scalar)
                elif isinstance(scalar, str):
                    holder[key] = self._in_text(scalar)
            if column in event:
                event[column] = root[""]
        for column in ("event_id", "correlation_id", "causation_id", "stream_id"):
            text = event.get(column)
            if text is None or (changed := self._in_text(text)) == text:
                continue
            if column == "stream_id" and not self.ids:
                path = self._path_of.get(next(self._sought.first_in(text)).value, _IDS)
                raise MaskRefused(
                    f"a value of {path} stands in {column} of event {event['global_seq']}, too: mask ids with "
                    "--mask-ids"
                )
            event[column] = changed

    def _masked_id(self, stream: str) -> str:
        category, separator, rest = stream.partition(self._separator)
        made = self._without_values(self._pseudonyms.text(rest or stream))
        return self._in_text(f"{category}{separator}") + made if rest else made

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

    def _in_number(self, number: Number) -> Number:
        put = self._put.get(str(number)) or self._put.get(plain_number(number))
        if put is not None and put.isdecimal():
            return Number(put)
        if put is None and self._has_none(number):
            return number
        return Number(self._without_values(self._pseudonyms.number(number)))

    def _in_text(self, text: str) -> str:
        if len(text) < LEAST:
            return text
        if text in self._put:
            return self._put[text]
        pieces, at = [], 0
        for match in self._sought.first_in(text):
            if match.cut or UUID.fullmatch(text):
                return self._without_values(self._pseudonyms.text(text))
            # Of two values that differ in case only, that which stands there.
            put = self._put.get(text[match.begin : match.end]) or self._put[match.value]
            pieces += [text[at : match.begin], put]
            at = match.end
        if not pieces:
            return text
        done = "".join((*pieces, text[at:]))
        return done if self._has_none(done) else self._without_values(self._pseudonyms.text(text))

    # -- the check ---------------------------------------------------------------------------------------------

    def _check(self, name: str, line: bytes) -> None:
        """Raise MaskRefused if a value is left in a line that goes into the file."""
        text, figures = line.decode(), False
        for value in self._left(name, text):
            if not _FIGURES.fullmatch(value):
                self._refuse(name, value)
            figures = True
        # Figures may be equal to numbers, times and sums that esx itself writes, as a global_seq is.
        for value in self._left(name, _theirs(name, text)) if figures else ():
            self._refuse(name, value)

    def _left(self, name: str, text: str) -> Iterable[str]:
        passed = 0
        for match in self._sought.all_in(text):
            if match.begin < passed:
                continue
            if self._is_kept(match.value):
                passed = match.end
            # The words that esx itself writes beside the events are others if they are spelled otherwise.
            elif name == EVENTS or text[match.begin : match.end] in _cut(match.value):
                yield match.value

    def _refuse(self, name: str, value: str) -> None:
        raise MaskRefused(
            f"a value of {self._path_of.get(value, _IDS)} would remain in {name}, where no pseudonym can be (a name "
            "of a member, a type, or a word of esx's own): leave that path out, or record other streams"
        )


def _line(value: Any) -> bytes:
    return encodable(dump(value)).encode()


def _cut(value: str) -> set[str]:
    return {each[:LONGEST] for each in spellings(value)}


def _theirs(name: str, text: str) -> str:
    """Return what is left of a line without the figures that esx itself writes."""
    value = parse(text)
    if name == EVENTS:
        ours = [*_OURS, *(["created_at"] if _TIME.fullmatch(value.get("created_at") or "") else [])]
        return dump({key: part for key, part in value.items() if key not in ours})
    texts = [holder[key] for holder, key in below({"": value})]
    return dump(
        [
            each
            for each in texts
            if isinstance(each, str)
            and not isinstance(each, Number)
            and not _TIME.fullmatch(each)
            and not (name == CONTENTS and _SUM.fullmatch(each))
        ]
    )
