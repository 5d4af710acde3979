"""What the lines for filters complete, and the filters that were entered. Plain asyncio code, no screen."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from esx.errors import EsxError
from esx.eventstore import EventStore
from esx.filter_language import USUAL, Dialect
from esx.fold.vocabulary import Vocabulary, complete, vocabulary_of

_FRESH = 300.0
"""Seconds after which the store is looked at again."""
_SAMPLES = 10
"""Of how many events of a type the data are read."""
_MOST = 100


class Words:
    """What is known of a store for its filters, learned when one is typed first."""

    def __init__(self, clock: Callable[[], float], dialect: Dialect = USUAL) -> None:
        self.dialect = dialect
        """The language of filters, with the names of members in metadata that the config file gives."""
        self.known = Vocabulary()
        self._entered: dict[str, list[str]] = {}
        self._clock = clock
        self._learned: float | None = None

    async def learn(self, store: EventStore) -> None:
        """Look at a sample of the store, unless that was done lately. What cannot be read is not completed."""
        if self._learned is not None and self._clock() - self._learned < _FRESH:
            return
        self._learned = self._clock()
        try:
            # At once, for the first letters.
            self.known = replace(self.known, types=tuple(await store.known_types()))
            survey = await store.types(samples=_SAMPLES)
        except EsxError:
            return
        self.known = await asyncio.to_thread(vocabulary_of, survey, store.separator)

    def complete(self, text: str, dialect: Dialect = USUAL, *, types: Sequence[str] = ()) -> str | None:
        """Return a filter with its last word completed, None where nothing that is known begins so.

        `types` are known beside those of the store, such as those on screen.
        """
        known = replace(self.known, types=tuple(dict.fromkeys((*self.known.types, *types)))) if types else self.known
        return complete(text, known, dialect)

    def history(self, dialect: Dialect = USUAL) -> list[str]:
        """Return the filters that were entered in a dialect, the newest last, each once."""
        # A word without a key means something else in another one.
        return self._entered.setdefault(dialect.bare, [])

    def entered(self, text: str, dialect: Dialect = USUAL) -> None:
        """Remember a filter."""
        text, known = text.strip(), self.history(dialect)
        if text:
            known[:] = [*(each for each in known if each != text), text][-_MOST:]
