"""The language of filters: ``orders-* type:Order*Placed $.total > 100 since:-2h user:ann mentions:1092``.

It is the same in commands and on screens. docs/filters.md has its grammar. Plain code: it makes a `Filter` of a text,
and a text of a `Filter`.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from difflib import get_close_matches

from esx.errors import InvalidQuery
from esx.filters import CORRELATION_NAMES, USER_NAMES, Filter, MetadataMatch
from esx.glob import glob_to_regex
from esx.positions import parse_moment
from esx.text import iso_utc, visible

KEYS = ("stream", "type", "where", "since", "until", "user", "corr", "mentions")
"""The words that may stand before a colon."""
EXAMPLE = "orders-* type:Order*Placed $.total > 100 since:-2h user:ann"

_SPACE = re.compile(r"\s*")
_BARE = re.compile(r"[^\s\"']\S*")
_KEY = re.compile(r"([A-Za-z_]+):")
_QUOTED = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'", re.DOTALL)
_PATH = re.compile(
    r"\$(?:metadata\b)?(?:\.(?:[^\W\d]\w*|\*\*?|\"(?:[^\"\\]|\\.)*\")|\[(?:[^\]\"]|\"(?:[^\"\\]|\\.)*\")*\])*"
)
_OPERATOR = re.compile(r"==|!=|<>|<=|>=|=|<|>|~")
_NUMBER = re.compile(r"-?(?:(?:0|[1-9]\d*)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?")
_WORDS = ("true", "false", "null")
# What only a JSONPath begins with, and what makes one longer than a path and a comparison: it takes the rest.
_CONDITION = re.compile(r"[(!]|exists\s*\(|(?:strict|lax)\s+[$(!]")
_LONGER = re.compile(r"&&|\|\||[(?+*/%-]|like_regex\b|starts\b|is\b")
_GOES_ON = re.compile(r"&&|\|\||[+*/%-]\s")
_ANOTHER_PATH = re.compile(r"\$[.\[]|[@(]")


class FilterError(InvalidQuery, ValueError):
    """A text that is no filter. The message is one line with the place and the remedy; `at` is the place, from 0."""

    def __init__(self, text: str, at: int, what: str) -> None:
        self.at = at
        rest = text[at:].split(maxsplit=1)[:1]
        near = f"{visible(rest[0], limit=40)!r} " if rest else ""
        place = f"at {near}(character {at + 1})" if near else "at its end"
        super().__init__(f"filter, {place}: {what}")


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs from place to place.

    `bare` is what a word without a key is: a ``stream``, or, among the events of one stream, a ``type``. `correlation`
    and `user` are the names of members in metadata.
    """

    bare: str = "stream"
    correlation: tuple[str, ...] = CORRELATION_NAMES
    user: tuple[str, ...] = USER_NAMES
    any_case: bool = True
    parse_time: Callable[[str], datetime] = field(default=parse_moment)


USUAL = Dialect()


def parse_filter(text: str, dialect: Dialect = USUAL) -> Filter:
    """Return the filter that `text` means; an empty text is a filter that all events pass. Raises FilterError."""
    return _Parser(text, dialect).filter()


