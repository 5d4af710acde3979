"""A list of events: that of a stream, by stream_seq, or that of all streams, by global_seq."""

from dataclasses import dataclass

from esx.layouts.layout import Layout


@dataclass(frozen=True, slots=True)
class EventList:
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

    def condition(self, layout: Layout, parameter: int) -> str:
        """Return the condition on an event ``e`` of being in the list."""
        return "true" if self.stream_id is None else layout.in_stream(f"${parameter}")

    def table(self, layout: Layout) -> str:
        """Return what the list is read from. Raises OrderUnknown for all streams without a global order."""
        if self.stream_id is not None:
            return layout.within_stream
        layout.check_numbered()
        return layout.table
