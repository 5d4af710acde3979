"""A share in a running server: starting it for the first user, and stopping it after the last.

File locks show who uses a server. The kernel releases them when a process ends, in any way:

- each process holds a shared lock on ``users.lock`` while it uses the server; a process that leaves and finds no other
  lock stops the server;
- each process also holds a lock on ``lease.lock``, for a watcher, which stops the server once there is no such lock,
  because a killed process cannot;
- starting and stopping happen under an exclusive lock on ``guard.lock``.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self
from urllib.parse import quote

from esx.embedded.account import (
    REMEDY,
    EmbeddedFailed,
    account_for,
    bin_directory,
    open_file,
    reason,
    root_directory,
    run,
)
from esx.embedded.cluster import Cluster
from esx.embedded.lease import RECOVERY_PATIENCE, guard, lock, take, try_lock, watch
from esx.embedded.postmaster import (
    PATIENCE,
    Postmaster,
    clear_copied_socket,
    clear_remains,
    launch,
    reap,
    server_processes,
    shut_down,
)
from esx.embedded.sockets import PORT, SUPERUSER
from esx.text import visible

DEFAULT_VERSION = 18
"""The major version of PostgreSQL that is started unless another is asked for."""
_COPY = (
    "{0} is a copy of {1} that was made while PostgreSQL (process {2}) was using that, so it may be torn: end the esx "
    "processes that use {1} and copy it again; only if the copy is a snapshot of one moment, delete its postmaster.pid"
)
DATABASE = "esx"
"""The database that is created on the first start."""


class EmbeddedServer:
    """A share in a running server, taken by `start` and released by `stop` or at the end of a ``with`` block.

    All methods block and may be called from any thread. A process that ends without `stop` releases its share too; if
    it was the last one, a watcher stops the server soon after.
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
    _cluster: Cluster
    _share: int | None  # the open users.lock
    _lease: int | None  # the open lease.lock

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
        """Return a share in the server, which is created and started if necessary.

        `data_dir` is the directory that contains ``postgresql-<version>/``; the default is the environment variable
        ESX_DATA_DIR, then the platform's directory for user data. Several processes, and several callers in one
        process, may share a server. `on_progress` receives short texts about what takes time, here and in `stop`, in
        the calling thread.

        Raises EmbeddedFailed.
        """
        self = cls.__new__(cls)
        self._tell = on_progress or (lambda _text: None)
        self._mutex = threading.Lock()
        self._share = self._lease = None
        self.version = version
        self.bin_dir = bin_directory(version)
        root = root_directory(data_dir)
        home = root / f"postgresql-{version}"
        try:
            account = account_for(home / "data")
            self._cluster = Cluster(version, self.bin_dir, home, account)
            self.data_dir = self._cluster.data_dir
            self.log_file = self._cluster.log_file
            if not self.data_dir.is_dir():
                home.mkdir(parents=True, exist_ok=True, mode=0o711 if account else 0o700)
            with self._guard():
                self._share = open_file(home / "users.lock", os.O_RDWR, account)
                try:
                    self._ensure_running()
                    lock(self._share, exclusive=False)
                    self._lease = take(self._cluster)
                except BaseException:
                    self._leave()  # also stops a server that was just started
                    raise
        except OSError as error:
            place = visible(str(error.filename or root))
            raise EmbeddedFailed(f"cannot use {place}: {error.strerror or error}: {REMEDY}") from error
        return self

    @classmethod
    def runs(cls, data_dir: Path | None = None, *, version: int = DEFAULT_VERSION) -> bool:
        """Return whether the server that `start` would share runs already; it starts nothing."""
        import psutil

        found = Postmaster.read(root_directory(data_dir) / f"postgresql-{version}" / "data")
        return found is not None and found.ready and psutil.pid_exists(found.pid)

    @property
    def dsn(self) -> str:
        """The URL of the database ``esx``, for asyncpg and for ``psql -d``."""
        return self.dsn_for(DATABASE)

    def dsn_for(self, database: str) -> str:
        """Return the URL of `database`, which may not exist."""
        # Port and sslmode are given so that PGPORT and PGSSLMODE of the environment do not apply.
        return (
            f"postgresql://{SUPERUSER}@/{quote(database, safe='')}"
            f"?host={quote(str(self.socket_dir))}&port={PORT}&sslmode=disable"
        )

    def stop(self) -> None:
        """Release the share, and stop the server if it was the last one. Later calls do nothing."""
        with self._mutex:
            if self._share is None:
                return
            try:
                with self._guard():
                    self._leave()
            except (OSError, EmbeddedFailed):
                # The directory is gone or another process hangs. The next process that leaves stops the server.
                self._drop_share()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    # --- sharing

    def _guard(self) -> AbstractContextManager[None]:
        """Return the lock under which servers are started and stopped."""
        return guard(self._cluster.home / "guard.lock", self.version, self._cluster.account, self._tell)

    def _alone(self) -> bool:
        """Return whether no other process uses the server; the guard is held."""
        return self._share is not None and try_lock(self._share, exclusive=True)

    def _leave(self) -> None:
        """Release the share, and stop the server if it was the last one; the guard is held."""
        try:
            if self._alone():
                shut_down(self._cluster, self._tell)
        finally:
            self._drop_share()

    def _drop_share(self) -> None:
        for file in (self._share, self._lease):
            if file is not None:
                os.close(file)
        self._share = self._lease = None

    # --- starting

    def _ensure_running(self) -> None:
        """Find the server, or start it, and its database; the guard is held."""
        marker = self.data_dir / f"database-{DATABASE}"
        postmaster = self._running()
        fresh = postmaster is None
        if postmaster is None:
            clear_copied_socket(self.data_dir)
            self._cluster.prepare(self._tell)
            self._tell(f"starting PostgreSQL {self.version}")
            try:
                postmaster = launch(self._cluster, self._tell)
            except EmbeddedFailed:
                # A killed esx may have begun to start the same server a moment ago.
                postmaster = self._running()
                if postmaster is None:
                    raise
        assert postmaster.socket_dir is not None
        self.pid, self.socket_dir = postmaster.pid, postmaster.socket_dir
        if not fresh:
            watch(self._cluster, self.pid, self.socket_dir)
        known = marker.exists()
        if not known or (fresh and not self._has_database()):
            self._create_database()
        if not known:
            os.close(open_file(marker, os.O_WRONLY, self._cluster.account))

    def _running(self) -> Postmaster | None:
        """Return the running server, None if there is none; wait while it starts or stops."""
        began = time.monotonic()
        while (found := Postmaster.read(self.data_dir)) is not None:
            reap(found.pid)
            ours = found.serves(self.data_dir, self._cluster.account) if found.ready else None
            if ours:
                return found
            # Its process may have ended, or its process id may belong to another program by now.
            live = server_processes(self.data_dir)
            if not (found.pid in live or (live and not found.pid)):
                if (other := found.serves_elsewhere(self.data_dir, self._cluster.account)) is not None:
                    raise EmbeddedFailed(_COPY.format(visible(str(self.data_dir)), visible(other), found.pid))
                clear_remains(self._cluster, found, live)
                return None
            waited = time.monotonic() - began
            if found.ready and waited > 5 and self._alone():
                shut_down(self._cluster, self._tell)  # its socket is gone, e.g. by a program that cleans up /tmp
            elif waited > (PATIENCE if found.ready else RECOVERY_PATIENCE):
                raise EmbeddedFailed(
                    f"the embedded PostgreSQL (process {found.pid}) does not answer: end the other esx processes, "
                    f"and see {visible(str(self.log_file))}"
                )
            time.sleep(0.05)
        return None

    # --- the database

    def _has_database(self) -> bool:
        done = run([self.bin_dir / "psql", *self._connection(), "-X", "-d", DATABASE, "-c", ""])
        return done.returncode == 0

    def _create_database(self) -> None:
        done = run([self.bin_dir / "createdb", *self._connection(), DATABASE])
        if done.returncode and "already exists" not in done.stderr:
            raise EmbeddedFailed(
                f"cannot create the database {DATABASE} in the embedded PostgreSQL: {reason(done.stderr)}: "
                f"see {visible(str(self.log_file))}"
            )

    def _connection(self) -> list[str]:
        return ["-h", str(self.socket_dir), "-p", str(PORT), "-U", SUPERUSER, "-w"]