class _Parser:
    def __init__(self, text: str, dialect: Dialect) -> None:
        self._text = text
        self._dialect = dialect
        self._at = 0
        self._found: dict[str, object] = {}
        self._paths: list[str] = []
        self._members: list[MetadataMatch] = []
        self._mentions: list[str] = []

    def filter(self) -> Filter:
        while not self._at_end():
            self._term()
        paths = self._paths
        found = Filter(
            where=paths[0] if paths else None,
            also=tuple(paths[1:]),
            members=tuple(self._members),
            mentions=tuple(self._mentions),
            **self._found,  # type: ignore[arg-type]
        )
        if found.since is not None and found.until is not None and found.since >= found.until:
            raise FilterError(
                self._text, len(self._text), "since: is not before until:, so no event can be between them"
            )
        named = found.stream is not None or found.event_type is not None or found.mentions
        return replace(found, any_case=True) if named and self._dialect.any_case else found

    # -- terms -------------------------------------------------------------------------------------------------

    def _term(self) -> None:
        begin = self._at
        if _CONDITION.match(self._text, begin):
            self._paths.append(self._rest())
        elif self._text[begin] == "$":
            self._paths.append(self._condition())
        elif key := _KEY.match(self._text, begin):
            self._at = key.end()
            self._keyed(key[1], begin)
        else:
            self._bare(begin)

    def _bare(self, begin: int) -> None:
        bare = self._dialect.bare
        word = self._word()
        if {"type": "event_type"}.get(bare, bare) in self._found:
            shown = repr(visible(word, limit=60))
            raise self._error(
                begin, f"a second {bare}, and {shown} is not a JSONPath: that begins with $, as $.amount > 100 does"
            )
        self._set(bare, self._glob(word, begin), begin)

    def _keyed(self, key: str, begin: int) -> None:
        if key not in KEYS:
            near = get_close_matches(key.lower(), KEYS, 1)
            hint = f"did you mean {near[0]}:?" if near else f"the keys are {', '.join(f'{each}:' for each in KEYS)}"
            raise self._error(begin, f"there is no key {key}: - {hint} A text with a colon needs quotes")
        if key == "where":
            self._at = _space(self._text, self._at)
            self._paths.append(self._path_text(begin))
            return
        word_at = self._at = _space(self._text, self._at)
        if self._at_end():
            raise self._error(begin, f"{key}: needs a value, such as {_EXAMPLES[key]}")
        word = self._word()
        if key in ("stream", "type"):
            self._set(key, self._glob(word, word_at), begin)
        elif key in ("since", "until"):
            try:
                self._set(key, self._dialect.parse_time(word), begin)
            except FilterError:
                raise
            except ValueError as error:
                raise self._error(word_at, str(error)) from None
        elif key == "mentions":
            if not word.strip():
                raise self._error(begin, f"mentions: needs a value, such as {_EXAMPLES[key]}")
            self._mentions.append(word)
        else:
            names = self._dialect.correlation if key == "corr" else self._dialect.user
            any_case = key == "user" and self._dialect.any_case
            self._members.append(MetadataMatch(key, names, self._glob(word, word_at), any_case))

    def _set(self, key: str, value: object, begin: int) -> None:
        name = "event_type" if key == "type" else key
        if name in self._found:
            remedy = (
                "one pattern can match several: orders-*, [oc]*-1" if key in ("stream", "type") else "leave one out"
            )
            raise self._error(begin, f"a second {key}: an event has one, so give one; {remedy}")
        self._found[name] = value

    def _glob(self, word: str, at: int | None = None) -> str:
        try:
            glob_to_regex(word)
        except InvalidQuery as error:
            raise self._error(self._at if at is None else at, str(error)) from None
        return word

    # -- JSONPaths ---------------------------------------------------------------------------------------------

    def _condition(self) -> str:
        """Return the JSONPath of a path, alone or with a comparison; a longer condition takes the rest of the text."""
        begin = self._at
        match = _PATH.match(self._text, begin)
        assert match is not None
        path, self._at = match[0], match.end()
        if self._text[self._at : self._at + 1].strip() and not _OPERATOR.match(self._text, self._at):
            if _LONGER.match(self._text, self._at):
                return self._rest(begin)
            raise self._error(begin, 'a path is $.member, $.list[*].member, $."a name" or $metadata.member')
        after = _space(self._text, self._at)
        operator = _OPERATOR.match(self._text, after)
        if operator is None:
            if _LONGER.match(self._text, after):
                return self._rest(begin)
            if path == "$":
                raise self._error(begin, "a path goes on after $: $.member")
            return path
        self._at = _space(self._text, operator.end())
        if self._at_end():
            raise self._error(begin, f"{operator[0]} needs a value: {path} {operator[0]} 100")
        if _ANOTHER_PATH.match(self._text, self._at):
            return self._rest(begin)
        value = self._value(operator[0])
        if _GOES_ON.match(self._text, _space(self._text, self._at)):
            return self._rest(begin)
        sign = {"=": "==", "<>": "!="}.get(operator[0], operator[0])
        return f"{path} {sign if sign != '~' else 'like_regex'} {value}"

    def _value(self, operator: str) -> str:
        quoted = self._text[self._at] in "\"'"
        at = self._at
        word = self._word()
        if operator == "~":
            flag = ' flag "i"' if word == word.lower() else ""
            return json.dumps(glob_to_regex(self._glob(word, at)), ensure_ascii=False) + flag
        if not quoted and (_NUMBER.fullmatch(word) or word in _WORDS):
            return word
        return json.dumps(word, ensure_ascii=False)

    def _path_text(self, begin: int) -> str:
        """Return what follows ``where:``: in quotes, or the rest."""
        if self._text[self._at : self._at + 1] in ("'", '"'):
            quoted = _QUOTED.match(self._text, self._at)
            if quoted is not None and _ends(self._text, quoted.end()):
                path = self._word().strip()
                if path:
                    return path
        path = self._rest()
        if not path:
            raise self._error(begin, "where: needs a JSONPath, such as where:'$.total > 100 && $.paid == true'")
        return path

    def _rest(self, begin: int | None = None) -> str:
        rest, self._at = self._text[self._at if begin is None else begin :].strip(), len(self._text)
        return rest

    # -- words -------------------------------------------------------------------------------------------------

    def _word(self) -> str:
        """Return a word, in quotes or without."""
        begin = self._at
        if self._text[begin] in "\"'":
            quoted = _QUOTED.match(self._text, begin)
            if quoted is None:
                raise self._error(begin, f"the quote is not closed: end the text with {self._text[begin]}")
            if not _ends(self._text, quoted.end()):
                raise self._error(quoted.end(), "a space is missing after the quotes")
            self._at = quoted.end()
            return _unquoted(quoted)
        bare = _BARE.match(self._text, begin)
        assert bare is not None
        self._at = bare.end()
        return bare[0]

    def _at_end(self) -> bool:
        self._at = _space(self._text, self._at)
        return self._at >= len(self._text)

    def _error(self, at: int, what: str) -> FilterError:
        return FilterError(self._text, at, what)


