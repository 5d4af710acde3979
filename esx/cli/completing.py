"""What a shell completes: the names of streams, types, categories and connections, within a second, in silence.

A name that a shell could take for more than a word is not offered: streams are named by whoever writes events.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from typing import TYPE_CHECKING

from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

from esx.cli.options import COMPLETE, as_given

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import FrameType

    import click

    from esx.eventstore import EventStore

_TIME = 1.0
_HARD_END = 3.0
_MOST = 100
_SAFE = re.compile(r"\w[\w.@:/+=,%~-]*")

_BASH = """\
%(complete_func)s() {
    local line="${COMP_LINE:0:COMP_POINT}" word="" strip="" type value
    COMPREPLY=()
    [[ $line == *[[:space:]] ]] || word="${line##*[[:space:]]}"
    # What is one word for esx is several for bash where it has a colon or =: bash replaces the last of them.
    [[ $word == *[:=]* ]] && strip="${word%%"${word##*[:=]}"}"
    while IFS=, read -r type value; do
        case $type in
            plain) COMPREPLY+=("${value#"$strip"}") ;;
            file) compopt -o default ;;
            dir) compopt -o dirnames ;;
        esac
    done < <(COMP_WORDS="$line" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    """Completion for bash by the line up to the cursor, as bash itself breaks words at colons."""

    source_template = _BASH

    @staticmethod
    def _check_version() -> None:
        # bash says itself what it does not know.
        return

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        begun = "" if not words or line[-1:].isspace() else words.pop()
        return words, begun


def register() -> None:
    """Let click know esx's own way of completing in bash."""
    add_completion_class(_Bash, "bash")


def prepare() -> None:
    """Make this process one that answers a shell: nothing on stderr, and an end after three seconds in any case."""
    register()
    if not os.environ.get(COMPLETE, "").endswith("_complete"):
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if hasattr(signal, "setitimer"):
        # A name of a host that nobody resolves keeps a thread, for which Python would wait.
        signal.signal(signal.SIGALRM, _give_up)
        signal.setitimer(signal.ITIMER_REAL, _HARD_END)


def _give_up(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


def complete_stream(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return streams whose ids start with what was begun."""

    async def find(store: EventStore) -> list[str]:
        page = await store.streams_page(prefix=begun, limit=_MOST)
        names = [stream.stream_id for stream in page.streams]
        if page.next_after is not None:
            # With the last one, what all of them begin with is right although not all are here.
            last = await store.streams_page(prefix=begun, limit=1, backwards=True)
            names += [stream.stream_id for stream in last.streams]
        return names

    return _items(_ask(ctx, find))


def complete_stream_glob(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return globs of categories."""

    async def find(store: EventStore) -> list[str]:
        if store.has_category_column:  # no id begins with it
            return []
        page = await store.categories_page(limit=_MOST)
        return [category.place for category in page.categories]

    return _items(_starting(_ask(ctx, find), begun), end="*")


def complete_type(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return types, of those that are common and those of the newest events."""
    return _items(_starting(_ask(ctx, _types), begun))


def complete_filter(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return what a word of a filter may become: globs of categories, keys, and types after ``type:``."""
    key, colon, rest = begun.rpartition(" ")[2].partition(":")
    if not colon:
        from esx.filter_language import KEYS

        keys = [CompletionItem(f"{name}:") for name in KEYS if name.startswith(key)]
        return [*complete_stream_glob(ctx, parameter, begun), *keys]
    find = {"type": complete_type, "stream": complete_stream_glob}.get(key)
    return [] if find is None else [CompletionItem(f"{key}:{item.value}") for item in find(ctx, parameter, rest)]


async def _types(store: EventStore) -> list[str]:
    return await store.known_types()


def complete_database(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the connections of the config file."""
    from esx.config import BadConfig, load

    try:
        names = [*load(os.environ).connections, "embedded"]
    except BadConfig:
        return []
    return _items(_starting(names, begun))


def _starting(names: Iterable[str], begun: str) -> list[str]:
    """Return names that begin so, in any case; each once."""
    return [name for name in dict.fromkeys(names) if name.lower().startswith(begun.lower())]


def _items(names: Iterable[str], end: str = "") -> list[CompletionItem]:
    return [CompletionItem(name + (end if name[-1:] in "-/_" else "")) for name in names if _SAFE.fullmatch(name)]


def _ask(ctx: click.Context, find: Callable[[EventStore], Awaitable[list[str]]]) -> list[str]:
    """Return what the database answers, nothing where it does not within a second."""
    from esx.config import load
    from esx.database_choice import choose, open_database
    from esx.errors import EsxError
    from esx.eventstore import EventStore

    async def inside(dsn: str | None, store: str | None, trust: bool, timeout: float) -> list[str]:
        async with (
            asyncio.timeout(timeout),
            EventStore.connect(
                dsn,
                read_only=True,
                store=store,
                trust_owner=trust,
                layouts=config.layouts,
                statement_timeout=timeout,
                timeout=timeout,
                max_connections=1,
            ) as opened,
        ):
            return await find(opened)

    try:
        config = load(os.environ)
        dsn = as_given(ctx, "dsn")
        if choose(dsn, os.environ, config).embedded and not _embedded_runs():
            return []
        with open_database(dsn, os.environ, config) as database:
            store = as_given(ctx, "store") or database.store
            trust = bool(as_given(ctx, "trust_owner")) or database.trust_owner
            return asyncio.run(inside(database.dsn, store, trust, _TIME))
    except (EsxError, OSError, TimeoutError):
        return []


def _embedded_runs() -> bool:
    """Return whether the PostgreSQL that comes with esx runs: nobody waits for its start to complete a word."""
    from esx.embedded import EmbeddedServer

    return EmbeddedServer.runs()
