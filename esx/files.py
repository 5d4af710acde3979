"""Writes files: under another name in the same directory first, renamed when they are complete.

A file that a killed process left incomplete is removed by the next process that writes in the same directory: a writer
holds a lock on its file, which the kernel releases.
"""

import io
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

_NAME = 40
_PART = re.compile(r".*\.esx-[0-9a-f]{16}\.part", re.S)
_DESCRIPTOR = re.compile(r"/dev/(stdin|stdout|stderr)|/(?:dev|proc/self)/fd/([0-9]{1,9})")
_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}


class InTheWay(FileExistsError):
    """There is already a file that must not be replaced. The message names it and the remedy."""


def check_target(path: Path, *, force: bool) -> None:
    """Raise InTheWay or OSError if `new_file` cannot write to `path`, for a check before long work."""
    if _is_output(path):
        return
    if path.is_symlink():
        raise InTheWay(f"{path} is a symbolic link: name the file that is meant")
    if path.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(path))
    if path.exists():
        if not force:
            raise InTheWay(f"{path} is there already: name another file, or replace it with --force")
        if not os.access(path, os.W_OK):
            raise PermissionError(13, "it may not be written", str(path))
    elif not os.access(path.parent, os.W_OK):
        path.parent.stat()
        raise PermissionError(13, f"nothing may be written in {path.parent}", str(path))


@contextmanager
def new_file(path: Path, *, force: bool = False, private: bool = False) -> Iterator[IO[bytes]]:
    """Yield a file to write to; it gets its name when the block ends without an error, else it is removed.

    With `force` an existing file is replaced, and the new one has its mode and owner; a symbolic link is never
    replaced. With `private` only the user may read it. A terminal, a pipe and the like are written to directly. Raises
    InTheWay and OSError.
    """
    check_target(path, force=force)
    if _is_output(path):
        with _output(path) as file:
            yield file
        return
    part = PartFile(path.parent, path.name, private=private, like=path)
    try:
        part.open()
        yield part.file
        part.keep(path)
    except BaseException:
        part.discard()
        raise


class PartFile:
    """A file that is being written in `directory`: `keep` gives it its name, `discard` removes it.

    `like` is the file that it will replace. Raises OSError.
    """

    file: IO[bytes]

    def __init__(self, directory: Path, name: str, *, private: bool = False, like: Path | None = None) -> None:
        self._directory = directory
        self._name = name
        self._private = private
        self._like = like
        self._path: Path | None = None

    def open(self) -> None:
        """Begin to write `file`."""
        _remove_left(self._directory)
        old = None
        if self._like is not None:
            with suppress(FileNotFoundError):
                old = self._like.stat()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        while True:
            # Its own name, as another process may be writing the same file; short, as names have at most 255 bytes. It
            # is set before the file exists, as Ctrl-C may come at any moment.
            self._path = self._directory / f"{self._name[:_NAME]}.esx-{secrets.token_hex(8)}.part"
            descriptor = os.open(self._path, flags, 0o600 if self._private or old else 0o666)
            _lock(descriptor)
            if os.fstat(descriptor).st_nlink:
                break
            os.close(descriptor)  # another process removed it before it was locked
        if old is not None:
            _make_like(descriptor, old)
        shown = str(self._like or self._directory / self._name)
        self.file = cast("IO[bytes]", io.BufferedWriter(_Named(descriptor, shown)))

    def keep(self, path: Path) -> None:
        """Write the file to disk and give it its name. After an OSError it can be discarded."""
        assert self._path is not None
        self.file.flush()
        os.fsync(self.file.fileno())
        self._path.replace(path)
        self._path = None
        self.file.close()
        _sync_directory(path.parent)

    def discard(self) -> None:
        """Remove it."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        with suppress(OSError, AttributeError):
            self.file.close()  # there may be no room for the rest


class _Named(io.FileIO):
    """A file whose errors have the final name of the file."""

    def __init__(self, descriptor: int, shown: str) -> None:
        super().__init__(descriptor, "wb")
        self._shown = shown

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            raise type(error)(error.errno, error.strerror, self._shown) from None


def private_directory(path: Path) -> None:
    """Make a directory that only the user can enter, or change an existing one. Raises OSError."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        path.chmod(0o700)


def _is_output(path: Path) -> bool:
    """Return whether `path` is written to directly: a device, a pipe, an open file of this process."""
    if _DESCRIPTOR.fullmatch(os.path.abspath(path)):
        return True
    with suppress(OSError):
        mode = path.stat().st_mode
        return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
    return False


def _output(path: Path) -> IO[bytes]:
    # Not by its name: that would truncate a file that the shell has opened for appending.
    named = _DESCRIPTOR.fullmatch(os.path.abspath(path))
    if named is None:
        return path.open("wb")
    return os.fdopen(os.dup(_STANDARD[named[1]] if named[1] else int(named[2])), "wb")


def _make_like(descriptor: int, old: os.stat_result) -> None:
    mode = stat.S_IMODE(old.st_mode) & 0o777
    if hasattr(os, "fchown"):
        new = os.fstat(descriptor)
        if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
            try:
                os.fchown(descriptor, old.st_uid, old.st_gid)
            except OSError:
                # The new group must not read what only the old one could.
                mode &= 0o707 if new.st_gid == old.st_gid else 0o700
        os.fchmod(descriptor, mode)


def _remove_left(directory: Path) -> None:
    """Remove the incomplete files of killed processes."""
    with suppress(OSError):
        for name in os.listdir(directory):
            if _PART.fullmatch(name):
                _remove_if_left(directory / name)


def _remove_if_left(path: Path) -> None:
    with suppress(OSError, ImportError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and _lock(descriptor):
                path.unlink()
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock an open file; return False if another process has the lock, or there are no locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _sync_directory(directory: Path) -> None:
    # So that the name survives a power failure too.
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