_EXAMPLES = {
    "stream": "stream:orders-*",
    "type": "type:Order*",
    "since": "since:-2h",
    "until": "until:14:00",
    "user": "user:ann",
    "corr": "corr:ID",
    "mentions": "mentions:1092",
}


def _space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _ends(text: str, at: int) -> bool:
    return at >= len(text) or text[at].isspace()


def _unquoted(quoted: re.Match[str]) -> str:
    mark = quoted[0][0]
    inside = quoted[1] if quoted[1] is not None else quoted[2]
    # Only the quote and the backslash itself: other backslashes are those of globs and paths.
    return re.sub(rf"\\([\\{mark}])", r"\1", inside)


# -- back to text ----------------------------------------------------------------------------------------------


def filter_text(chosen: Filter) -> str:
    """Return the filter as a text that `parse_filter` reads back."""
    parts = []
    if chosen.stream is not None:
        parts.append("stream:" + quote(chosen.stream))
    if chosen.event_type is not None:
        parts.append("type:" + quote(chosen.event_type))
    parts += [f"{member.key}:{quote(member.glob)}" for member in chosen.members]
    parts += [f"mentions:{quote(text)}" for text in chosen.mentions]
    for key, moment in (("since", chosen.since), ("until", chosen.until)):
        if moment is not None:
            parts.append(f"{key}:{iso_utc(moment)}")
    last = len(chosen.paths) - 1
    for place, path in enumerate(chosen.paths):
        # As it may have been typed, where that is read back, and takes nothing of what follows.
        plain = visible(path) == path and _is_one(path, Filter(where=path), "" if place == last else " $.a")
        parts.append(path if plain else f"where:{_in_quotes(path)}")
    return " ".join(parts)


_EXACT = Dialect(any_case=False)


def _is_one(path: str, meant: Filter, after: str) -> bool:
    try:
        return parse_filter(path + after, _EXACT) == (replace(meant, also=("$.a",)) if after else meant)
    except FilterError:
        return False


_MARKS = ("'", '"')


def quote(word: str) -> str:
    """Return a word as it is written in a filter: in quotes where it has to be."""
    plain = word and _BARE.fullmatch(word) and visible(word) == word and not any(mark in word for mark in _MARKS)
    return word if plain else _in_quotes(word)


def _in_quotes(text: str) -> str:
    mark = "'" if '"' in text and "'" not in text else '"'
    return mark + re.sub(rf"([\\{mark}])", r"\\\1", text) + mark
