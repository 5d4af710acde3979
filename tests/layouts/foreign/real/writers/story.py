"""The story that each writer tells to the store of a tool."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Step:
    """An append to the stream of `category` and `id`. A stale one expects what was there before the last append."""

    category: str
    id: str
    events: list[dict[str, Any]]
    stale: bool = False


STORY = [Step(**step) for step in json.loads(Path(__file__).with_name("story.json").read_text())]


def say(refused: int, events: list[dict[str, Any]]) -> None:
    """Print how many appends the tool refused, and the events that it reads itself."""
    print(json.dumps({"refused": refused, "events": events}))
