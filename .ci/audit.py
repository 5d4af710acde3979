"""Looks up the locked versions in a database of known vulnerabilities: ``python .ci/audit.py``, with pip-audit on PATH.

Exits with 1 if one is known. Where the database cannot be reached, or does not know a package, it says so and exits
with 0: pip-audit by itself would call what it has not looked up free of vulnerabilities.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_LOCKS = ("requirements.lock", ".ci/requirements.lock")
_TIMEOUT = 300  # seconds


def findings(report: dict[str, Any]) -> tuple[list[str], list[str], int]:
    """Return a line for each known vulnerability, the names that were not looked up, and how many were."""
    known, skipped, looked_up = [], [], 0
    for package in report["dependencies"]:
        if "skip_reason" in package:
            skipped.append(package["name"])
            continue
        looked_up += 1
        for found in package["vulns"]:
            mended = ", ".join(found["fix_versions"]) or "no version yet"
            known.append(f"{package['name']} {package['version']}: {found['id']}, mended in {mended}")
    return known, skipped, looked_up


def look_up(lock: str) -> dict[str, Any] | str:
    """Return pip-audit's report on a lock file, or why there is none."""
    command = ["pip-audit", "-r", lock, "--require-hashes", "--disable-pip", "--progress-spinner", "off", "-f", "json"]
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except FileNotFoundError:
        return "pip-audit is not installed"
    except subprocess.TimeoutExpired:
        return f"no answer within {_TIMEOUT} s"
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        return (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
    return report


def main() -> int:
    """Print what is known of each lock file."""
    code = 0
    for lock in _LOCKS:
        report = look_up(lock)
        if isinstance(report, str):
            print(f"NOT AUDITED: {lock}: {report}; SECURITY.md has the command")
            continue
        known, skipped, looked_up = findings(report)
        for line in known:
            print(f"{lock}: {line}")
            code = 1
        if skipped:
            which = ", ".join(skipped) if looked_up else "any package, or cannot be reached from here"
            print(f"NOT AUDITED: {lock}: the database does not know {which}; SECURITY.md has the command")
        if looked_up and not known:
            print(f"{lock}: nothing is known against {looked_up} packages")
    return code


if __name__ == "__main__":
    sys.exit(main())
