"""What was found about a part of a store."""

import json
from dataclasses import dataclass
from enum import StrEnum


class CheckState(StrEnum):
    """How a part of a store is: it is there, it is read slowly, it is not promised, or it is missing."""

    OK = "ok"
    SLOW = "slow"
    NOT_PROMISED = "not promised"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found about a part of a store: `about` names it and never changes; `text` is one line."""

    about: str
    state: CheckState
    text: str

    def to_json(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps({"about": self.about, "state": self.state.value, "text": self.text}, ensure_ascii=False)
