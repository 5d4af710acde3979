"""Finding text in JSON text, step by step, so that ten megabytes never block the screen."""

import re
from array import array
from bisect import bisect_left, bisect_right


class Matches:
    """The places of a needle in a text. A needle without capital letters ignores case.

    Call `advance` until it returns False; the matches so far can be read in between.
    """

    def __init__(self, text: str, needle: str) -> None:
        self.text = text
        self.size = len(needle)
        self.starts = array("I")
        self._pattern = re.compile(re.escape(needle), 0 if needle != needle.lower() else re.IGNORECASE)
        self._at = 0 if needle else len(text)

    def __len__(self) -> int:
        return len(self.starts)

    def advance(self, characters: int = 200_000) -> bool:
        """Search about that many more characters; return whether more are left."""
        text = self.text
        if self._at >= len(text):
            return False
        stop = self._at + characters
        for match in self._pattern.finditer(text, self._at, min(stop + self.size - 1, len(text))):
            self.starts.append(match.start())
            stop = max(stop, match.end())
        self._at = stop
        return stop < len(text)

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the matches that touch a part of the text, as (start, end)."""
        first = bisect_right(self.starts, start - self.size)
        last = bisect_left(self.starts, end)
        return [(at, at + self.size) for at in self.starts[first:last]]
