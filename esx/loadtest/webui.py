"""esx in Locust's web UI: a tab of figures, a page of charts, and the figures as files.

Locust's page can be extended by a tab, but only with tables. So the charts are a separate page, ``/esx``, which asks
for new figures once a second.
"""

# Locust's own decorators have no types.
# mypy: disable-error-code="untyped-decorator"
import csv
import io
import json
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, request
from locust.env import Environment

from esx.load.model import LoadProgress, to_dict
from esx.load.report.describe import verdict_text
from esx.loadtest.run import RunningTest
from esx.text import sparkline

_KEY = "esx"
_PAGE = Path(__file__).with_name("charts.html")
_COURSE = 60  # seconds shown in the tab
_COLUMNS = ("elapsed", "users", "goodput", "conflict_rate", "p50_ms", "p95_ms", "p99_ms", "generator_cpu")


def extend(environment: Environment, current: Callable[[], RunningTest | None]) -> None:
    """Add the tab, the page and the files to the web UI, if there is one; `current` returns the run, if any."""
    ui = environment.web_ui
    if ui is None or ui.app is None:
        return
    ui.template_args["extended_tabs"] = [{"title": "Conflicts", "key": _KEY}]
    titles = {"figure": "Figure", "now": "Last second", "run": "Whole run", "course": f"Last {_COURSE} seconds"}
    ui.template_args["extended_tables"] = [
        {"key": _KEY, "structure": [{"key": key, "title": title} for key, title in titles.items()]}
    ]
    ui.template_args["extended_csv_files"] = [
        {"href": "./esx", "title": "Charts of goodput and conflicts"},
        {"href": "./esx/series.csv", "title": "Download goodput and conflicts CSV"},
        {"href": "./esx/summary.json", "title": "Download summary and verdict JSON"},
    ]
    pages = Blueprint(_KEY, __name__)

    @ui.app.after_request
    def add_figures(response: Response) -> Response:
        if request.path.endswith("/stats/requests") and response.is_json:
            figures = {"key": _KEY, "data": list(_rows(current()))}
            response.set_data(json.dumps({**response.get_json(), "extended_stats": [figures]}))
        return response

    @pages.route("/esx")
    @ui.auth_required_if_enabled
    def charts() -> Response:
        return Response(_PAGE.read_text(encoding="utf-8"), mimetype="text/html")

    @pages.route("/esx/series.json")
    @ui.auth_required_if_enabled
    def series() -> Response:
        run = current()
        after = request.args.get("after", default=0.0, type=float)
        lines = [to_dict(line) for line in run.series if line.elapsed > after] if run is not None else []
        return _json({"run": run and run.id, "series": lines, "summary": run and _summary(run)})

    @pages.route("/esx/summary.json")
    @ui.auth_required_if_enabled
    def summary() -> Response:
        run = current()
        return _json(run and _summary(run))

    @pages.route("/esx/series.csv")
    @ui.auth_required_if_enabled
    def series_csv() -> Response:
        run = current()
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(_COLUMNS)
        for line in run.series if run is not None else ():
            writer.writerow(getattr(line, column) for column in _COLUMNS)
        return Response(
            text.getvalue(),
            mimetype="text/csv",
            headers={"Content-Disposition": f"attachment;filename=esx-{run.id if run else 'none'}.csv"},
        )

    ui.app.register_blueprint(pages, url_prefix=environment.parsed_options and environment.parsed_options.web_base_path)


def _json(value: Any) -> Response:
    return Response(json.dumps(value), mimetype="application/json")


def _summary(run: RunningTest) -> dict[str, Any] | None:
    return None if run.summary is None else to_dict(run.summary)


def _rows(run: RunningTest | None) -> Iterator[dict[str, str]]:
    if run is None or not run.series:
        return
    last, summary = run.series[-1], run.summary
    total = last.total if summary is None else summary.total
    whole: dict[str, float] = summary.percentiles if summary else {}
    counted = run.counted

    def row(figure: str, now: str = "", whole: str = "", course: Callable[[LoadProgress], float] | None = None) -> Any:
        values = [] if course is None else [course(line) for line in list(run.series)[-_COURSE:]]
        return {"figure": figure, "now": now, "run": whole, "course": sparkline(values, len(values))}

    yield row("run", "warm-up" if last.warming_up else "", run.id)
    if summary is not None:
        yield row("verdict", "", ": ".join(verdict_text(summary)))
        for evidence in summary.evidence:
            yield row("", "", evidence)
    yield row(
        "goodput, appends/s",
        f"{last.goodput:,.0f}",
        f"{total.successes / counted:,.0f}" if counted else "",
        lambda line: line.goodput,
    )
    yield row(
        "conflicts of attempts",
        f"{last.conflict_rate:.1%}",
        f"{total.conflicts / (total.attempts or 1):.1%}",
        lambda line: line.conflict_rate,
    )
    tries = f"{total.attempts / total.successes:.2f}" if total.successes else ""
    yield row("tries per success", f"{last.tries_per_success:.2f}", tries, lambda line: line.tries_per_success)
    for name in ("successes", "conflicts", "errors", "unknown"):
        yield row(name, "", f"{getattr(total, name):,}")
    for rank in ("p50", "p95", "p99"):
        name = f"{rank}_ms"
        end = f"{whole[rank]:.3f}" if whole else ""
        yield row(f"service time {rank}, ms", f"{getattr(last, name):.3f}", end, attrgetter(name))
        response = getattr(last, f"response_{name}")
        if response is not None:
            end = f"{summary.response[rank]:.3f}" if summary else ""
            yield row(f"response time {rank}, ms", f"{response:.3f}", end)
    yield row("generator, of a core", f"{last.generator_cpu:.0%}", "", lambda line: line.generator_cpu)
    yield row("generator waiting for a core", f"{last.generator_wait:.0%}", "", lambda line: line.generator_wait)
    if last.database is not None:
        yield row("WAL, bytes/s", f"{last.database.wal_bytes:,.0f}")
        for wait, count in last.database.waits.items():
            yield row(f"waiting for {wait}", f"{count:.1f}")
    if last.feed is not None:
        lag = f"lag p99 {last.feed.lag['p99']:.1f} ms" if last.feed.lag else ""
        yield row(f"delivered to {last.feed.subscribers} subscribers", lag, f"{last.feed.delivered:,}")
    for stream in sorted(last.streams, key=lambda stream: -stream.conflicts)[:5]:
        if stream.conflicts:
            yield row(f"conflicts in stream {stream.stream}", f"{stream.conflicts:,}")
