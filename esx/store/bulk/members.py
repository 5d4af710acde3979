"""Values of the members of a line, as `split_members` delimits them."""

import json
import re

from esx.text import visible

HIGHEST = 2**63 - 1
_SHOWN = 80


def optional_text(members: dict[str, bytes], name: str) -> str | None:
    """Return a member that is a string, None if it is null or not there. Raises ValueError for anything else."""
    raw = members.get(name, b"null")
    if raw == b"null":
        return None
    try:
        text = json.loads(raw.decode())
    except RecursionError:
        text = None
    if not isinstance(text, str):
        raise ValueError(f"{name} is not a string")
    if "\0" in text:
        raise ValueError(f"{name} has a \\u0000, which PostgreSQL cannot store")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not valid Unicode (a lone surrogate)") from None
    return text


def optional_number(members: dict[str, bytes], name: str, *, any_sign: bool = False) -> int | None:
    """Return a member that is a whole number of 64 bits, None if it is null or not there. Raises ValueError."""
    raw = members.get(name, b"null")
    if raw == b"null":
        return None
    if any_sign and re.fullmatch(rb"-?[1-9][0-9]{0,18}", raw) and -HIGHEST - 1 <= int(raw) <= HIGHEST:
        return int(raw)
    if not re.fullmatch(rb"0|[1-9][0-9]{0,18}", raw) or int(raw) >= HIGHEST:
        raise ValueError(f"{name} {shown(raw.decode(errors='replace'))} is not a number from 0 below {HIGHEST}")
    return int(raw)


def shown(text: str) -> str:
    """Return text of a line for an error message: quoted, and not long."""
    return repr(visible(text, limit=_SHOWN))
