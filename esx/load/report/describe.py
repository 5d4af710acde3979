"""A load test's options in words."""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from esx.load.model import LoadOptions, LoadSummary
from esx.text import counted, shell_word, visible

_SHOWN = [field.name for field in fields(LoadOptions) if field.name not in ("run_id", "yes_write_to")]
_UNITS = {"duration": " s", "warm_up": " s", "think_time": " s", "payload_bytes": " bytes", "rate": "/s"}


def knob(name: str) -> str:
    """Return the name of a field of LoadOptions as on the command line, without the leading dashes."""
    return name.replace("_", "-")


def value_text(value: object) -> str:
    """Return the value of an option as it is written on the command line."""
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def parameters(options: LoadOptions) -> list[tuple[str, str]]:
    """Return each option's name and value, for a table."""
    values = ((name, getattr(options, name)) for name in _SHOWN)
    return [
        (knob(name), value_text(value) + (_UNITS.get(name, "") if value is not None else "")) for name, value in values
    ]


def differing(runs: Iterable[LoadOptions]) -> list[str]:
    """Return the names of the options in which runs differ."""
    options = list(runs)
    return [name for name in _SHOWN if len({getattr(each, name) for each in options}) > 1]


def argument_words(options: LoadOptions) -> list[str]:
    """Return the command-line options that differ from the defaults of `esx load`, as words."""
    usual = LoadOptions()
    words = []
    for name in _SHOWN:
        value = getattr(options, name)
        if value != getattr(usual, name):
            unit = "s" if _UNITS.get(name) == " s" else ""
            words += [f"--{knob(name)}", f"{value_text(value)}{unit}"]
    return words


def arguments(options: LoadOptions) -> str:
    """Return the same as it is typed in a shell."""
    return " ".join(map(shell_word, argument_words(options)))


def verdict_text(summary: LoadSummary) -> tuple[str, str]:
    """Return the verdict in a word, and what it says: what was judged, and beside it the conflicts, which were not."""
    share = f"{summary.conflict_rate:.1%} conflicts"
    if summary.verdict == "pass":
        delivered = " and delivered" if summary.feed is not None and summary.feed.subscribers else ""
        return "PASS", f"stored{delivered} exactly once; {share}"
    if summary.verdict is None:
        return "NONE", f"not judged; {share}"
    return visible(summary.verdict, limit=20).upper(), f"for the reasons below; {share}"


def workload(options: LoadOptions) -> str:
    """Return the workload in a few words."""
    heat = "evenly"
    if options.zipf:
        heat = f"Zipf {options.zipf:g}"
    elif options.hot_streams:
        heat = f"{options.hot_share:.0%} of it on {options.hot_streams:,} hot"
    loop = f", {options.rate:g} commands a second" if options.rate is not None else ""
    after = f", after a conflict {options.on_conflict}" if options.expected == "exact" else ""
    by = f"{options.strategy}, notification {options.notification}"
    if options.grouping == "on":
        by += ", grouped"
    if not options.by_esx:
        by = f"appended by {visible(Path(options.append_sql or options.appender).name, limit=40)}"
    if options.replay is not None:
        name = visible(Path(options.replay).name, limit=40)
        fast = f", {options.times:g} times as fast" if options.times != 1 else ""
        return (
            f"{counted(options.users, 'writer')}, the appends of {name}{fast}; expected {options.expected}{after}; {by}"
        )
    if options.like is not None:
        name = visible(Path(options.like).name, limit=40)
        much = f"{options.times:g} times the traffic" if options.times != 1 else "the traffic"
        return f"{counted(options.users, 'writer')}, {much} of {name}{loop}; expected {options.expected}{after}; {by}"
    return (
        f"{counted(options.users, 'writer')} on {counted(options.streams, 'stream')}, {heat}{loop}; "
        f"expected {options.expected}{after}; {by}"
    )
