"""Sweeps: what is planned runs, what has run is kept, and what it shows is said in words."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from esx.load.archive import Archive, NoSuchRun, RecordedRun
from esx.load.errors import InvalidOptions
from esx.load.model import LoadCounts, LoadOptions, LoadProgress
from esx.load.report.compare import compare, comparison_json, comparison_lines
from esx.load.report.pages.compare import compare_page
from esx.load.report.pages.sweep import sweep_page, sweep_picture
from esx.load.report.series import conflicts_a_second
from esx.load.sweep.knee import curves, in_words
from esx.load.sweep.sweep import Plan, Result, Sweep, SweepRun, Sweeps, Turn, plan_of, point_text
from esx.load.sweep.text import sweep_command, sweep_lines, sweep_markdown
from tests.load.test_archive import HEADER, LINE, SUMMARY, Told, save
from tests.load.test_pages import check

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from esx.load.sweep.sweep import Value

BASE = LoadOptions(users=8, duration=3.0)


def result(point: dict[str, Value], goodput: float, conflict_rate: float, number: int = 0) -> Result:
    return Result(point, number, "r", goodput, conflict_rate, 2.0, 1.0, 9.0, 2.0, 20.0, 1000, "pass", False)


def measured(tmp_path: Path, vary: list[str], figures: Callable[[dict[str, Any]], tuple[float, float]]) -> Sweep:
    sweep = Sweeps(tmp_path).new(plan_of(BASE, vary, 1), "db")
    sweep.results = [result(point, *figures(point)) for point in sweep.plan.points()]
    return sweep


def test_rounds_take_turns_and_every_other_goes_backwards() -> None:
    plan = plan_of(BASE, ["users=1,4", "strategy=conditional,row-lock"], 2)
    forth = ["users=1 strategy=conditional", "users=1 strategy=row-lock", "users=4 strategy=conditional"]
    forth.append("users=4 strategy=row-lock")
    assert [point_text(point) for _, point in plan.runs()] == forth + forth[::-1]
    assert plan.options({"users": 4, "strategy": "row-lock"}) == replace(BASE, users=4, strategy="row-lock")


@pytest.mark.parametrize(
    ("vary", "rounds", "message"),
    [
        ([], 1, "nothing is varied: use --vary"),
        (["heat=1,2"], 1, "--vary 'heat=1,2' names no knob: use one of"),
        (["users"], 1, "--vary 'users' has no values: use e.g."),
        (["users=1,,2"], 1, "has no values"),
        (["users=1.5"], 1, "--vary users: '1.5' is not a whole number"),
        (["zipf=much"], 1, "--vary zipf: 'much' is not a number"),
        (["strategy=hope"], 1, "'hope' is no strategy: use conditional, row-lock"),
        (["users=1,1"], 1, "names a value twice"),
        (["users=1", "users=2"], 1, "--vary users is given twice"),
        (["users=1", "streams=1", "rate=1", "zipf=1"], 1, "4 knobs are varied: use at most 3"),
        (["users=0,1"], 1, "with users=0: --users is 0"),
        (["hot-streams=1,4"], 1, "with hot-streams=1: --hot-streams is 1 but they have no share"),
        (["users=1,2"], 0, "--rounds is 0"),
        (["users=1,2,3,4,5,6,7,8,9,10,11"], 100, "that makes 1,100 runs"),
    ],
)
def test_what_cannot_be_planned_is_said_before_anything_runs(vary: list[str], rounds: int, message: str) -> None:
    with pytest.raises(InvalidOptions) as refused:
        plan_of(BASE, vary, rounds)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_conflicts_a_second_are_told_also_where_nothing_succeeds() -> None:
    lines = [
        LoadProgress(1.0, 8, LoadCounts(30, 10, 20), 10.0, 2 / 3, 1.0, 1.0, 1.0, tries_per_success=3.0),
        LoadProgress(2.0, 8, LoadCounts(80, 10, 70), 0.0, 1.0, 1.0, 1.0, 1.0),
        LoadProgress(4.0, 8, LoadCounts(100, 20, 80), 5.0, 0.5, 1.0, 1.0, 1.0, tries_per_success=2.0),
    ]
    tell = conflicts_a_second(lines)
    assert [tell(line) for line in lines] == [pytest.approx(20), 50, 5]


def test_a_name_is_one_runs() -> None:
    with pytest.raises(InvalidOptions, match="--run-id is x, but a sweep makes several runs"):
        plan_of(replace(BASE, run_id="x"), ["users=1,4"], 1)


async def test_a_sweep_keeps_what_has_run_when_it_is_stopped(tmp_path: Path) -> None:
    sweeps, archive = Sweeps(tmp_path / "sweeps"), Archive(tmp_path / "runs")
    sweep = sweeps.new(plan_of(BASE, ["users=1,2,4"], 1), "db")
    asked: list[LoadOptions] = []

    def start(options: LoadOptions) -> RecordedRun:
        asked.append(options)
        interrupted = len(asked) == 2
        summary = replace(SUMMARY, run=f"r{len(asked)}", users=options.users, interrupted=interrupted)
        return RecordedRun(Told(LINE, summary), archive, "db", sweep=sweep.id)

    run = SweepRun(sweep, start, sweeps.save)
    told: list[object] = []
    async for said in run:
        told.append(said)
        if isinstance(said, Turn) and said.number == 2:
            run.stopped = True
    assert [type(said) for said in told] == [Turn, LoadProgress, Result, Turn, LoadProgress]
    first = told[0]
    assert isinstance(first, Turn)
    assert (first.runs, first.left) == (3, 3 * 6.0)
    assert [options.users for options in asked] == [1, 2]

    again = sweeps.load("last")
    assert (again.id, again.plan, again.results) == (sweep.id, sweep.plan, sweep.results)
    assert [each.run for each in again.results] == ["r1"], "what was cut short is not measured"
    assert archive.load("r2").header.sweep == sweep.id, "but it is saved"
    assert "ended early: 1 of 3 runs" in "\n".join(sweep_lines(again, colour=False))
    assert "ended early" in check(sweep_page(again)).text
    (tmp_path / "sweeps" / "s9.json").write_text("{}")
    for name in ("s9", "s0", "../x"):
        with pytest.raises(NoSuchRun):
            sweeps.load(name)


def test_the_first_step_that_loses_much_is_told_and_not_a_later_bend(tmp_path: Path) -> None:
    goodput = {1: 1000.0, 2: 370.0, 4: 360.0, 16: 350.0, 64: 90.0}
    sweep = measured(tmp_path, ["users=1,2,4,16,64"], lambda point: (goodput[point["users"]], 0.4))
    assert in_words(sweep)[0] == (
        "It loses 63% at users=2, its first step that loses more than 20%: 1,000/s and 40% conflicts at 1, "
        "370/s and 40% conflicts at 2, 90/s and 40% conflicts at 64."
    )


def test_it_says_where_the_curve_bends_and_what_was_best(tmp_path: Path) -> None:
    conflicts = {1: 0.9, 4: 0.7, 16: 0.05, 64: 0.02}
    goodput = {1: 300.0, 4: 1200.0, 16: 4600.0, 64: 5000.0}

    def figures(point: dict[str, Any]) -> tuple[float, float]:
        streams = point["streams"]
        return (4000.0, 0.0) if point["strategy"] == "row-lock" else (goodput[streams], conflicts[streams])

    sweep = measured(tmp_path, ["streams=64,1,16,4", "strategy=conditional,row-lock"], figures)
    assert [[place for place, _ in curve.spots] for curve in curves(sweep)] == [[1, 4, 16, 64]] * 2
    said = in_words(sweep)
    assert said[0] == (
        "conditional: it bends at streams=16: 300/s and 90% conflicts at 1, 4,600/s and 5% conflicts at 16, "
        "5,000/s and 2% conflicts at 64. Conflicts pass half of the attempts between streams=4 and 16."
    )
    assert said[1] == "row-lock: it hardly bends: 4,000 to 4,000 appends/s, no conflicts."
    assert "At streams=1 best is row-lock: 4,000/s, 0% conflicts; 13 x the worst, conditional." in said
    lines = list(sweep_lines(sweep, colour=False))
    assert max(map(len, (line.rstrip() for line in lines))) <= 80
    assert not any("\x1b" in line for line in lines)
    coloured = list(sweep_lines(sweep, colour=True))
    assert [re.sub(r"\x1b\[[\d;]*m", "", line) for line in coloured] == lines
    assert coloured != lines
    assert sweep_command(sweep) == (
        "esx load sweep --vary streams=64,1,16,4 --vary strategy=conditional,row-lock --users 8 --duration 3s"
    )
    assert "it bends at streams=16" in check(sweep_page(sweep)).text
    assert "conditional" in sweep_picture(sweep)
    assert sweep_markdown(sweep).splitlines()[:3] == [
        "| streams | conditional | row-lock |",
        "| --- | ---: | ---: |",
        "| 1 | 300/s, 90% | 4,000/s, 0% |",
    ]


def test_the_best_policy_is_named_with_what_it_gains(tmp_path: Path) -> None:
    goodput = {"retry": 500.0, "backoff": 2000.0, "queue": 3000.0}
    sweep = measured(tmp_path, ["on-conflict=retry,backoff,queue"], lambda point: (goodput[point["on_conflict"]], 0.1))
    [said] = in_words(sweep)
    assert said == (
        "Best: on-conflict=queue with 3,000 appends/s. That is 1.5 x backoff (2,000/s), 6.0 x retry (500/s)."
    )
    assert any("█" in line for line in sweep_lines(sweep, colour=False))
    check(sweep_page(sweep))
    empty = Sweep("s1", HEADER.started_at, "db", Plan(BASE, sweep.plan.vary), [])
    assert "nothing to show" in in_words(empty)[0]
    check(sweep_page(empty))


def test_runs_side_by_side(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    save(archive)
    faster = replace(SUMMARY, run="r2", goodput=16.0, total=LoadCounts(40, 32, 8))
    save(archive, replace(HEADER, options=replace(HEADER.options, strategy="row-lock")), faster)
    other = replace(HEADER.options, strategy="row-lock", on_conflict="backoff", notification="off", subscribers=3)
    save(archive, replace(HEADER, options=replace(other, users=7, rate=50.0)), replace(SUMMARY, run="r3"))
    runs = [archive.load("r1"), archive.load("r2")]
    compared = compare(runs)
    lines = list(comparison_lines(compared))
    assert "   strategy=row-lock" in lines
    assert next(line.split() for line in lines if line.startswith("goodput")) == [
        "goodput,",
        "/s",
        "8.0",
        "16.0",
        "2.00",
    ]
    assert max(map(len, lines)) <= 80
    assert [each["ratios"]["goodput, /s"] for each in comparison_json(compared)] == [1.0, 2.0]
    assert max(map(len, comparison_lines(compare([*runs * 2, archive.load("r3")])))) <= 80
    assert "strategy=row-lock" in check(compare_page(compared)).text
    stopped = replace(runs[1], summary=replace(faster, elapsed=7.2, interrupted=True))
    assert "   strategy=row-lock, stopped after 7 s" in comparison_lines(compare([runs[0], stopped]))
    with pytest.raises(InvalidOptions, match="ended without a summary"):
        compare([runs[0], replace(runs[1], summary=None)])
