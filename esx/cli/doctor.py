"""esx doctor."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING

import click

from esx.cli.opening import with_store
from esx.cli.options import database_option, json_option, partial_option
from esx.cli.output import OutputLines, ProgressLine, incomplete
from esx.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esx.doctor.finding import Finding
    from esx.eventstore import EventStore


@click.command(name="doctor")
@click.option("--full", is_flag=True, help="Look at every event too; Ctrl-C ends it.")
@json_option
@partial_option
@database_option
def command(dsn: str | None, full: bool, as_json: bool) -> int:
    """Look for what is wrong with the store, and say what to do about it.

    Quick at any size, unless --full is given. It only reads. Exits with 1 if there is an error or a warning, else with
    4 if a check could not be made.
    """

    async def work(store: EventStore) -> tuple[list[Finding], float]:
        begun = time.monotonic()
        with ProgressLine() as progress:
            found = await store.doctor(full=full, on_progress=progress)
        return found, time.monotonic() - begun

    findings, took = with_store(dsn, work, read_only=True)
    lines = OutputLines()
    if as_json:
        for finding in findings:
            lines.json(finding.to_json())
    else:
        _print(lines, findings, took)
    unmade = {finding.check: None for finding in findings if not finding.made}
    if unmade:
        incomplete(f"not checked: {', '.join(unmade)}; the remedies say what it takes")
    return 1 if any(finding.severity.wrong for finding in findings) else 0


def _print(lines: OutputLines, findings: Sequence[Finding], took: float) -> None:
    """Print the findings, the worst last, and then the counts."""
    from esx.doctor.finding import Severity

    ranks = list(Severity)
    ranked = sorted(findings, key=lambda finding: ranks.index(finding.severity))
    width = max((len(finding.check) for finding in ranked), default=0)
    label = max(len(str(severity)) for severity in ranks)
    for _, group in groupby(ranked, key=lambda finding: finding.severity):
        for finding in group:
            lines.text(f"{finding.severity!s:<{label}}  {finding.check:<{width}}  {finding.message}")
            lines.text(*(" " * (label + width + 4) + step for step in finding.remedy))
        lines.text("")
    errors, warnings = (
        sum(finding.severity is severity for finding in findings) for severity in (Severity.ERROR, Severity.WARNING)
    )
    wrong = {finding.check for finding in findings if finding.severity.wrong}
    passed = len({finding.check for finding in findings} - wrong)
    lines.text(
        f"{counted(errors, 'error')}, {counted(warnings, 'warning')}, {counted(passed, 'check')} passed "
        f"in {f'{took:.1f} s' if took >= 1 else f'{took * 1000:.0f} ms'}"
    )
