"""For tests with pytest: the events of a capsule in a store of their own, so that an incident becomes a test.

Switch it on in ``conftest.py``, and name the capsule of a test by a mark::

    pytest_plugins = ["esx.testing"]

    @pytest.mark.capsule("incident.esx")  # beside the test's file
    async def test_the_handler_survives_it(capsule):
        async with EventStore.connect(capsule.dsn) as store:
            ...

Each test gets a database of its own in the PostgreSQL that comes with esx, which is dropped afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from esx.capsule.format import CONSUMERS, FEED, HEALTH, CapsuleInfo, ConsumersMoment, FeedMoment, HealthMoment
from esx.capsule.opening import Recording, opened_recording
from esx.capsule.reading import Capsule
from esx.capsule.restoring import restored
from esx.embedded import DATA_DIR_VARIABLE, EmbeddedServer

__all__ = ["CapsuleStore", "capsule", "capsule_store"]

_MARK = "capsule(path): the capsule whose events the fixture capsule has, relative to the test's file"


class CapsuleStore:
    """The events of a capsule in a store of their own.

    `dsn` is the address of its database, whose user may do everything there. `info` is what the capsule says of itself.
    """

    dsn: str
    info: CapsuleInfo

    def __init__(self, dsn: str, file: Capsule, server: EmbeddedServer) -> None:
        self.dsn = dsn
        self.info = file.info
        self._file = file
        self._server = server

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the events as they were recorded, in ascending global_seq, each as the members of its line."""
        for few in self._file.events():
            for _, line in few:
                yield json.loads(line)

    def feed(self) -> list[FeedMoment]:
        """Return what was seen of the feed, moment by moment."""
        return list(self._file.records(FEED))

    def consumers(self) -> list[ConsumersMoment]:
        """Return how far the consumers were, whenever that had changed."""
        return list(self._file.records(CONSUMERS))

    def health(self) -> list[HealthMoment]:
        """Return the figures of the store, sample by sample."""
        return list(self._file.records(HEALTH))

    @contextlib.asynccontextmanager
    async def recording(self) -> AsyncIterator[Recording]:
        """Yield the recording with its clock: its store shows what had appeared by the time of that.

        ``recording.player.jump(at)`` moves the clock, ``await recording.connect()`` returns the store.
        """
        async with opened_recording(self._file, self._server) as recording:
            yield recording


@contextlib.contextmanager
def capsule_store(path: str | os.PathLike[str], *, data_dir: Path | None = None) -> Iterator[CapsuleStore]:
    """Put a capsule into a database of its own for as long as the ``with`` block lasts.

    `data_dir` is where the embedded PostgreSQL keeps its data: by default ESX_DATA_DIR, then the platform's directory
    for user data. Raises BadCapsule, OSError where the file cannot be read, and EmbeddedFailed.
    """
    named = os.environ.get(DATA_DIR_VARIABLE)
    directory = data_dir or (Path(named) if named else None)
    with (
        Capsule(Path(path)) as file,
        EmbeddedServer.start(directory) as server,
        # A thread with a loop of its own: that of the test may not run yet, or belong to another library.
        ThreadPoolExecutor(1, "esx-capsule") as thread,
    ):
        runner = thread.submit(asyncio.Runner).result()
        try:
            holding = restored(file, server.dsn_for)
            dsn: str = thread.submit(runner.run, _enter(holding)).result()
            try:
                yield CapsuleStore(dsn, file, server)
            finally:
                thread.submit(runner.run, _leave(holding)).result()
        finally:
            thread.submit(runner.close).result()


async def _enter(holding: contextlib.AbstractAsyncContextManager[str]) -> str:
    return await holding.__aenter__()


async def _leave(holding: contextlib.AbstractAsyncContextManager[str]) -> None:
    await holding.__aexit__(None, None, None)


def pytest_configure(config: pytest.Config) -> None:
    """Say what the mark means."""
    config.addinivalue_line("markers", _MARK)


@pytest.fixture
def capsule(request: pytest.FixtureRequest) -> Iterator[CapsuleStore]:
    """Yield the store with the events of the capsule that the test's mark names."""
    mark = request.node.get_closest_marker("capsule")
    if mark is None or len(mark.args) != 1:
        pytest.fail("the fixture capsule needs @pytest.mark.capsule('FILE.esx')", pytrace=False)
    path = Path(request.path).parent / mark.args[0]
    with capsule_store(path) as store:
        yield store
