"""What will happen if a user does something to a consumer: commands and the explorer say it before they do it."""

from collections.abc import Sequence

from esx.store.consume.report import ConsumerReport
from esx.text import counted, visible

ACTIONS = ("pause", "resume", "reset", "skip", "delete")
"""What can be done to a consumer, by the name of the command."""


def pause_effects(report: ConsumerReport) -> list[str]:
    """Say what pausing does."""
    if report.paused:
        return [f"{named(report)} is paused already: nothing changes"]
    running = "no program runs it, and none that is started will handle anything"
    if report.runner is not None:
        running = f"{report.runner} finishes the events that it handles just now, and stays, without handling any more"
    return [
        f"{named(report)} stops after {report.position:,} until it is resumed: {running}",
        f"its lag grows meanwhile: now it is {_lag(report)}",
    ]


def resume_effects(report: ConsumerReport) -> list[str]:
    """Say what resuming does."""
    if not report.paused:
        return [f"{named(report)} is not paused: nothing changes"]
    by = "no program runs it: start one" if report.runner is None else f"{report.runner} does so within a second"
    return [f"{named(report)} goes on after {report.position:,}: {_lag(report)}; {by}"]


def reset_effects(report: ConsumerReport, to: int, tables: Sequence[str] = ()) -> list[str]:
    """Say what moving the position to `to` does, where `tables` are emptied in the same transaction."""
    effects = []
    if to < report.position:
        effects.append(
            f"{named(report)} moves back from {report.position:,}, and handles the events after {to:,} AGAIN"
        )
    elif to > report.position:
        effects.append(f"{named(report)} moves from {report.position:,}, and NEVER handles the events up to {to:,}")
    else:
        effects.append(f"{named(report)} stays at {to:,}")
    if tables:
        effects.append(f"table {', '.join(visible(table, limit=200) for table in tables)} is EMPTIED")
    elif report.kind == "projection" and to < report.position:
        effects.append("its read model STAYS as it is: empty it in the same step by --truncate TABLE")
    if report.kind == "relay" and to < report.position:
        effects.append("its target gets these events a second time")
    if report.parked or report.skipped:
        effects.append(f"what it has put aside after {to:,} is forgotten")
    if report.last_error is not None:
        effects.append("its error is forgotten")
    return [*effects, _running(report)]


def skip_effects(report: ConsumerReport, global_seq: int, about: str, waiting: int = 0) -> list[str]:
    """Say what skipping an event does; `about` is its type and stream, `waiting` how many are parked behind it."""
    effects = [f"{named(report)} NEVER handles event {global_seq:,} ({about}); it is listed as skipped"]
    if waiting:
        effects.append(f"{counted(waiting, 'event')} parked behind it in its stream are handled then")
    if report.runner is None:
        effects.append("no program runs it: start one")
    return effects


def retry_effects(report: ConsumerReport, events: int) -> list[str]:
    """Say what trying the parked events again does."""
    by = "no program runs it: start one"
    if report.runner is not None:
        by = f"{report.runner} begins within a second"
    return [f"{named(report)} tries {counted(events, 'parked event')} again, in order for each stream; {by}"]


def rebuild_effects(report: ConsumerReport, tables: Sequence[str]) -> list[str]:
    """Say what a rebuild does."""
    named_tables = ", ".join(visible(table, limit=200) for table in tables)
    effects = [
        f"all events up to {report.position:,} are handled again, in a schema of their own; {named(report)} goes on",
        f"then the rows of {named_tables} are REPLACED, in one transaction with the position",
    ]
    if report.parked:
        effects.append(f"{_count(report.parked)} that it has parked are handled, or the rebuild fails")
    if report.skipped:
        effects.append(f"{_count(report.skipped)} that were skipped are left out")
    return effects


def delete_effects(report: ConsumerReport) -> list[str]:
    """Say what deleting does."""
    effects = [f"the position {report.position:,} of {named(report)} is FORGOTTEN: a program that runs it begins anew"]
    if report.parked:
        effects.append(f"{_count(report.parked)} that it has parked are forgotten, and were never handled")
    stays = "its read model stays as it is" if report.kind == "projection" else "what its target has got stays there"
    return [*effects, stays, _running(report, deleted=True)]


def named(report: ConsumerReport) -> str:
    """Return the kind and the name, for people."""
    return f"{report.kind} {visible(report.name, limit=200)}"


def _running(report: ConsumerReport, *, deleted: bool = False) -> str:
    if report.runner is None:
        return "no program runs it"
    return f"{report.runner}, which runs it, {'ends with an error' if deleted else 'goes on from there by itself'}"


def _lag(report: ConsumerReport) -> str:
    return report.lag_text + (f" ({report.age_text})" if report.age_text else "")


def _count(number: int) -> str:
    return f"more than {number - 1:,} events" if number > 10_000 else counted(number, "event")
