"""Sweeps: the same load test with other values of some knobs, and its results, saved in one file."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from esx.files import new_file, private_directory
from esx.load.archive import FORMAT, NoSuchRun, SavedFiles, Test, read_saved
from esx.load.errors import InvalidOptions
from esx.load.knobs import BY_NAME
from esx.load.model import LoadOptions, LoadProgress, LoadSummary
from esx.load.options import validate
from esx.load.report.describe import knob, value_text
from esx.load.report.text import too_slow
from esx.text import visible

Value = int | float | str
MOST_KNOBS = 3
MOST_RUNS = 1000
_OVERHEAD = 3.0  # seconds that a run takes besides its duration, until it is known better
FIXED = frozenset(
    {"duration", "warm_up", "seed", "run_id", "yes_write_to", "max_appends", "appender", "append_sql", "store"}
) | {"like", "replay"}
"""The knobs that a sweep does not turn."""


@dataclass(frozen=True)
class Plan:
    """Which knobs (fields of LoadOptions) take which values in place of those of `base`, in each of `rounds` rounds."""

    base: LoadOptions
    vary: tuple[tuple[str, tuple[Value, ...]], ...]
    rounds: int = 1

    def points(self) -> list[dict[str, Value]]:
        """Return every combination, in the order in which its values were named."""
        knobs = [[(name, value) for value in values] for name, values in self.vary]
        return [dict(point) for point in itertools.product(*knobs)]

    def options(self, point: Mapping[str, Value]) -> LoadOptions:
        """Return the options of one combination."""
        changes: dict[str, Any] = dict(point)
        return replace(self.base, **changes)

    def runs(self) -> list[tuple[int, dict[str, Value]]]:
        """Return the runs, each with its round. Every other round is backwards: no combination is always first."""
        points = self.points()
        return [(number, point) for number in range(self.rounds) for point in (points[::-1] if number % 2 else points)]


@dataclass(frozen=True)
class Result:
    """The figures of one run of a sweep, times in milliseconds."""

    point: dict[str, Value]
    round: int
    run: str
    goodput: float
    conflict_rate: float
    tries_per_success: float
    p50: float
    p99: float
    to_success_p50: float
    to_success_p99: float
    successes: int
    verdict: str | None
    saturated: bool
    response_p99: float | None = None
    """From the time at which a command was due; None in a closed loop."""
    behind: bool = False
    """Whether the rate was not reached."""


@dataclass
class Sweep:
    """A sweep: its plan and the results until now."""

    id: str
    started_at: datetime
    database: str
    plan: Plan
    results: list[Result] = field(default_factory=list)
    esx: str = ""


def plan_of(base: LoadOptions, varied: Sequence[str], rounds: int) -> Plan:
    """Return the plan for texts like ``name=v1,v2,...``. Raises InvalidOptions, which names what is wrong."""
    if not varied:
        raise InvalidOptions("nothing is varied: use --vary, e.g. --vary users=1,4,16")
    if len(varied) > MOST_KNOBS:
        raise InvalidOptions(f"{len(varied)} knobs are varied: use at most {MOST_KNOBS}")
    vary: list[tuple[str, tuple[Value, ...]]] = []
    for text in varied:
        name, values = _parse(text)
        if name in dict(vary):
            raise InvalidOptions(f"--vary {knob(name)} is given twice: name all its values in one")
        vary.append((name, values))
    if not 1 <= rounds <= 100:
        raise InvalidOptions(f"--rounds is {rounds}: use a number from 1 to 100")
    if base.run_id is not None:
        raise InvalidOptions(f"--run-id is {base.run_id}, but a sweep makes several runs: leave it out")
    plan = Plan(base, tuple(vary), rounds)
    points = plan.points()
    if len(points) * rounds > MOST_RUNS:
        raise InvalidOptions(f"that makes {len(points) * rounds:,} runs: use fewer values, at most {MOST_RUNS:,} runs")
    for point in points:
        try:
            validate(plan.options(point))
        except InvalidOptions as error:
            raise InvalidOptions(f"with {point_text(point)}: {error}") from None
    return plan


def point_text(point: Mapping[str, Value]) -> str:
    """Return a combination as text, e.g. ``hot-streams=4 strategy=row-lock``."""
    return " ".join(f"{knob(name)}={value_text(value)}" for name, value in point.items())


def _parse(text: str) -> tuple[str, tuple[Value, ...]]:
    name, equals, listed = text.partition("=")
    name = name.strip().lstrip("-").replace("-", "_")
    known = BY_NAME.keys() - FIXED
    if name not in known:
        names = ", ".join(sorted(knob(each) for each in known))
        raise InvalidOptions(f"--vary {visible(text, limit=60)!r} names no knob: use one of {names}")
    texts = [each.strip() for each in listed.split(",")]
    if not equals or not all(texts):
        raise InvalidOptions(f"--vary {visible(text, limit=60)!r} has no values: use e.g. --vary {knob(name)}=1,2,4")
    values = tuple(_value(name, each) for each in texts)
    if len(set(values)) < len(values):
        raise InvalidOptions(f"--vary {visible(text, limit=60)!r} names a value twice: --rounds repeats all of them")
    return name, values


def _value(name: str, text: str) -> Value:
    turned = BY_NAME[name]
    if turned.choices:
        if text not in turned.choices:
            raise InvalidOptions(f"{text!r} is no {knob(name)}: use {', '.join(turned.choices)}")
        return text
    try:
        value: int | float = turned.kind(text)
    except ValueError:
        raise InvalidOptions(f"--vary {knob(name)}: {visible(text, limit=40)!r} is not {turned.noun}") from None
    return value


def result_of(point: dict[str, Value], number: int, summary: LoadSummary) -> Result:
    """Return the figures of a run that a sweep keeps."""
    return Result(
        point=point,
        round=number,
        run=summary.run,
        goodput=summary.goodput,
        conflict_rate=summary.conflict_rate,
        tries_per_success=summary.tries_per_success,
        p50=summary.percentiles.get("p50", 0.0),
        p99=summary.percentiles.get("p99", 0.0),
        to_success_p50=summary.time_to_success.get("p50", 0.0),
        to_success_p99=summary.time_to_success.get("p99", 0.0),
        successes=summary.total.successes,
        verdict=summary.verdict,
        saturated=summary.saturated,
        response_p99=summary.response.get("p99"),
        behind=too_slow(summary) is not None,
    )


# -- running ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """The start of a sweep's run, the `number`-th of `runs`; about `left` seconds remain, including this run."""

    number: int
    runs: int
    point: dict[str, Value]
    left: float


