"""Which topic an event goes to."""

import re
from collections.abc import Callable

from esx.errors import InvalidQuery
from esx.model import category_of

_CATEGORY = "{category}"
_LEGAL = re.compile(r"[A-Za-z0-9._-]+")
_LONGEST = 249
_ESCAPE = re.compile(r"_(?=[0-9A-F]{2})|[^A-Za-z0-9._-]")
_ESCAPE_TOO = re.compile(r"_(?=[0-9A-F]{2})|[^A-Za-z0-9_-]")


def escaped(category: str, *, points: bool = True) -> str:
    """Return a category as a part of a topic's name: other characters as ``_`` and the digits of each byte.

    Two categories never get one name: an underscore that could be such a sign is written ``_5F``. Without `points` a
    point is another character too.
    """
    pattern = _ESCAPE if points else _ESCAPE_TOO
    return pattern.sub(lambda found: "".join(f"_{byte:02X}" for byte in _bytes(found[0])), category)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class Topics:
    """Names the topics of a template such as ``events.{category}``.

    `on_mapped(category, topic)` is called once for each category whose name had to be changed. Raises InvalidQuery for
    a template that cannot name a topic.
    """

    what = "topic"

    def __init__(self, template: str, on_mapped: Callable[[str, str], object] | None = None) -> None:
        if not self._is_name(template.replace(_CATEGORY, "x")):
            raise InvalidQuery(
                f"{template!r} is no name of a {self.what}: use letters, digits, '.', '_' and '-', and {_CATEGORY} "
                "for the part of the stream's id before the first '-'"
            )
        self._template = template
        self._by_category = _CATEGORY in template
        self._on_mapped = on_mapped
        self._known: dict[str, str] = {}

    def of(self, stream_id: str) -> str:
        """Return the topic for the events of a stream. Raises ValueError with the reason if there can be none."""
        if not self._by_category:
            return self._template
        category = category_of(stream_id)
        topic = self._known.get(category)
        return self._name(category) if topic is None else topic

    def _is_name(self, text: str) -> bool:
        return _LEGAL.fullmatch(text) is not None and len(text) <= _LONGEST and text not in (".", "..")

    def _escaped(self, category: str) -> str:
        return escaped(category)

    def _name(self, category: str) -> str:
        name = self._escaped(category)
        topic = self._template.replace(_CATEGORY, name)
        if not self._is_name(topic):
            reason = f"category {category[:50]!r} makes no legal {self.what} name"
            raise ValueError(f"{reason}: {_LONGEST} characters are allowed")
        if name != category and self._on_mapped is not None:
            self._on_mapped(category, topic)
        if len(self._known) < 100_000:
            self._known[category] = topic
        return topic


class Subjects(Topics):
    """Names the subjects of NATS, whose parts are between points: a category is always one of them."""

    what = "subject"

    def _is_name(self, text: str) -> bool:
        return super()._is_name(text) and all(text.split("."))

    def _escaped(self, category: str) -> str:
        return escaped(category, points=False)
