"""Saying in words what a load test was asked to do, and where."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from esx.load.model import LoadOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

_HIDDEN = frozenset({"run_id", "yes_write_to"})
_UNITS = {"duration": " s", "warm_up": " s", "think_time": " s", "payload_bytes": " bytes", "rate": "/s"}


def knob(name: str) -> str:
    """Return the name of a field of LoadOptions as on the command line, without its dashes before."""
    return name.replace("_", "-")


def value_text(value: object) -> str:
    """Return the value of an option as it is written on the command line."""
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def parameters(options: LoadOptions) -> list[tuple[str, str]]:
    """Return each option's name and value, for a table."""
    return [
        (knob(field.name), value_text(value) + (_UNITS.get(field.name, "") if value is not None else ""))
        for field in fields(LoadOptions)
        if field.name not in _HIDDEN
        for value in (getattr(options, field.name),)
    ]


def differing(runs: Iterable[LoadOptions]) -> list[str]:
    """Return the names of the options in which runs differ."""
    options = list(runs)
    return [
        field.name
        for field in fields(LoadOptions)
        if field.name not in _HIDDEN and len({getattr(each, field.name) for each in options}) > 1
    ]


def arguments(options: LoadOptions) -> str:
    """Return the command-line options that differ from what `esx load` does by itself."""
    usual = LoadOptions()
    parts = []
    for field in fields(LoadOptions):
        value = getattr(options, field.name)
        if field.name in _HIDDEN or value == getattr(usual, field.name):
            continue
        unit = "s" if field.name in ("duration", "warm_up", "think_time") else ""
        parts.append(f"--{knob(field.name)} {value_text(value)}{unit}")
    return " ".join(parts)


def workload(options: LoadOptions) -> str:
    """Return in a few words what the writers do."""
    heat = "evenly"
    if options.zipf:
        heat = f"Zipf {options.zipf:g}"
    elif options.hot_streams:
        heat = f"{options.hot_share:.0%} of it on {options.hot_streams:,} hot"
    loop = f", {options.rate:g} commands a second" if options.rate is not None else ""
    after = f", after a conflict {options.on_conflict}" if options.expected == "exact" else ""
    return (
        f"{options.users:,} writers on {options.streams:,} streams, {heat}{loop}; expected {options.expected}"
        f"{after}; {options.strategy}, notification {options.notification}"
    )