class SweepRun:
    """Runs a plan: iterate over it for turns, the progress lines of each, and its result.

    `start` begins one load test. `save` is called after each result. After `stop` the run under way ends.
    """

    def __init__(self, sweep: Sweep, start: Callable[[LoadOptions], Test], save: Callable[[Sweep], None]) -> None:
        self.sweep = sweep
        self.stopped = False
        self._start = start
        self._save = save
        self._test: Test | None = None

    def stop(self) -> None:
        """End it; the run under way is not measured."""
        self.stopped = True
        if self._test is not None:
            self._test.stop()

    async def __aiter__(self) -> AsyncGenerator[Turn | LoadProgress | Result]:
        plan = self.sweep.plan
        runs = plan.runs()
        each = plan.base.duration + plan.base.warm_up + _OVERHEAD
        began = time.monotonic()
        for number, (turn, point) in enumerate(runs, 1):
            if self.stopped:
                break
            if number > 1:
                each = (time.monotonic() - began) / (number - 1)
            yield Turn(number, len(runs), point, each * (len(runs) - number + 1))
            test = self._test = self._start(plan.options(point))
            summary: LoadSummary | None = None
            try:
                async for line in test:
                    if isinstance(line, LoadSummary):
                        summary = line
                    else:
                        yield line
            finally:
                self._test = None
                await test.aclose()
            if summary is not None and not summary.interrupted:
                result = result_of(point, turn, summary)
                self.sweep.results.append(result)
                self._save(self.sweep)
                yield result


# -- keeping ------------------------------------------------------------------------------------------------------


class Sweeps(SavedFiles):
    """The saved sweeps."""

    kind, suffix = "sweep", ".json"

    def new(self, plan: Plan, database: str) -> Sweep:
        """Return a sweep that has not begun."""
        from esx import __version__

        now = datetime.now(UTC)
        return Sweep(f"s{now:%y%m%d%H%M%S}{secrets.randbelow(100):02d}", now, database, plan, [], __version__)

    def save(self, sweep: Sweep) -> None:
        """Write a sweep, in place of its file if there is one; raises OSError."""
        private_directory(self.directory)
        with new_file(self.path(sweep.id), force=True, private=True) as file:
            saved = msgspec.to_builtins(sweep)
            plan = saved.pop("plan")
            file.write(msgspec.json.encode({"kind": "sweep", "format": FORMAT, **saved, **plan}))

    def all(self, problems: list[str]) -> list[Sweep]:
        """Return every saved sweep, the newest first. What cannot be read is left out, with a line in `problems`."""
        found = []
        for path in self.directory.glob("*.json"):
            try:
                found.append(self.load(path.stem))
            except NoSuchRun as error:
                problems.append(visible(str(error), limit=300))
        return sorted(found, key=lambda sweep: (sweep.started_at, sweep.id), reverse=True)

    def load(self, name: str) -> Sweep:
        """Read a sweep; ``last`` is the newest. Raises NoSuchRun."""
        if name == "last":
            names = sorted(path.stem for path in self.directory.glob("s*.json"))
            if not names:
                raise NoSuchRun("no sweep has been saved yet: `esx load sweep --vary ...` makes one")
            name = names[-1]
        return self._read(name, _read_sweep)


def _read_sweep(path: Path) -> Sweep:
    sweep = read_saved(msgspec.json.decode(path.read_bytes()), "sweep", Sweep)
    planned = set(map(point_text, sweep.plan.points()))
    if any(point_text(result.point) not in planned for result in sweep.results):
        raise ValueError("a result is not of this sweep")
    return sweep
