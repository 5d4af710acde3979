"""Keeping passwords out of the list of processes, which every user of the machine can read.

Before anything else is imported, esx executes itself again in the same process, with the address in its environment,
which only its owner can read.
"""

import json
import os
import re
import sys
from typing import NoReturn

_VARIABLE = "ESX_HIDDEN_ARGUMENTS"


def hide_passwords() -> None:
    """Start again without the password of ``-d`` in the arguments; after such a start, restore the arguments.

    Raises CannotHide where that is not possible.
    """
    told = os.environ.pop(_VARIABLE, None)
    if told is not None:
        for at, argument in json.loads(told).items():
            sys.argv[int(at)] = argument
        return
    if os.name != "posix":
        return  # there, others cannot read the arguments
    shown = _masked(sys.argv[1:])
    if shown != sys.argv[1:]:
        _start_again(shown)


class CannotHide(Exception):
    """The process cannot be started again. The message is one line with the remedy."""


def _masked(arguments: list[str]) -> list[str]:
    shown = []
    follows = False
    for argument in arguments:
        match = None if follows else re.fullmatch(r"(--dsn=|-(?!-)[A-Za-z]*d)(.*)", argument, re.DOTALL)
        if follows:
            shown.append(_without_password(argument))
        elif match is not None and match[2]:
            shown.append(match[1] + _without_password(match[2]))
        else:
            shown.append(argument)
        follows = not follows and (argument == "--dsn" or (match is not None and not match[2] and argument != "--dsn="))
    return shown


def _without_password(text: str) -> str:
    if not re.search(r"[:=]", text):
        return text
    from esx.libpq.address import without_password

    return without_password(text)


def _start_again(shown: list[str]) -> NoReturn:
    given = sys.argv[1:]
    original = sys.orig_argv
    if not sys.executable or original[len(original) - len(given) :] != given:
        raise CannotHide(
            "the password in --dsn would stay in the list of processes, for others to read: put the address into "
            "ESX_DSN, or the password into PGPASSWORD or ~/.pgpass"
        )
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    hidden = {at: was for at, (was, now) in enumerate(zip(given, shown, strict=True), 1) if was != now}
    command = [*original[: len(original) - len(given)], *shown]
    os.execve(sys.executable, command, {**os.environ, _VARIABLE: json.dumps(hidden)})  # noqa: S606 - ourselves
