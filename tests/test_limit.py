"""A test that hangs ends, and shows where it stood."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.test_dependencies import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

HANGING = """
import asyncio, threading, pytest

async def waits_for_ever():
    await asyncio.Event().wait()

@pytest.mark.limit(0.2)
async def test_a_coroutine():
    other = asyncio.create_task(waits_for_ever(), name="other")
    await asyncio.sleep(100)

@pytest.mark.limit(0.2, 0.2)
def test_a_function():
    threading.Event().wait()

async def test_another():
    pass
"""


def test_what_hangs_is_ended_and_the_next_test_runs(tmp_path: Path) -> None:
    (tmp_path / "test_hanging.py").write_text(HANGING)
    settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "-p", "no:cacheprovider", "-n", "1"]
    plugins = [f"-p{name}" for name in ("xdist.plugin", "pytest_asyncio.plugin", "tests.support.limit")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *settings, str(tmp_path)],
        capture_output=True, text=True, timeout=100, check=False, cwd=ROOT,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # of each of its processes
    )  # fmt: skip
    assert "2 failed, 1 passed" in done.stdout
    # The test's own stack is that of the error; other tasks' are printed.
    assert re.search(r"test_a_coroutine.*await asyncio\.sleep\(100\).*TimeoutError", done.stdout, re.DOTALL)
    assert re.search(r"Task other:.*await asyncio\.Event\(\)\.wait\(\)", done.stdout, re.DOTALL)
    assert "crashed while running 'test_hanging.py::test_a_function'" in done.stdout
    assert re.search(r"Timeout.*in wait.*in test_a_function", done.stderr, re.DOTALL)
