"""Files that esx writes: whole or not at all, not over what is there unasked, nothing left of a killed writer."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from esx.files import InTheWay, PartFile, check_target, new_file, private_directory
from tests.embedded.test_embedded import NOBODY, as_root

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 20_000
HELD = """
    import sys, time
    from pathlib import Path
    from esx.files import new_file
    with new_file(Path(sys.argv[1])) as file:
        file.write(b"half")
        file.flush()
        print("writing", flush=True)
        time.sleep(600)
"""


def write(path: Path, text: bytes = b"new", *, force: bool = False, private: bool = False) -> None:
    with new_file(path, force=force, private=private) as file:
        file.write(text)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def writing(path: Path) -> subprocess.Popen[str]:
    """Return a process that has begun to write `path` and goes on for ever."""
    script = "\n".join(line[4:] for line in HELD.splitlines())
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(120)
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o644, 0o755])
def test_what_is_replaced_keeps_its_mode(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    path.chmod(kept)
    with pytest.raises(InTheWay, match="--force"):
        write(path)
    assert path.read_text() == "old"
    write(path, force=True)
    assert (path.read_text(), mode(path)) == ("new", kept)
    assert list(tmp_path.iterdir()) == [path]


@as_root
def test_what_is_replaced_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    os.chown(path, NOBODY, NOBODY)
    path.chmod(0o600)
    write(path, force=True)
    assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (NOBODY, NOBODY, 0o600)


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path, umask: int, expected: int) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "out")
        write(tmp_path / "mine", private=True)
    finally:
        os.umask(before)
    assert mode(tmp_path / "out") == expected
    assert mode(tmp_path / "mine") == 0o600


@pytest.mark.parametrize("force", [False, True])
def test_a_symbolic_link_is_not_followed(tmp_path: Path, force: bool) -> None:
    (tmp_path / "precious").write_text("old")
    for name, to in (("link", "precious"), ("dangling", "nothing"), ("loop", "loop")):
        link = tmp_path / name
        link.symlink_to(to)
        with pytest.raises(InTheWay, match="symbolic link"):
            write(link, force=force)
        assert link.is_symlink()
    assert (tmp_path / "precious").read_text() == "old"
    assert not (tmp_path / "nothing").exists()


def test_a_link_above_it_is_a_way_there(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link" / "out")
    assert (tmp_path / "real" / "out").read_text() == "new"


def test_a_pipe_and_devices_are_written_to(tmp_path: Path) -> None:
    write(tmp_path.joinpath("/dev/null"))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    write(fifo)
    reader.join(30)
    assert read == [b"new"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert list(tmp_path.iterdir()) == [fifo]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_the_shells_own_files_are_gone_on_with(tmp_path: Path, name: str) -> None:
    script = f"from esx.files import *; from pathlib import Path\nwith new_file(Path('{name}')) as f: f.write(b'new')"
    log = tmp_path / "log"
    log.write_text("old ")
    with log.open("a") as out:
        subprocess.run([sys.executable, "-c", script], stdout=out, check=True)
    assert log.read_text() == "old new"


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("size", [LIMIT + 1, 100 * LIMIT])
def test_a_full_disk_leaves_no_half(tmp_path: Path, existing: bool, size: int) -> None:
    path = tmp_path / "out"
    if existing:
        path.write_text("old")
    script = f"""
import resource, sys
from pathlib import Path
from esx.files import new_file
resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))
try:
    with new_file(Path(sys.argv[1]), force=True) as file:
        file.write(b"x" * {size})
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"[Errno 27] File too large: '{path}'\n"
    assert done.stderr == ""
    assert [each.read_text() for each in tmp_path.iterdir()] == (["old"] if existing else [])


def test_an_error_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> None:
        with new_file(tmp_path / "out") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["fcntl.flock", "os.fchmod", "os.listdir", "os.fsync"])
def test_an_interruption_while_it_is_made_leaves_nothing(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "out"
    path.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(path, force=True)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]


def test_the_half_of_a_killed_writer_is_removed_by_the_next_and_nothing_else(tmp_path: Path) -> None:
    mine = [tmp_path / name for name in ("out.part", "out.0123abcd.part", "out.esx-0123.part", "esx-part")]
    for each in mine:
        each.write_text("mine")
    directory = tmp_path / "out.esx-0123456789abcdef.part"
    directory.mkdir()
    link = tmp_path / "link.esx-0123456789abcdef.part"
    link.symlink_to(mine[0])
    kept = {*mine, directory, link}
    alive, killed = writing(tmp_path / "one"), writing(tmp_path / "two")
    try:
        assert len(set(tmp_path.iterdir()) - kept) == 2
        end(killed)
        write(tmp_path / "three")
        [half] = set(tmp_path.iterdir()) - kept - {tmp_path / "three"}
        assert half.name.startswith("one.")
    finally:
        end(alive)
    write(tmp_path / "one")
    assert set(tmp_path.iterdir()) - kept == {tmp_path / "one", tmp_path / "three"}
    assert all(each.read_text() == "mine" for each in mine)


@as_root
def test_what_another_user_has_half_written_stays(tmp_path: Path) -> None:
    theirs = tmp_path / "out.esx-0123456789abcdef.part"
    theirs.write_text("theirs")
    os.chown(theirs, NOBODY, NOBODY)
    write(tmp_path / "mine")
    assert theirs.read_text() == "theirs"


def test_a_part_that_is_being_written_is_locked_from_its_first_moment(tmp_path: Path) -> None:
    parts = [PartFile(tmp_path, "same") for _ in range(5)]
    for part in parts:
        part.open()
    for part in parts:
        part.file.write(b"x")
        part.keep(tmp_path / "same")
    assert [each.name for each in tmp_path.iterdir()] == ["same"]


def test_what_is_in_the_way_is_said_before_the_work(tmp_path: Path) -> None:
    check_target(tmp_path / "new", force=False)
    with pytest.raises(IsADirectoryError):
        check_target(tmp_path, force=True)
    with pytest.raises(FileNotFoundError):
        check_target(tmp_path / "no" / "where", force=True)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_esxs_own_is_closed(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    for path in (tmp_path / "open", tmp_path / "new"):
        private_directory(path)
        assert mode(path) == 0o700
