"""Lines of the Health screen."""

from collections.abc import Iterable

from esx.doctor.target import Thresholds
from esx.store.consume.others import ConsumerStatus, OtherConsumers
from esx.store.consume.report import ProjectionStatus
from esx.store.health import Health
from esx.text import ago, sparkline, visible
from esx.times import clock
from esx.tui.cells import fit
from esx.tui.panels.condition import BAD, WARNING
from esx.tui.panels.feed_figures import missed_line, state_line
from esx.tui.session.follower import Follower
from esx.tui.widgets.figures import Line


def projection_line(projection: ProjectionStatus, lags: Iterable[int], width: int) -> str:
    """Return a projection's name, lag, age of the lag, history of the lag, and state, in columns."""
    room = max(width - 78, 0)
    name = fit(visible(projection.name, limit=200), 20 + room // 3)
    late = f"{'' if projection.lag_exact else '~'}{projection.lag:,} behind"
    if projection.beyond:
        late = f"{projection.beyond:,} beyond head"
    age = projection.age_text
    doing = "paused" if projection.paused else "running" if projection.active else "not running"
    if projection.owner is not None:
        doing += f", pid {projection.owner.pid}"
    bars = sparkline(lags, 10 + room // 3)
    return f"{name} {fit(late, 14, right=True)} {fit(age, 10, right=True)} {bars}  {doing}"


def consumer_line(status: ConsumerStatus, width: int) -> str:
    """Return a consumer's name, how far it is, and what its tool keeps beside."""
    name = fit(visible(status.name, limit=200), 20 + max(width - 78, 0) // 3)
    return f"{name} {visible(status.text, limit=400)}"


def state_style(projection: ProjectionStatus) -> str:
    """Return the style of a projection: of a problem, or of one that does not run."""
    if projection.last_error or projection.difference is not None:
        return BAD
    return "" if projection.active and not projection.paused else WARNING


def moment(health: Health) -> str:
    """Return when the last event came; without a global order no event is the last."""
    if not health.numbered:
        return "not known"
    if health.last_created_at is None:
        return "none yet"
    return f"{clock(health.last_created_at)}, {ago(health.last_created_at, health.at)}"


def order_lines(health: Health, follower: Follower) -> list[Line]:
    """Return what is known of the global order and of the feed; nothing that only an order would have."""
    lines: list[Line] = []
    if health.numbered:
        above = " or above: this user may not read the sequence"
        head = f"{health.head:,}"
        lines.append(("head", head, "") if health.head_exact else ("head", f"{head}{above}", WARNING))
        lines.append(("last visible", f"{health.last:,}", ""))
    if health.order_unknown:
        lines.append(("no order", health.order_unknown, WARNING if health.numbered else ""))
    else:
        behind = f"{max(health.head - follower.position, 0):,} numbers behind the head"
        known = follower.started
        lines.append(("safe position", f"{follower.position:,}" if known else "not known yet", ""))
        lines.append(("lag", behind if known else "not known yet", ""))
        lines.append(("", *state_line(follower)))
    if follower.missed:
        lines.append(("", missed_line(follower), BAD))
    if follower.started or not health.order_unknown:
        lines.append(("late, dead", f"{follower.counts.late:,} late, {follower.counts.dead:,} dead", ""))
    lines.append(("last event", moment(health), ""))
    return lines


def grade(value: float, warn: float, bad: float) -> str:
    """Return the style of a share that should stay low."""
    if value >= bad:
        return BAD
    return WARNING if value >= warn else ""


def what_is_judged(
    health: Health, projections: list[ProjectionStatus] | str, others: OtherConsumers, missed: int
) -> object:
    """Return what the figures say that the doctor has a finding for, to be compared."""
    limits = Thresholds()
    ages = {each.key: (health.at - each.since).total_seconds() for each in health.writers if each.since is not None}
    slow = {key: age >= limits.writer_error for key, age in sorted(ages.items()) if age >= limits.writer_warning}
    if not isinstance(projections, str):
        projections = repr(
            [(each.name, each.active, each.paused, each.last_error, each.difference) for each in projections]
        )
    beyond = [(each.name, each.beyond, each.last_error) for each in others.consumers]
    return repr((slow, missed, health.doorbell, health.recovering, projections, beyond))
