"""Nothing is lost, stored twice or handed out in another order, whatever happens to the servers meanwhile."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.faults.run import run_faults

if TYPE_CHECKING:
    from tests.faults.run import Run

_SECONDS = float(os.environ.get("ESX_FAULT_SECONDS", "0"))
_SEED = int(os.environ.get("ESX_FAULT_SEED", "12"))
_BOTH = "ESX_FAULT_SECONDS" in os.environ
pytestmark = [pytest.mark.slow, pytest.mark.limit(240 + 3 * _SECONDS)]


def told(run: Run, request: pytest.FixtureRequest) -> Run:
    """Let a run say what it did, at the end of all tests and in its own output."""
    print(run, *run.verdict.findings, sep="\n", flush=True)
    request.node.user_properties.append(("faults", str(run)))
    return run


# A run takes long, so both versions are for those who ask how long.
@pytest.mark.parametrize(
    ("version", "unique_ids"),
    [*([pytest.param(16, True, id="pg16")] if _BOTH else []), pytest.param(18, False, id="pg18")],
)
async def test_nothing_is_lost_twice_or_out_of_order(
    version: int, unique_ids: bool, request: pytest.FixtureRequest
) -> None:
    """Nor does a reader go on in another history, which is one of the findings."""
    run = told(await run_faults(version, _SEED, _SECONDS, unique_ids=unique_ids), request)
    assert [str(finding) for finding in run.verdict.findings] == []
    assert [kind for kind, count in run.faults.items() if not count] == [], "a kind of fault did not happen"
    assert run.verdict.lost_in_failover, "the standby was not behind"
