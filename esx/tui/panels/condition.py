"""The state of a store in one line, and what can be done about it."""

from collections.abc import Sequence
from typing import NamedTuple

from esx.doctor import Finding
from esx.store.feed.batch import Gap, Writer
from esx.text import counted, visible
from esx.tui.dialogs.remedy import RemedyStep
from esx.tui.panels.feed_figures import writer_text
from esx.tui.session.follower import Follower
from esx.tui.session.session import ExplorerSession, SessionState
from esx.tui.session.status import span

GOOD, WARNING, BAD = "$text-success", "$text-warning", "$text-error"


class Condition(NamedTuple):
    """The state in a word or two, more about it, its style, and what can be done."""

    state: str
    about: str
    style: str
    steps: Sequence[RemedyStep] = ()

    @property
    def line(self) -> str:
        """The state, marked so that it needs no colour."""
        return f"{'●' if self.style == GOOD else '▲'} {self.state}"


def condition(session: ExplorerSession, follower: Follower, findings: Sequence[Finding] | None) -> Condition:
    """Return the state of the store: what is worst comes first."""
    if session.state is not SessionState.CONNECTED:
        return Condition(session.state.value.upper(), session.reason, BAD)
    if follower.ended:
        steps = [RemedyStep("Close this, and r restarts the feed, near the present.")]
        return Condition("FEED ENDED", follower.failure or "", BAD, steps)
    if follower.unrecorded is not None:
        return Condition("NOT RECORDED", follower.unrecorded.removeprefix("not recorded: "), WARNING)
    gap, held = follower.gap, follower.held()
    if gap is not None and held is not None:
        by = ", ".join(map(_who, gap.writers[:2])) or "a transaction that is still open"
        return Condition(f"HELD {span(held)}", f"by {by}", WARNING, _held_steps(gap))
    if follower.counts.missed:
        about = f"{counted(follower.counts.missed, 'event')} appeared below the safe position"
        return Condition("MISSED EVENTS", about, BAD, _steps_of(findings or ()))
    wrong = [each for each in findings or () if each.severity.wrong]
    if wrong:
        return Condition(f"{len(wrong)} TO MEND", wrong[0].message, WARNING, _steps_of(wrong))
    return Condition("HEALTHY", "" if findings is not None else "as far as is known", GOOD)


def _who(writer: Writer) -> str:
    about = ", ".join(visible(each, limit=40) for each in (writer.application, writer.state) if each)
    return f"{writer.who} ({about})" if about else writer.who


def _held_steps(gap: Gap) -> list[RemedyStep]:
    numbers = f"{gap.first:,}" if gap.first == gap.last else f"{gap.first:,} to {gap.last:,}"
    steps = [
        RemedyStep(
            f"The feed waits for {numbers}: an open transaction may have drawn it. Nothing is lost, all else waits."
        )
    ]
    for writer in gap.writers:
        steps.append(RemedyStep(f"Commit or roll back there: {writer_text(writer)}."))
        if writer.pid is not None:
            steps.append(
                RemedyStep(
                    f"If nobody can, end pid {writer.pid}; this undoes what it has not committed:",
                    f"SELECT pg_terminate_backend({writer.pid});",
                )
            )
    return steps


def _steps_of(findings: Sequence[Finding]) -> list[RemedyStep]:
    steps = []
    for finding in findings:
        first, *others = finding.remedy or ("",)
        steps.append(RemedyStep(f"{finding.check}: {finding.message}", first))
        steps += [RemedyStep("then", each) for each in others]
    return steps
