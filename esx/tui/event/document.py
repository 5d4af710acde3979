"""An event in full as lines: its columns, what changed, data and metadata. No screen."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from esx.fold.states import State
from esx.model import Event
from esx.payloads.decoder import DecodedEvent
from esx.payloads.decoding import Decoded
from esx.tui.event.blocks import Block, JsonBlock, TextBlock
from esx.tui.event.changes import Comparison
from esx.tui.event.columns import column_values, columns, heading, summary
from esx.tui.event.find import Matches
from esx.tui.event.jsonlayout import Span
from esx.tui.event.payload import how_lines, payload_lines

SHORT = 16
"""On a screen of fewer lines, the columns go below the payload."""
IN_PLACE = 100_000
"""JSON up to this many characters is laid out and folded at once; longer JSON step by step."""
STEPS = 300
"""How much of a large value is laid out at a time: enough to fill the first screens."""


class EventDocument:
    """The lines that show `event`, or `state` after it, or the text `empty` where there is none.

    A place is a block's number and a line in that block, (0, 0) at the top.
    """

    def __init__(self, empty: str) -> None:
        self.empty = empty
        self.event: Event | None = None
        self.decoded: DecodedEvent | None = None
        """What payloads of the event that are no JSON are decoded to."""
        self.state: State | None = None
        self.comparison: Comparison | None = None
        self.blocks: list[Block] = []
        self.json: list[JsonBlock] = []
        """The blocks with data and metadata, or with the state."""
        self.needle = ""
        """The text that is searched for."""
        self._as_tree = True
        self._head: TextBlock | None = None
        self._size = (0, False)
        self._first = 0

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    @property
    def as_tree(self) -> bool:
        """Whether JSON is a tree to fold; else it is plain text."""
        return self._as_tree

    @as_tree.setter
    def as_tree(self, as_tree: bool) -> None:
        self._as_tree = as_tree
        for block in self.json:
            block.plain = not as_tree

    def locate(self, line: int) -> tuple[int, int] | None:
        """Return the place of a line, None past the end."""
        for number, block in enumerate(self.blocks):
            if line < len(block):
                return number, line
            line -= len(block)
        return None

    def line_of(self, place: tuple[int, int]) -> int:
        """Return the line at a place."""
        return sum(map(len, self.blocks[: place[0]])) + place[1]

    def spans(self, place: tuple[int, int]) -> Sequence[Span]:
        """Return the pieces of a line."""
        return self.blocks[place[0]].spans(place[1])

    def json_at(self, place: tuple[int, int]) -> tuple[JsonBlock, int] | None:
        """Return the JSON at a place, and the line in it."""
        number, index = place
        block = self.blocks[number] if number < len(self.blocks) else None
        return (block, index) if isinstance(block, JsonBlock) and index < len(block) else None

    def copied(self, place: tuple[int, int]) -> str | None:
        """Return the JSON to copy at a place, if there is any."""
        number, index = place
        return self.blocks[number].copied(index) if self.as_tree and number < len(self.blocks) else None

    @property
    def first_value(self) -> tuple[int, int]:
        """The place of the first line of the data, or of the state."""
        return self._first, 0

    @property
    def laid_out(self) -> bool:
        """Whether all lines have been made."""
        return all(block.layout.done for block in self.json)

    def fits(self, width: int, height: int) -> bool:
        """Return whether the lines suit a screen of this size."""
        return self._size == (width, height < SHORT)

    def lay_out(self, width: int, height: int) -> bool:
        """Make the lines for a screen, the first ones of large JSON; return whether any JSON is new."""
        short = height < SHORT
        self._size = (width, short)
        event, state = self.event, self.state
        if event is None:
            self.json = []
            self._head = None
            self._first = 0
            self.blocks = [TextBlock([[Span(self.empty, "label")]])]
            return False
        brief = short or state is not None
        self._head = TextBlock(self._head_lines(event), {} if brief else column_values(event, width))
        self.blocks = [self._head, TextBlock([[]])]
        if self.comparison is not None:
            self.blocks.append(self.comparison.lines(width))
        if state is not None:
            is_new = self._make_json([(state.text, "$")], width)
            lacks = f", without those before {state.begins:,}" if state.begins else ""
            self.blocks += [heading(f"state at version {state.version:,}{lacks}", state.text), self.json[0]]
            self._first = len(self.blocks) - 1
        else:
            is_new = self._add_payloads(event, width)
            if short:
                values = TextBlock(columns(event, width), column_values(event, width))
                self.blocks += [TextBlock([[]]), heading("columns"), values]
        signs = None if self.comparison is None else self.comparison.signs
        for block in self.json:
            block.signs = (signs or {}) if block.root == "$" else {}
        return is_new

    def _add_payloads(self, event: Event, width: int) -> bool:
        """Add the blocks of data and metadata; return whether any JSON is new."""
        decoded = self.decoded or DecodedEvent(event)
        data = decoded.data_json
        metadata = event.metadata_json if decoded.metadata is None else decoded.metadata.json
        texts = [(text, root) for text, root in ((data, "$"), (metadata, "$metadata")) if text is not None]
        is_new = self._make_json(texts, width)
        blocks = iter(self.json)
        self.blocks.append(heading("data", data or ""))
        self.blocks += self._payload(data, decoded.data, blocks, width)
        self._first = len(self.blocks) - 1
        self.blocks += [TextBlock([[]]), heading("metadata")]
        self.blocks += self._payload(metadata, decoded.metadata, blocks, width)
        return is_new

    def _payload(self, text: str | None, decoded: Decoded | None, json: Iterator[JsonBlock], width: int) -> list[Block]:
        """Return the block of a payload, the last one, and before it how it was decoded."""
        if decoded is None:
            return [TextBlock([[Span("none", "label")]]) if text is None else next(json)]
        return [how_lines(decoded, width), payload_lines(decoded, width) if text is None else next(json)]

    def _make_json(self, texts: list[tuple[str, str]], width: int) -> bool:
        if [(block.layout.text, block.root, block.width) for block in self.json] == [(*text, width) for text in texts]:
            return False
        self.json = [JsonBlock(text, width, root) for text, root in texts]
        for block in self.json:
            block.plain = not self.as_tree
            size = len(block.layout.text)
            block.layout.advance(STEPS if size > IN_PLACE else size + 1)
            block.folds.grow()
        return True

    def _head_lines(self, event: Event) -> list[list[Span]]:
        width, short = self._size
        return summary(event, width) if short or self.state is not None else columns(event, width)

    def age(self) -> bool:
        """Update how long ago the event was; return whether that changed a line."""
        if self.event is None or self._head is None:
            return False
        lines = self._head_lines(self.event)
        changed = lines != self._head.lines
        self._head.lines[:] = lines
        return changed

    def find(self, needle: str) -> None:
        """Begin to search the JSON, by `advance` of each block's `matches`; an empty text ends the search."""
        self.needle = needle
        for block in self.json:
            block.matches = Matches(block.layout.text, needle) if needle else None
            block.current = None

    @property
    def found(self) -> tuple[int | None, int]:
        """Which match the cursor went to, counted from 1, and how many there are so far."""
        before = 0
        current = None
        for block in self.json:
            if block.current is not None:
                current = before + block.current + 1
            before += 0 if block.matches is None else len(block.matches)
        return current, before

    def match(self, by: int, place: tuple[int, int]) -> tuple[JsonBlock, int] | None:
        """Go `by` matches on from the last one, or from `place`; from the end, to the first.

        Return the JSON of the match and where it is in its text, None if there are no matches.
        """
        current, total = self.found
        if not total:
            return None
        # The first time, count from the cursor.
        at = self._matches_before(place) - (1 if by > 0 else 0) if current is None else current - 1
        wanted = (at + by) % total
        target = None
        for block in self.json:
            starts = [] if block.matches is None else block.matches.starts
            block.current = wanted if 0 <= wanted < len(starts) else None
            if block.current is not None:
                target = block, starts[wanted]
            wanted -= len(starts)
        return target

    def _matches_before(self, place: tuple[int, int]) -> int:
        number, index = place
        before = 0
        for block in self.json:
            if block.matches is not None and self.blocks.index(block) <= number:
                is_here = self.blocks[number] is block
                here = block.layout.slice(block.row(index))[0] if is_here else len(block.layout.text)
                before += bisect_left(block.matches.starts, here)
        return before
