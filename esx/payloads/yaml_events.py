"""YAML, as values for JSON. Nothing is made but text, numbers, lists and objects: a tag is shown as it is.

Of PyYAML only the parser is used, which names the parts of a document and makes nothing of them.
"""

import re
from typing import Any, NamedTuple

from esx.fold.value import Number, dump
from esx.payloads.limits import MOST_BYTES, Budget, Undecodable, named

_LARGEST = 1_000_000
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_OWN = "tag:yaml.org,2002:"
_WORDS = {"null": None, "true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class _Node(NamedTuple):
    value: Any
    size: int
    """How many characters of JSON it takes, at least."""


class YamlMissing(Exception):
    """PyYAML is not installed."""


def yaml_documents(raw: bytes) -> Any:
    """Return the document, or a list of them. Raises YamlMissing, and Undecodable for what is no YAML or too large."""
    if len(raw) > _LARGEST:
        raise Undecodable(f"it has more than {_LARGEST:,} bytes")
    try:
        import yaml
    except ImportError:
        raise YamlMissing from None
    # libyaml where PyYAML has it: ten times as fast.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(raw)
    try:
        documents = _Reader(yaml, loader).documents()
    except (yaml.YAMLError, UnicodeError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise Undecodable("it is damaged" if mark is None else f"it is damaged in line {mark.line + 1:,}") from None
    finally:
        loader.dispose()
    return documents[0] if len(documents) == 1 else documents


class _Reader:
    """Makes values of the parser's events."""

    def __init__(self, yaml: Any, loader: Any) -> None:
        self._yaml = yaml
        self._loader = loader
        self._budget = Budget()
        self._anchors: dict[str, _Node | None] = {}
        """What an alias stands for; None for a value that has not ended yet."""
        self._size = 0

    def documents(self) -> list[Any]:
        """Return all documents."""
        found = []
        while not isinstance(event := self._loader.get_event(), self._yaml.StreamEndEvent):
            if isinstance(event, self._yaml.DocumentStartEvent):
                self._anchors.clear()
                found.append(self._value(self._loader.get_event(), 0).value)
        if not found:
            raise Undecodable("it is empty")
        return found

    def _value(self, event: Any, depth: int) -> _Node:
        self._budget.spend(depth)
        if isinstance(event, self._yaml.AliasEvent):
            return self._alias(event.anchor)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        before = self._size
        if isinstance(event, self._yaml.ScalarEvent):
            self._take(len(event.value) + 2)
            value = self._scalar(event)
        elif isinstance(event, self._yaml.SequenceStartEvent):
            value = self._list(depth)
        else:
            value = named(self._members(depth))
        tag = event.tag
        if tag not in (None, "!") and not (tag.startswith(_OWN) and "/" not in tag):
            value = {f"!!{tag.removeprefix(_OWN)}" if tag.startswith(_OWN) else tag: value}
            self._take(len(tag))
        node = _Node(value, self._size - before)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _take(self, size: int) -> None:
        self._size += size
        if self._size > MOST_BYTES:
            raise Undecodable("its aliases stand for too much")

    def _alias(self, name: str) -> _Node:
        if name not in self._anchors:
            raise Undecodable(f"nothing is called &{name[:20]}")
        node = self._anchors[name]
        if node is None:  # it contains itself
            return _Node(f"*{name}", len(name))
        self._take(node.size + 1)
        return node

    def _list(self, depth: int) -> list[Any]:
        found = []
        while not isinstance(event := self._loader.get_event(), self._yaml.SequenceEndEvent):
            found.append(self._value(event, depth + 1).value)
        return found

    def _members(self, depth: int) -> list[tuple[Any, Any]]:
        found = []
        while not isinstance(event := self._loader.get_event(), self._yaml.MappingEndEvent):
            name = self._value(event, depth + 1).value
            if isinstance(event, self._yaml.ScalarEvent) and event.tag is None:
                # 1 and yes are names too; a symbol of Ruby's is a name.
                name = _symbol(event.value) if event.implicit[0] else event.value
            elif not isinstance(name, str):
                name = dump(name)
            found.append((name, self._value(self._loader.get_event(), depth + 1).value))
        return found

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if not event.implicit[0]:
            return text
        kind = self._loader.resolve(self._yaml.ScalarNode, text, (True, False))
        if kind == f"{_OWN}null":
            return None
        if kind == f"{_OWN}bool":
            return _WORDS[text.lower()]
        # Numbers as JSON does not write them, and times, stay text.
        return Number(text) if kind in (f"{_OWN}int", f"{_OWN}float") and _NUMBER.fullmatch(text) else text


def _symbol(text: str) -> str:
    if not text.startswith(":") or len(text) == 1:
        return text
    name = text[1:]
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'" else name
