"""Saved runs: what comes back is what was told, and foreign files disturb nobody."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from esx.load.archive import Archive, Header, NoSuchRun, RecordedRun, Recorder
from esx.load.model import LoadCounts, LoadOptions, LoadProgress, LoadSummary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LINE = LoadProgress(1.0, 3, LoadCounts(10, 8, 2), 8.0, 0.2, 0.5, 1.0, 2.0)
SUMMARY = LoadSummary("r1", 2.0, 3, LoadCounts(20, 16, 4), 8.0, 0.2, {"p50": 0.5}, 16, "pass", ("all there",))
HEADER = Header(datetime(2026, 8, 7, 14, 0, tzinfo=UTC), "ann@host/shop", LoadOptions(users=3, hot_streams=1))


class Told:
    """A test that tells some lines, then ends or fails."""

    def __init__(self, *lines: LoadProgress | LoadSummary, hangs: bool = False) -> None:
        self.options = LoadOptions(users=3)
        self._lines, self._hangs = lines, hangs

    async def __aiter__(self) -> AsyncIterator[LoadProgress | LoadSummary]:
        for line in self._lines:
            yield line
        if self._hangs:
            await asyncio.Event().wait()

    def stop(self) -> None:
        raise AssertionError("nobody asked for this")

    async def aclose(self) -> None:
        pass


def save(archive: Archive, header: Header = HEADER, summary: LoadSummary = SUMMARY) -> None:
    recorder = Recorder(archive, header)
    recorder.line(LINE)
    recorder.line(summary)
    assert recorder.close() == archive.directory / f"{summary.run}.ndjson"


def test_what_comes_back_is_what_was_told(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "new" / "runs")
    assert archive.entries() == []
    save(archive)
    later = replace(HEADER, started_at=datetime(2026, 8, 8, tzinfo=UTC))
    save(archive, later, replace(SUMMARY, run="r2"))
    run = archive.load("r1")
    assert (run.id, run.header, run.series, run.summary) == ("r1", HEADER, (LINE,), SUMMARY)
    assert [entry.id for entry in archive.entries()] == ["r2", "r1"]
    assert archive.load("last").id == "r2"
    recorder = Recorder(archive, HEADER)
    recorder.line(SUMMARY)
    recorder.close()
    names = sorted(path.name for path in archive.directory.iterdir())
    assert names == ["r1.2.ndjson", "r1.ndjson", "r2.ndjson"], "a name given twice overwrites nothing"


def test_foreign_and_broken_files_are_left_out_and_named(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    save(archive)
    whole = (tmp_path / "r1.ndjson").read_text()
    (tmp_path / "notes.txt").write_text("not ours")
    (tmp_path / "foreign.ndjson").write_text('{"kind": "event"}\n')
    (tmp_path / "binary.ndjson").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.ndjson").write_text("")
    (tmp_path / "cut.ndjson").write_text(whole[: len(whole) // 2])
    (tmp_path / "newer.ndjson").write_text(whole.replace('"format":1', '"format":99'))
    (tmp_path / "twisted.ndjson").write_text(whole.replace('"users":3', '"users":"many"'))
    (tmp_path / "bent.ndjson").write_text(whole.replace('"p50":0.5', '"p50":[1]'))
    problems: list[str] = []
    assert [entry.id for entry in archive.entries(problems)] == ["r1"]
    assert len(problems) == 7
    assert all("\n" not in problem and "is left out" in problem for problem in problems)
    assert any("its format is 99" in problem for problem in problems)
    for name in ("foreign", "cut", "twisted", "bent", "nowhere", "../r1", ".."):
        with pytest.raises(NoSuchRun):
            archive.load(name)


@pytest.mark.parametrize("figure", ["NaN", "Infinity", "1e999", "9" * 400])
def test_figures_that_are_no_numbers_are_not_drawn(tmp_path: Path, figure: str) -> None:
    archive = Archive(tmp_path)
    save(archive)
    path = tmp_path / "r1.ndjson"
    path.write_text(path.read_text().replace('"goodput":8.0', f'"goodput":{figure}'))
    with pytest.raises(NoSuchRun, match="the file of run r1 cannot be read"):
        archive.load("r1")


async def test_a_run_is_saved_as_it_goes_even_if_it_is_broken_off(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    run = RecordedRun(Told(LINE, SUMMARY), archive, "db", sweep="s1")
    assert [line async for line in run] == [LINE, SUMMARY]
    assert run.saved is not None
    assert archive.load("r1").header.sweep == "s1"

    broken = RecordedRun(Told(LINE, hangs=True), archive, "db")
    async for _ in broken:
        break
    await broken.aclose()
    assert broken.saved is not None
    kept = archive.load(broken.saved.stem)
    assert (kept.series, kept.summary) == ((LINE,), None)
    assert {entry.id for entry in archive.entries()} == {"r1", kept.id}

    silent = RecordedRun(Told(), archive, "db")
    assert [line async for line in silent] == []
    assert silent.saved is None
    assert len(list(tmp_path.iterdir())) == 2


def test_saved_runs_are_closed_to_others_also_where_they_were_open_before(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir(mode=0o755)
    save(Archive(tmp_path / "runs"))
    [file] = (tmp_path / "runs").iterdir()
    assert (tmp_path / "runs").stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_run_that_cannot_be_saved_goes_on(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the directory should be")
    run = RecordedRun(Told(LINE, SUMMARY), Archive(tmp_path / "runs"), "db")
    assert [line async for line in run] == [LINE, SUMMARY]
    assert run.saved is None
    assert run.problem is not None
    assert run.problem.startswith("the run is not saved: ")


def test_a_saved_run_is_json_lines(tmp_path: Path) -> None:
    save(Archive(tmp_path))
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "r1.ndjson").read_text().splitlines()]
    assert kinds == ["run", "progress", "summary"]
