"""SECURITY.md: each promise names tests, and they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = re.findall(
    r"^\| (?!-)(?!promise )(.+?) \| (.+) \|$", (ROOT / "SECURITY.md").read_text(encoding="utf-8"), re.MULTILINE
)


def test_there_are_promises() -> None:
    assert len(ROWS) >= 7


@pytest.mark.slow
@pytest.mark.parametrize(("promise", "tests"), ROWS)
def test_each_promise_has_its_tests(promise: str, tests: str) -> None:
    named = re.findall(r"`([^`]+)`", tests)
    assert named, f"no test for: {promise}"
    assert not re.sub(r"`[^`]+`", "", tests).strip(" ,")
    for one in named:
        path, _, function = one.partition("::")
        assert re.fullmatch(r"tests/(\w+/)*test_\w+\.py", path), one
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        there = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        }
        assert there, one
        assert not function or function in there, one
