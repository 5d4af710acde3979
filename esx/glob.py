r"""Shell patterns for ids and types: ``*`` any text, ``?`` one character, ``[ab-z]`` and ``[!ab]`` one of a set.

PostgreSQL evaluates them, as a regular expression anchored at both ends; its engine does not backtrack on
these, so no pattern is expensive. A backslash takes the next character literally.
"""

import re

from esx.errors import InvalidQuery


def glob_to_regex(pattern: str) -> str:
    """Return the PostgreSQL regular expression for `pattern`.

    Raises InvalidQuery for a malformed pattern, such as one with an open bracket.
    """
    out = ["^"]
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            out.append(".*")
        elif char == "?":
            out.append(".")
        elif char == "\\" and at < len(pattern):
            out.append(_literal(pattern[at]))
            at += 1
        elif char == "[":
            end = pattern.find("]", at + (2 if pattern[at : at + 1] in "!^" else 1))
            if end < 0:
                raise InvalidQuery(f"pattern {pattern!r} has a [ without its ]: close it, or write \\[")
            inside = pattern[at:end]
            negated = inside[:1] in ("!", "^")
            inside = inside[1:] if negated else inside
            out.append(f"[{'^' if negated else ''}{_set(inside)}]")
            at = end + 1
        else:
            out.append(_literal(char))
    return "".join(out) + "$"


def glob_prefix(pattern: str) -> str:
    """Return the literal text with which all matches start."""
    match = re.match(r"[^*?\[\\]*", pattern)
    return match.group() if match else ""


def glob_literal(pattern: str) -> str | None:
    """Return the only text that `pattern` matches, None if it can match others."""
    plain = re.sub(r"\\(.)", "", pattern, flags=re.DOTALL)
    return None if re.search(r"[*?\[]", plain) else re.sub(r"\\(.)", r"\1", pattern, flags=re.DOTALL)


def glob_of(text: str) -> str:
    """Return the pattern for this one text."""
    return re.sub(r"([*?\[\\])", r"\\\1", text)


def glob_containing(text: str) -> str:
    """Return the pattern for all texts that contain `text`."""
    return f"*{glob_of(text)}*"


def _literal(char: str) -> str:
    return char if char.isalnum() or char in "_-" or not char.isascii() else "\\" + char


def _set(inside: str) -> str:
    # In PostgreSQL's sets only these are special; the dash keeps its meaning of a range.
    return "".join("\\" + char if char in "\\[]^" else char for char in inside)
