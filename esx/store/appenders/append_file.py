"""The file of ``--append-sql``: one statement with named parameters, and what a conflict is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from esx.errors import EsxError
from esx.store.appenders.protocol import Conflicts
from esx.text import visible

PARAMETERS = {
    "stream": "text",
    "version": "bigint",
    "event_id": "uuid",
    "type": "text",
    "data": "jsonb",
    "metadata": "jsonb",
}
"""The parameters, with their types. `version` is the expected one: -1 for no stream, NULL for any."""
_NEEDED = {"stream": "which stream it appends to", "event_id": "the id by which the verdict finds the event"}
_EXAMPLE = '-- conflict: no row | sqlstate 23505 | message "Wrong expected version"'
_MOST = 1_000_000
# What may hold a colon or a semicolon that means nothing here, and what may mean something.
_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*)
      | (?P<block>/\*)
      | (?P<escaped>\b[eE]'(?:[^'\\]|\\.|'')*(?P<escaped_end>')?)
      | (?P<text>'(?:[^']|'')*(?P<text_end>')?)
      | (?P<name>"(?:[^"]|"")*(?P<name_end>")?)
      | (?P<dollar>(?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$)
      | (?P<place>(?<![\w$])\$\d+)
      | (?P<cast>::|:=)
      | (?P<parameter>:(?P<called>[^\W\d]\w*))
      | (?P<end>;)""",
    re.VERBOSE | re.DOTALL,
)
_CONFLICT = re.compile(r"--\s*conflict\s*:(.*)", re.IGNORECASE)
_RULE = re.compile(
    r"""\s*(?:(?P<none>none)|(?P<row>no\s+row)|sqlstate\s+(?P<state>[0-9A-Z]{5})|message\s+"(?P<message>[^"]+)")"""
    r"\s*(?:\||$)",
    re.IGNORECASE,
)


class BadAppendFile(EsxError):
    """The file of ``--append-sql`` cannot be used. The message names the file, the line and the remedy."""


@dataclass(frozen=True, slots=True)
class AppendFile:
    """A statement that appends one event: the `text` of the file, and what is sent.

    `sql` has ``$1``, ``$2`` ... for `parameters`, and the lines of the file.
    """

    name: str
    text: str
    sql: str
    parameters: tuple[str, ...]
    conflicts: Conflicts


def read_append_file(path: str) -> AppendFile:
    """Read and check a file. Raises BadAppendFile."""
    name = visible(path, limit=200)
    try:
        with Path(path).open("rb") as file:
            raw = file.read(_MOST + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise BadAppendFile(f"--append-sql {name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadAppendFile(f"--append-sql {name} is not UTF-8: save it as UTF-8") from None
    if len(raw) > _MOST:
        raise BadAppendFile(f"--append-sql {name} is longer than a megabyte: it is to hold one statement")
    return parse_append_file(name, text)


def parse_append_file(name: str, text: str) -> AppendFile:
    """Return what the text of a file means; `name` is for messages. Raises BadAppendFile."""
    return _Reader(name, text).read()


class _Reader:
    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self._parameters: list[str] = []
        self._no_row = self._never = self._told = False
        self._states: set[str] = set()
        self._messages: list[str] = []

    def read(self) -> AppendFile:
        pieces: list[str] = []
        code = ""
        """The statement without comments, to see whether there is one."""
        at = 0
        ended = False
        while True:
            token = _TOKEN.search(self._text, at)
            between = self._text[at : token.start() if token else len(self._text)]
            if ended and between.strip():
                begins = at + len(between) - len(between.lstrip())
                raise self._bad(begins, "a second statement begins, and only one can append: put them into a function")
            pieces.append(between)
            code += between
            if token is None:
                break
            at = token.end()
            kind = token.lastgroup if token.lastgroup in ("comment", "block", "end") else ""
            if ended and not kind:
                raise self._bad(token.start(), "a second statement begins, and only one can append")
            if kind == "comment":
                self._comment(token)
                pieces.append(token[0])
            elif kind == "block":
                at = self._block(token.start())
                pieces.append(self._text[token.start() : at])
            elif kind == "end":
                ended = True
            else:
                piece, at = self._token(token)
                pieces.append(piece)
                code += piece
        if not code.strip():
            raise BadAppendFile(f"{self._where()} holds no statement: write one that appends :event_id to :stream")
        for name, what in _NEEDED.items():
            if name not in self._parameters:
                raise BadAppendFile(f"{self._where()} does not use :{name}, {what}: add it")
        if not self._told:
            raise BadAppendFile(f"{self._where()} does not say what a conflict is: add a line as {_EXAMPLE}, or none")
        conflicts = Conflicts(self._no_row, frozenset(self._states), tuple(self._messages))
        if self._never and conflicts != Conflicts():
            raise BadAppendFile(f"{self._where()} says that a conflict is none, and something else: leave one out")
        return AppendFile(self._name, self._text, "".join(pieces), tuple(self._parameters), conflicts)

    def _token(self, token: re.Match[str]) -> tuple[str, int]:
        """Return a token as it is to be sent, and where it ends."""
        for quoted in ("escaped", "text", "name"):
            if token[quoted] is not None and token[f"{quoted}_end"] is None:
                raise self._bad(token.start(), f"{token[0][:1]} is opened and not closed: close it")
        if token["dollar"] is not None:
            end = self._text.find(token["dollar"], token.end())
            if end < 0:
                raise self._bad(token.start(), f"{token['dollar']} is opened and not closed: close it")
            end += len(token["dollar"])
            return self._text[token.start() : end], end
        if token["place"] is not None:
            raise self._bad(token.start(), f"{token[0]} is no parameter here: use {_listed()}")
        if token["called"] is None:
            return token[0], token.end()
        name = token["called"]
        if name not in PARAMETERS:
            raise self._bad(
                token.start(),
                f":{visible(name, limit=60)} is no parameter: use {_listed()}, or a space after the colon",
            )
        if name not in self._parameters:
            self._parameters.append(name)
        return f"${self._parameters.index(name) + 1}::{PARAMETERS[name]}", token.end()

    def _comment(self, token: re.Match[str]) -> None:
        found = _CONFLICT.match(token[0])
        if found is None:
            return
        text, at = found[1], 0
        while at < len(text) or not text.strip():
            rule = _RULE.match(text, at)
            if rule is None:
                rest = visible(text[at:].strip(), limit=60)
                raise self._bad(token.start(), f"{rest or 'nothing'} is no sign of a conflict: use {_EXAMPLE}, or none")
            at = rule.end()
            self._never = self._never or rule["none"] is not None
            self._no_row = self._no_row or rule["row"] is not None
            if rule["state"]:
                self._states.add(rule["state"].upper())
            if rule["message"]:
                self._messages.append(rule["message"])
        self._told = True

    def _block(self, start: int) -> int:
        """Return where a comment ends that begins at `start`: PostgreSQL's may hold others."""
        depth = 0
        for mark in re.finditer(r"/\*|\*/", self._text[start:]):
            depth += 1 if mark[0] == "/*" else -1
            if not depth:
                return start + mark.end()
        raise self._bad(start, "/* is opened and not closed: close it")

    def _where(self) -> str:
        return f"--append-sql {self._name}"

    def _bad(self, at: int, what: str) -> BadAppendFile:
        return BadAppendFile(f"{self._where()}, line {self._text.count(chr(10), 0, at) + 1}: {what}")


def _listed() -> str:
    *most, last = (f":{name}" for name in PARAMETERS)
    return f"{', '.join(most)} or {last}"
