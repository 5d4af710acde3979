"""Sweeps: the same load test over and over, with some of its knobs turned, and what came of it kept in one file."""

from __future__ import annotations

import itertools
import json
import secrets
import time
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_type_hints

from esx.embedded import data_directory
from esx.files import new_file, private_directory
from esx.load.archive import NoSuchRun, check_name, options_of
from esx.load.describe import knob
from esx.load.errors import InvalidOptions
from esx.load.model import EXPECTED, NOTIFICATIONS, ON_CONFLICT, STRATEGIES, LoadOptions, LoadSummary
from esx.load.options import validate
from esx.load.shape import check_shape
from esx.text import iso_utc, visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from esx.load.archive import RecordedRun
    from esx.load.model import LoadProgress

Value = int | float | str
FORMAT = 1
MOST_KNOBS = 3
MOST_RUNS = 1000
_OVERHEAD = 3.0  # seconds that a run takes besides its duration, until it is known better
_FIXED = frozenset({"duration", "warm_up", "seed", "run_id", "yes_write_to", "max_appends"})
_CHOICES = {"expected": EXPECTED, "on_conflict": ON_CONFLICT, "strategy": STRATEGIES, "notification": NOTIFICATIONS}


@dataclass(frozen=True)
class Plan:
    """What is turned: each knob (a field of LoadOptions) with its values, over `base`, `rounds` times in all."""

    base: LoadOptions
    vary: tuple[tuple[str, tuple[Value, ...]], ...]
    rounds: int = 1

    def points(self) -> list[dict[str, Value]]:
        """Return every combination, in the order in which they were named."""
        names = [name for name, _ in self.vary]
        return [
            dict(zip(names, values, strict=True)) for values in itertools.product(*(values for _, values in self.vary))
        ]

    def options(self, point: Mapping[str, Value]) -> LoadOptions:
        """Return the options of one combination."""
        changes: dict[str, Any] = dict(point)
        return replace(self.base, **changes)

    def runs(self) -> list[tuple[int, dict[str, Value]]]:
        """Return each round's runs: every other round goes backwards, so that no combination is always first."""
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


@dataclass
class Sweep:
    """A sweep under way or over: its plan and the results until now."""

    id: str
    started_at: datetime
    database: str
    plan: Plan
    results: list[Result] = field(default_factory=list)
    esx: str = ""


def plan_of(base: LoadOptions, varied: Sequence[str], rounds: int) -> Plan:
    """Return the plan that ``name=v1,v2,...`` describe; raises InvalidOptions naming what is wrong."""
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
    return " ".join(f"{knob(name)}={_value_text(value)}" for name, value in point.items())


def _value_text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parse(text: str) -> tuple[str, tuple[Value, ...]]:
    name, equals, listed = text.partition("=")
    name = name.strip().lstrip("-").replace("-", "_")
    known = {field.name for field in fields(LoadOptions)} - _FIXED
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
    choices = _CHOICES.get(name)
    if choices is not None:
        if text not in choices:
            raise InvalidOptions(f"{text!r} is no {knob(name)}: use {', '.join(choices)}")
        return text
    kind = int if get_type_hints(LoadOptions)[name] is int else float
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise InvalidOptions(f"--vary {knob(name)}: {visible(text, limit=40)!r} is not {what}") from None


def result_of(point: dict[str, Value], number: int, summary: LoadSummary) -> Result:
    """Return what a sweep keeps of a run."""
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
    )


# -- running ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """A run of a sweep begins: the `number`-th of `runs`, and about so many seconds are `left` with it."""

    number: int
    runs: int
    point: dict[str, Value]
    left: float


class SweepRun:
    """Runs a plan: iterate over it for turns, the progress lines of each, and its result.

    `start` begins one load test. After `stop` the run under way ends; what has been measured is in `sweep`, which
    `save` wrote after each result.
    """

    def __init__(
        self, sweep: Sweep, start: Callable[[LoadOptions], RecordedRun], save: Callable[[Sweep], None]
    ) -> None:
        self.sweep = sweep
        self.stopped = False
        self._start = start
        self._save = save
        self._test: RecordedRun | None = None

    def stop(self) -> None:
        """End it, without the run under way, which is told but not measured."""
        self.stopped = True
        if self._test is not None:
            self._test.stop()

    async def __aiter__(self) -> AsyncIterator[Turn | LoadProgress | Result]:
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


class Sweeps:
    """The saved sweeps in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Sweeps:
        """Return the sweeps that `environ` means."""
        return cls(data_directory(environ).expanduser() / "sweeps")

    def new(self, plan: Plan, database: str) -> Sweep:
        """Return a sweep that has not begun."""
        from esx import __version__

        now = datetime.now(UTC)
        return Sweep(f"s{now:%y%m%d%H%M%S}{secrets.randbelow(100):02d}", now, database, plan, [], __version__)

    def save(self, sweep: Sweep) -> None:
        """Write a sweep in place of what was written of it before; raises OSError."""
        private_directory(self.directory)
        with new_file(self.directory / f"{sweep.id}.json", force=True, private=True) as file:
            file.write(json.dumps(_to_dict(sweep), ensure_ascii=False).encode())

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
        path = self.directory / f"{check_name(name)}.json"
        try:
            return _from_dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise NoSuchRun(f"no sweep {name} is saved in {self.directory}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise NoSuchRun(f"the file of sweep {name} cannot be read: {error}") from None


def _to_dict(sweep: Sweep) -> dict[str, Any]:
    return {
        "kind": "sweep",
        "format": FORMAT,
        "id": sweep.id,
        "esx": sweep.esx,
        "started_at": iso_utc(sweep.started_at),
        "database": sweep.database,
        "base": asdict(sweep.plan.base),
        "vary": [[name, list(values)] for name, values in sweep.plan.vary],
        "rounds": sweep.plan.rounds,
        "results": [asdict(result) for result in sweep.results],
    }


def _from_dict(found: Any) -> Sweep:
    if not isinstance(found, dict) or found.get("kind") != "sweep":
        raise ValueError("it is not a sweep of esx")
    if found.get("format") != FORMAT:
        raise ValueError(f"its format is {found.get('format')!r}, this esx reads {FORMAT}: use the esx that wrote it")
    try:
        plan = Plan(
            options_of(found["base"]),
            tuple((str(name), tuple(values)) for name, values in found["vary"]),
            int(found["rounds"]),
        )
        results = [Result(**result) for result in found["results"]]
        for result in results:
            check_shape(result)
            if result.point.keys() != dict(plan.vary).keys():
                raise ValueError("a result is not of this sweep")
        return Sweep(
            str(found["id"]),
            datetime.fromisoformat(found["started_at"]),
            str(found["database"]),
            plan,
            results,
            str(found["esx"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"it cannot be understood: {error!r}") from None
