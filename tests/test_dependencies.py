"""What esx depends on, what it is built into, and what its texts say of installing it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from docs.licences import LIST, LOCK, licence, locked

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
DEV_LOCK = ROOT / ".ci" / "requirements.lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RUNTIME = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
TOOLS = [Requirement(text) for extra in PROJECT["project"]["optional-dependencies"].values() for text in extra]
BUILD = [Requirement(text) for text in PROJECT["build-system"]["requires"]]

_OURS = "esx-eventstore (pyproject.toml)"
_BLOCK = re.compile(r"^(?P<name>[a-z0-9._-]+)==(?P<version>\S+)(?P<rest>.*(?:\n .*)*)", re.MULTILINE)


def blocks(lock: Path) -> dict[str, re.Match[str]]:
    return {block["name"]: block for block in _BLOCK.finditer(lock.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("needed", RUNTIME + TOOLS + BUILD, ids=str)
def test_every_dependency_has_a_lower_and_an_upper_bound(needed: Requirement) -> None:
    operators = {specifier.operator for specifier in needed.specifier}
    assert "~=" in operators or {">=", "<"} <= operators


@pytest.mark.parametrize(("lock", "needed"), [(LOCK, RUNTIME), (DEV_LOCK, RUNTIME + TOOLS)], ids=["runtime", "dev"])
def test_the_lock_fits_pyproject(lock: Path, needed: list[Requirement]) -> None:
    held = blocks(lock)
    again = "run .ci/lock"
    for one in needed:
        assert canonicalize_name(one.name) in held, again
        exact = held[canonicalize_name(one.name)]["version"]
        assert one.specifier.contains(exact), f"{one} is locked as {exact}: {again}"
    ours = {name for name, block in held.items() if _OURS in block["rest"]}
    assert ours == {canonicalize_name(one.name) for one in needed}, again


def test_what_is_installed_is_what_is_tested() -> None:
    tested = {name: block["version"] for name, block in blocks(DEV_LOCK).items()}
    assert {name: block["version"] for name, block in blocks(LOCK).items()}.items() <= tested.items()


@pytest.mark.parametrize("lock", [LOCK, DEV_LOCK], ids=["runtime", "dev"])
def test_every_locked_package_has_hashes_and_no_place(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert len(blocks(lock)) == len(re.findall(r"^[^\s#]", text, re.MULTILINE)) > 50
    for name, block in blocks(lock).items():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", block["rest"]), name
    assert not re.search(r"://|--(?:extra-)?index|--find-links|(?<![.\w])/\w", text)


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def test_the_licence_of_every_locked_package_is_listed() -> None:
    listed = dict(re.findall(r"^\| ([a-z0-9][a-z0-9._-]*) \| (.+) \|$", LIST.read_text(encoding="utf-8"), re.MULTILINE))
    del listed["package"]
    names = locked(LOCK.read_text(encoding="utf-8"))
    again = "python -m docs.licences makes the list anew"
    assert list(listed) == names == list(blocks(LOCK)), again
    for name, block in blocks(LOCK).items():
        if not installed(name) or installed(name) == block["version"]:  # another version may say it in other words
            assert listed[name] == licence(name), again
    for name, stated in listed.items():
        assert not re.search(r"\bA?GPL|(?<!Lesser )General Public|Affero", stated), f"esx cannot depend on {name}"
        assert not re.search(r"LGPL|Lesser General", stated), f"name {name} above the list, and allow it here"


# An installer, its options and other packages, and then the name that another project has on the index.
_GAP = r"(?:[ \t]|\\\n)+"
_INSTALLER = (
    rf"(?:\bpip[\d.]*{_GAP}(?:install|download|wheel)|\bpipx{_GAP}(?:install|run|upgrade)|\buvx"
    rf"|\buv{_GAP}(?:add|pip{_GAP}install|tool{_GAP}(?:install|run|upgrade))|\b(?:poetry|pdm|rye){_GAP}add"
    rf"|\b(?:conda|mamba){_GAP}install)"
)
_WRONG = re.compile(rf"{_INSTALLER}(?:{_GAP}[^\s`|;&#]+)*?{_GAP}['\"]?esx(?![\w/-]|\.\w)", re.IGNORECASE)


def texts() -> Iterator[Path]:
    for directory, names, files in os.walk(ROOT):
        here = Path(directory)
        names[:] = [
            name
            for name in names
            if (not name.startswith(".") or name == ".ci")
            and name not in {"__pycache__", "build", "dist"}
            and not (here / name / "pyvenv.cfg").exists()
        ]
        yield from (here / name for name in files if not name.endswith((".svg", ".pyc", ".lock")))


def test_no_text_tells_anyone_to_install_the_other_project_called_esx() -> None:
    checked = 0
    for path in texts():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        checked += 1
        assert not (found := _WRONG.search(text)), f"{path.relative_to(ROOT)}: {found and found[0]}"
    assert checked > 100


@pytest.mark.parametrize(
    "command",
    [
        "pip install {}",
        "python3 -m pip install -U '{}[dev]'",
        "pip3 install \\\n    {}==0.1",
        "pip install --upgrade pip {}",
        "pipx install {}",
        "pipx run {} demo",
        "uvx {}",
        "uvx --from {} {}",
        "uv tool install {}.",
        "uv add {}>=1",
    ],
)
def test_such_a_text_would_be_found(command: str) -> None:
    assert _WRONG.search(command.format("esx", "esx"))
    assert not _WRONG.search(command.format(*["esx-eventstore"] * 2))


@pytest.mark.parametrize(
    "text", ["pip install -q . && esx demo", "`pip install .`, then esx", "pip install .\nesx demo"]
)
def test_other_texts_are_left_alone(text: str) -> None:
    assert not _WRONG.search(text)


_NO_INDEX = re.compile(
    r"No matching distribution found|Could not find a version|Connection|timed out|HTTP error|No module"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(made), str(ROOT)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("hatchling, which builds the wheel, was not to be had in three minutes")
    if done.returncode and (why := _NO_INDEX.search(done.stderr)):
        pytest.skip(f"pip, or hatchling, which builds the wheel, is not to be had here: {why[0]}")
    assert done.returncode == 0, done.stderr
    [path] = made.iterdir()
    return path


@pytest.mark.slow
def test_the_wheel_installs_esx_and_nothing_else(wheel: Path) -> None:
    assert wheel.name.startswith("esx_eventstore-")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
    tops = {name.split("/", 1)[0] for name in names}
    assert tops == {"esx", metadata_directory(wheel), metadata_directory(wheel).replace(".dist-info", ".data")}
    assert [name for name in names if ".data/" in name] == [f"{min(tops - {'esx'})}/data/share/man/man1/esx.1"]
    assert {"esx/py.typed", "esx/layouts/schema.sql", "esx/loadtest/charts.html"} <= set(names)
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "esx").rglob("templates/*.html")}
    assert templates
    assert templates <= set(names)
    assert re.search(r"^Name: esx-eventstore$", metadata, re.MULTILINE)


def metadata_directory(wheel: Path) -> str:
    name, number, *_ = wheel.name.split("-")
    return f"{name}-{number}.dist-info"


_KNOWN = '{"name": "a", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}'
_UNKNOWN = '{"name": "b", "skip_reason": "not found"}'
_FINE = '{"name": "c", "version": "2.0", "vulns": []}'


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (f'{{"dependencies": [{_FINE}]}}', 0, "nothing is known against 1 packages"),
        (f'{{"dependencies": [{_FINE}, {_KNOWN}]}}', 1, "requirements.lock: a 1.0: PYSEC-1, mended in 1.1"),
        (
            f'{{"dependencies": [{_UNKNOWN}, {_KNOWN}]}}',
            1,
            "NOT AUDITED: requirements.lock: the database does not know b;",
        ),
        (
            f'{{"dependencies": [{_UNKNOWN}]}}',
            0,
            "NOT AUDITED: requirements.lock: the database does not know any package",
        ),
        ("", 0, "NOT AUDITED: requirements.lock: pip-audit said nothing;"),
    ],
)
def test_the_audit_fails_for_what_is_known_and_tells_what_it_has_not_looked_up(
    tmp_path: Path, answer: str, code: int, said: str
) -> None:
    stub = tmp_path / "pip-audit"
    stub.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n", encoding="utf-8")
    stub.chmod(0o755)
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit.py"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert said in done.stdout
