"""The config file of the tests about home-made stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.layouts.foreign.own import LAYOUT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(LAYOUT)
    monkeypatch.setenv("ESX_CONFIG", str(path))
    return path
