"""Which list of events is meant: that of a stream, by stream_seq, or that of all streams, by global_seq."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scope:
    """The events of a stream, or of all streams (None), and the column that orders and numbers them."""

    stream_id: str | None = None

    @property
    def key(self) -> str:
        """The column that numbers the events."""
        return "global_seq" if self.stream_id is None else "stream_seq"

    @property
    def fixed(self) -> tuple[str, ...]:
        """The columns that are the same for all events of the list."""
        return () if self.stream_id is None else ("stream_id",)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of `condition`."""
        return () if self.stream_id is None else (self.stream_id,)

    def condition(self, parameter: int) -> str:
        """Return the condition on an event ``e`` of being in the list."""
        return "true" if self.stream_id is None else f"e.stream_id = ${parameter}"
