"""A server's files: PostgreSQL's data directory, created by initdb, with its settings and its log."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from esx.embedded.account import (
    DATA_DIR_VARIABLE,
    REMEDY,
    Account,
    EmbeddedFailed,
    let_read,
    let_through,
    own,
    reason,
    run,
    write_file,
)
from esx.embedded.sockets import SUPERUSER
from esx.text import visible

_NEEDED_BYTES = 150_000_000

_BLOCK_BEGIN = "# --- esx: begin. esx rewrites this block; put settings of your own below its end."
_BLOCK_END = "# --- esx: end"
_SETTINGS = """\
listen_addresses = ''
port = 5432
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = 256MB
max_wal_size = 2GB
random_page_cost = 1.1
jit = off
log_line_prefix = '%m [%p] '
lc_messages = 'C'
"""


@dataclass(frozen=True)
class Cluster:
    """A data directory, which PostgreSQL calls a cluster, and how it is served."""

    version: int
    bin_dir: Path
    home: Path
    """The directory that contains everything: the data, the log and the locks."""
    account: Account | None
    """The user that the server runs as; None is this user."""

    @property
    def data_dir(self) -> Path:
        """PostgreSQL's data directory."""
        return self.home / "data"

    @property
    def log_file(self) -> Path:
        """The server's log."""
        return self.home / "postgresql.log"

    def prepare(self, tell: Callable[[str], None]) -> None:
        """Create the data directory if there is none, and bring its settings up to date."""
        if self.account is not None:
            let_through(self.data_dir)
            let_through(self.bin_dir / "postgres")
            let_read(self.bin_dir.parent)
        version_file = self.data_dir / "PG_VERSION"
        if not version_file.exists():
            self._initialise(tell)
        elif (found := version_file.read_text().strip()) != str(self.version):
            raise EmbeddedFailed(
                f"{visible(str(self.data_dir))} holds data of PostgreSQL {visible(found, limit=20)}, "
                f"not {self.version}: move it away, or set {DATA_DIR_VARIABLE} to another directory"
            )
        if self.data_dir.stat().st_mode & 0o077:
            self.data_dir.chmod(0o700)
        _write_settings(self.data_dir / "postgresql.conf", self.account)

    def _initialise(self, tell: Callable[[str], None]) -> None:
        """Run initdb in a temporary directory and rename that, so that there is all of it or nothing."""
        if self.data_dir.exists() and (not self.data_dir.is_dir() or any(self.data_dir.iterdir())):
            raise EmbeddedFailed(f"{visible(str(self.data_dir))} is not PostgreSQL's data: move it away, or {REMEDY}")
        for leftover in self.home.glob("data.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if (free := shutil.disk_usage(self.home).free) < _NEEDED_BYTES:
            raise EmbeddedFailed(
                f"not enough disk space in {visible(str(self.home))}: {free // 1_000_000} MB free, the embedded "
                f"database needs {_NEEDED_BYTES // 1_000_000} MB: make room, or {REMEDY}"
            )
        tell("creating the embedded database")
        new = Path(tempfile.mkdtemp(prefix="data.new-", dir=self.home))
        try:
            own(new, self.account)
            command: list[str | Path] = [self.bin_dir / "initdb", "-D", new, "-U", SUPERUSER]
            command += ["--encoding=UTF8", "--locale=C"]
            if self.version >= 17:
                command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            command += ["--auth-local=trust", "--auth-host=reject", "--no-instructions"]
            done = run(command, self.account)
            if done.returncode:
                raise EmbeddedFailed(
                    f"cannot create the embedded database in {visible(str(self.home))}: "
                    f"{reason(done.stdout + done.stderr)}: {REMEDY}"
                )
            _write_settings(new / "postgresql.conf", self.account)
            new.rename(self.data_dir)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _write_settings(conf: Path, account: Account | None) -> None:
    """Bring esx's block in postgresql.conf up to date. Settings below it override it."""
    text = conf.read_text("utf-8", "surrogateescape")
    block = f"{_BLOCK_BEGIN}\n{_SETTINGS}{_BLOCK_END}\n"
    if block in text:
        return
    begin, end = text.find(_BLOCK_BEGIN), text.find(f"{_BLOCK_END}\n")
    if 0 <= begin < end:
        text = text[:begin] + block + text[end + len(_BLOCK_END) + 1 :]
    else:
        text = f"{text.rstrip()}\n\n{block}"
    write_file(conf, text, account)
