"""Progress in place: what a terminal gets, and what a file gets."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

from esx.cli.output import Live
from esx.load.model import DatabaseFigures, FeedFigures, LoadCounts, LoadOptions, LoadProgress, LoadSummary
from esx.load.report.live import LiveText
from esx.load.report.text import render_summary

if TYPE_CHECKING:
    import pytest


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_written_over_and_left_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "20")
    with Live() as live:
        live.show(["one", "two \x1b[31m" + "x" * 40])
        live.show(["three"])
        live.keep("stays")
    up = "\x1b[1A\x1b[2K"
    assert terminal.getvalue() == f"one\ntwo ␛[31m{'x' * 10}\n{up}{up}three\n{up}stays\n"


def test_a_file_gets_lines_only_and_quiet_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr("sys.stderr", file)
    for quiet in (False, True):
        with Live(quiet=quiet) as live:
            live.show(["in place"])
            live.keep("kept")
    assert file.getvalue() == "kept\n"


def test_progress_and_summary_fit_a_terminal_however_large_the_figures() -> None:
    counts = LoadCounts(99_999_999, 50_000_000, 49_000_000, 999_999, 0)
    line = LoadProgress(
        86_400.0, 10_000, counts, 123_456.0, 0.995, 9_999.9, 99_999.9, 123_456.7, "gone\n" * 30, False, 99.9,
        9_999.9, 99_999.9, 123_456.7, 0.99,
    )  # fmt: skip
    live = LiveText(LoadOptions(users=10_000, duration=86_400.0))
    shown = [live.lines(line) for _ in range(200)][-1]
    assert [each.split()[0] for each in shown] == ["time", "goodput", "conflicts", "append", "response", "failures"]
    times = {"p50": 9_999.9, "p90": 9_999.9, "p95": 99_999.9, "p99": 123_456.7, "p99.9": 123_456.7, "max": 600_000.0}
    summary = LoadSummary(
        "1" * 30, 86_400.0, 10_000, counts, 123_456.7, 0.5, times, 50_000_000, "fail", ("because " * 40,), "why " * 50,
        options=LoadOptions(), warm_up=counts, tries_per_success=123.45, response=times, time_to_success=times,
        generator_cpu=0.99, saturated=True, database=DatabaseFigures(1e12, 1e9, 1e9, {"Lock:transactionid": 999.9}),
        feed=FeedFigures(100, 99_999_999, 0, 0, times),
    )  # fmt: skip
    for text in (shown, render_summary(summary).splitlines(), render_summary(replace(summary, feed=None)).splitlines()):
        assert max(map(len, text)) <= 80
