"""The watcher: a program that stops a server once the last process that used it has ended, in any way.

It runs as a file, without esx, so that it starts at once and needs little memory. It sleeps in the kernel until the
server ends or no process holds ``lease.lock``. Then it looks again under ``guard.lock``, which is held to start or
stop the server: if there is a new user meanwhile, it goes on sleeping.
"""

import _thread
import contextlib
import os
import select
import signal
import sys
import time

_PATIENCE = 60.0
_AGAIN = 1.0
"""Seconds between two looks at a user with a share but no lease, such as an older esx."""


def main(pid: int, uid: int, gid: int, guard: int, users: int, lease: int, socket_dir: str) -> None:
    """Watch the server `pid`, as that user, with ``guard.lock``, ``users.lock`` and ``lease.lock`` open."""
    # Before the change of user: the new one may not be able to read Python's files. Windows has no fcntl.
    import fcntl  # noqa: F401

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
    """Wait until the process has ended, in the kernel if possible."""
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
    while exists(pid):
        time.sleep(_AGAIN)


def exists(pid: int) -> bool:
    """Return whether there is a process `pid`, with any program."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _stop_when_left(pid: int, guard: int, users: int, lease: int) -> None:
    import fcntl

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
    # This process holds the locks until it ends with the server. First a fast shutdown, then an immediate one.
    for number in (signal.SIGINT, signal.SIGQUIT):
        try:
            os.kill(pid, number)
        except OSError:
            break
        time.sleep(_PATIENCE)
    os._exit(1)


if __name__ == "__main__":
    _pid, _uid, _gid, _guard, _users, _lease = map(int, sys.argv[1:7])
    main(_pid, _uid, _gid, _guard, _users, _lease, sys.argv[7])
