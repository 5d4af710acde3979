"""The watcher: a program of its own that stops a server once the last process that used it is gone, however it ended.

It is run as a file, without esx, so that it starts at once and needs little. It sleeps in the kernel until the server
ends or nobody holds ``lease.lock`` any more. Then it looks again under ``guard.lock``, as whoever starts or stops the
server does: what came meanwhile is a user, and it sleeps on.
"""

from __future__ import annotations

import _thread
import contextlib
import fcntl
import os
import select
import signal
import sys
import time

_FAST, _IMMEDIATE = signal.SIGINT, signal.SIGQUIT
_PATIENCE = 60.0
_AGAIN = 1.0
"""Seconds between two looks where a user holds a share and no lease, as an older esx does."""


def main(pid: int, uid: int, gid: int, guard: int, users: int, lease: int, socket_dir: str) -> None:
    """Watch the server `pid`, as that user, with ``guard.lock``, ``users.lock`` and ``lease.lock`` open."""
    if uid != os.geteuid():
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    _thread.start_new_thread(_stop_when_left, (pid, guard, users, lease))
    _await_end(pid)
    if socket_dir:
        with contextlib.suppress(OSError):
            os.rmdir(socket_dir)
    os._exit(0)  # the other thread may be waiting for a lock


def _await_end(pid: int) -> None:
    """Wait until the process has ended: in the kernel where that can be."""
    try:
        if sys.platform == "linux":
            poll = select.poll()
            poll.register(os.pidfd_open(pid), select.POLLIN)
            poll.poll()
        elif hasattr(select, "kqueue"):
            event = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
            select.kqueue().control([event], 1)
    except (OSError, AttributeError):
        pass  # it has ended, or this is an old kernel or a sandbox
    else:
        return
    while _runs(pid):
        time.sleep(_AGAIN)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _stop_when_left(pid: int, guard: int, users: int, lease: int) -> None:
    while True:
        fcntl.flock(lease, fcntl.LOCK_EX)
        fcntl.flock(lease, fcntl.LOCK_UN)
        fcntl.flock(guard, fcntl.LOCK_EX)
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(guard, fcntl.LOCK_UN)
            time.sleep(_AGAIN)
        else:
            break
    # The locks stay until the server is gone, and so is this process with it.
    for number, patience in ((_FAST, _PATIENCE), (_IMMEDIATE, _PATIENCE)):
        try:
            os.kill(pid, number)
        except OSError:
            break
        time.sleep(patience)
    os._exit(1)


if __name__ == "__main__":
    _pid, _uid, _gid, _guard, _users, _lease = map(int, sys.argv[1:7])
    main(_pid, _uid, _gid, _guard, _users, _lease, sys.argv[7])
