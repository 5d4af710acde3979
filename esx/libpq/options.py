"""Parses ``options`` and PGOPTIONS, the server's command line, as the server does."""

import re


class Malformed(ValueError):
    """What is wrong with the options, to follow their name in a message."""


def words(text: str) -> list[str]:
    """Split at white space; a backslash makes the next character a part of the word."""
    found = re.findall(r"(?:\\.|[^ \t\n\r\f\v\\]|\\\Z)+", text, re.DOTALL)
    return [re.sub(r"\\(.|\Z)", r"\1", word, flags=re.DOTALL) for word in found]


def split_options(text: str) -> list[tuple[str, str]]:
    """Return the settings among the options, as ``-c name=value`` or ``--name=value``, names in lower case.

    Other options are the server's to judge. Raises Malformed.
    """
    settings = []
    rest = iter(words(text))
    for word in rest:
        if word in ("-c", "--"):
            setting = next(rest, "") if word == "-c" else ""
        elif word.startswith(("-c", "--")):
            setting = word[2:]
        else:
            continue
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise Malformed("must be written like '-c name=value'")
        settings.append((name.replace("-", "_").lower(), value))
    return settings


def names_utf8(name: str) -> bool:
    """Return whether PostgreSQL takes this name of an encoding for UTF-8."""
    return re.sub(r"[^a-z0-9]", "", name.strip("'\"").lower()) in ("utf8", "unicode")
