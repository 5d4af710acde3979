"""What goes wrong with an embedded PostgreSQL, told in one line."""

from __future__ import annotations

import re

from esx.store.errors import EsxError
from esx.text import visible


class EmbeddedFailed(EsxError):
    """The embedded PostgreSQL cannot be made or started. The message is one line with the remedy."""


def reason(said: str) -> str:
    """Return the line of a program's output that says what went wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [match[1] for line in lines if (match := re.search(r"(?:PANIC|FATAL|ERROR|error):\s+(.*)", line))]
    return visible((errors or lines or ["it did not say why"])[-1], limit=300)
