"""What the explorer says about its connection: in the line at the top, and where there is nothing to browse."""

import re
from typing import NamedTuple

from esx.permissions import Permissions
from esx.text import lapse, visible
from esx.tui.cells import MUTED
from esx.tui.session.follower import Follower
from esx.tui.session.session import ExplorerSession, SessionState

_COMMAND = re.compile(r"\[esx ([a-z ]+)\]")
"""A command in these texts, which gets the options that name the database."""
_OTHERS = "   ctrl+o  other connections"
_CHOOSE = "Choose one with ctrl+o, or "
_UNREACHABLE = (
    "Is the server running, and is this the right address? Give another with --dsn, ESX_DSN, DATABASE_URL or PG*.\n"
    f"It is tried again every few seconds.\n\nr  tries now{_OTHERS}   q  quits"
)
_ANSWERED = (
    "The server runs, and this is its answer. Is it the right address? Give another with --dsn, ESX_DSN, DATABASE_URL "
    f"or PG*.\nIt is tried again every few seconds.\n\nr  tries now{_OTHERS}   q  quits"
)
_REFUSED = (
    "The server answers, but does not let this user in. Is it the right user, password and database? psql says "
    "the same of this address. Give another with --dsn, ESX_DSN, DATABASE_URL or PG*.\n"
    f"It is not tried again by itself.\n\nr  tries again{_OTHERS}   q  quits"
)
_NOT_ALLOWED = (
    "GRANT SELECT on its tables to this user, or connect as another. `[esx doctor]` tells what "
    f"else is missing. This screen goes on by itself then.\n\nr  looks again now{_OTHERS}   q  quits"
)
_NOT_TRUSTED = (
    "Connect as a user with fewer rights; or trust the owner, if you would run programs of hers.\n\n"
    f"T  trusts the owner of this store, from now on{_OTHERS}   q  quits"
)
_NO_SCHEMA = (
    f"Run `[esx init]` to create it; this screen goes on by itself then.\n\nr  looks again now{_OTHERS}   q  quits"
)
_AGAIN = f"This screen goes on by itself once there is one.\n\nr  looks again now{_OTHERS}   q  quits"
_ELSEWHERE = f"{_CHOOSE}start esx with another --store: `[esx stores]` lists the names. {_AGAIN}"
_NONE_TO_CHOOSE = (
    "`[esx stores]` lists what is in this database, and why it cannot be read. Start esx with "
    f"another --store, --dsn or user. {_AGAIN}"
)


class Trouble(NamedTuple):
    """Why there is nothing to browse, and what to do about it."""

    title: str
    text: str
    remedy: str = ""
    error: bool = True


def trouble(session: ExplorerSession, where: str, permissions: Permissions) -> Trouble | None:
    """Return why the store at `where` cannot be browsed, None where it can."""
    state, reason = session.state, session.reason
    if state is SessionState.CONNECTING:
        return Trouble("connecting …", where, error=False)
    if state is SessionState.UNREACHABLE:
        found = Trouble("No connection", reason, _ANSWERED if session.answered else _UNREACHABLE)
    elif state is SessionState.REFUSED:
        found = Trouble("The server refuses the login", reason, _REFUSED)
    elif state is SessionState.NOT_ALLOWED:
        found = Trouble("This user may not read the events", reason, _NOT_ALLOWED)
    elif state is SessionState.NOT_TRUSTED:
        remedy = "" if permissions.served else _NOT_TRUSTED
        found = Trouble("Reading this store runs code of its owner", reason, remedy)
    elif state is SessionState.NO_SCHEMA and reason:
        remedy = _ELSEWHERE if session.choosable else _NONE_TO_CHOOSE
        found = Trouble(_why_none(session), reason, remedy, error=False)
    elif state is SessionState.NO_SCHEMA:
        found = Trouble("No event store in this database yet", where, _NO_SCHEMA, error=False)
    else:
        return None
    remedy = found.remedy
    if not permissions.connections:
        remedy = remedy.replace(_OTHERS, "").replace(f"{_CHOOSE}s", "S")
    return found._replace(remedy=_COMMAND.sub(lambda match: visible(session.typed(match[1]), limit=500), remedy))


def _why_none(session: ExplorerSession) -> str:
    if session.named is not None:
        return f"The store {visible(session.named, limit=60)} cannot be shown"
    return "This database has other event stores" if session.choosable else "No event store here can be read"


def span(seconds: float) -> str:
    """Return a time that goes on, in whole seconds: ``13 s``, ``3 min 20 s``."""
    return f"{seconds:.0f} s" if seconds < 59.5 else lapse(seconds)


def status(session: ExplorerSession, follower: Follower) -> tuple[str, str]:
    """Return the state of the store in a few words, and their style: muted unless something is wrong."""
    state = session.state
    if state is SessionState.CONNECTED:
        if follower.unrecorded is not None:
            return "not recorded", "$text-warning"
        if follower.ended:
            return "connected, feed ended", "$text-error"
        if follower.orderless is not None and not session.to_mend:
            return "connected, no feed", MUTED
        held = follower.held()
        if held is not None:
            return f"held {span(held)}", "$text-warning"
        if follower.counts.missed:
            return "events missed", "$text-error"
        if session.to_mend:
            return f"{session.to_mend} to mend", "$text-warning"
        if not follower.started:
            return state.value, MUTED
        if session.shows_recording:
            return "recording", MUTED
        return f"connected, {'live' if follower.listening else 'polling'}", MUTED
    passing = state in (SessionState.CONNECTING, SessionState.NO_SCHEMA)
    return state.value, MUTED if passing else "$text-error"
