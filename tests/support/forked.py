"""`esx` in forks of a process that has imported it: to import it for each command takes most of such a test's time.

Each command is a process of its own, with its own arguments, environment, directory, and standard streams. Tests of
what happens before esx is imported, or meanwhile, start Python themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import termios
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from tests.support import forked_locust
from tests.support.forking import CODE, LINE, ForkedProcess, can_fork, reader, run_command, take_streams, written

_SERVE = f"from {__name__} import serve; serve({{}})"
# What commands import when they run, beside the modules of `esx.cli`.
_USED = (
    *("esx.database_choice", "esx.doctor.diagnosis", "esx.embedded.server", "esx.eventstore", "esx.load.process"),
    *("esx.load.sweep.text", "esx.payloads.decoder", "esx.store.bulk.import_", "uvloop"),
)
_NEEDED = {
    "the explorer": ("esx.load.archive", "esx.load.process", "esx.tui.app", "textual.drivers.linux_driver"),
    "serve": ("esx.web.guard", "esx.web.server"),
}
"""What some commands import besides: it takes much, and is imported before the first of them."""
_ESX = [sys.executable, "-m", "esx"]
_NAME = 100
"""Bytes of a request, which tells for what the server should import more."""
_AT_ONCE = 10.0


def run(
    arguments: list[str],
    *,
    stdin: bytes,
    environment: dict[str, str],
    timeout: float,
    onto: str | int | None = None,
    closed: str = "",
) -> subprocess.CompletedProcess[bytes]:
    """Run ``esx`` with these arguments to its end, as `subprocess.run` does. Raises `subprocess.TimeoutExpired`.

    `onto` is a file, or its number, that its standard output goes to, instead of being returned. `closed` names the
    standard streams that are closed. With one of these the environment must be ours in what Python reads at the start.
    """
    command = [*_ESX, *arguments]
    if not can_fork(environment):
        assert onto is None
        assert not closed
        return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, env=environment, check=False)
    (read_in, write_in), (read_out, write_out), (read_err, write_err) = os.pipe(), os.pipe(), os.pipe()
    if onto is not None:
        os.close(write_out)
        write_out = os.dup(onto) if isinstance(onto, int) else os.open(onto, os.O_WRONLY)
    streams = read_in, write_out, write_err
    with _fork(command, environment, *streams, closed=closed) as answers, ThreadPoolExecutor(3) as pool:
        writing = pool.submit(_write, write_in, stdin)
        out, err = pool.submit(_read, read_out), pool.submit(_read, read_err)
        pid = int.from_bytes(answers.recv(CODE, socket.MSG_WAITALL), "big")
        answers.settimeout(timeout)
        try:
            code = int.from_bytes(answers.recv(CODE, socket.MSG_WAITALL), "big", signed=True)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(command, timeout) from None
        writing.result()
        return subprocess.CompletedProcess(command, code, out.result(), err.result())


class OnTerminal:
    """``esx`` on a terminal, whose end is closed here. In a `session` it is its controlling terminal, as for a shell.

    Where it is the `explorer` that starts, that is imported before.
    """

    def __init__(
        self,
        terminal: int,
        arguments: list[str],
        *,
        environment: dict[str, str],
        session: bool = False,
        explorer: bool = False,
    ) -> None:
        assert can_fork(environment)
        streams = os.dup(terminal), os.dup(terminal), terminal
        self._answers = _fork([*_ESX, *arguments], environment, *streams, explorer=explorer, session=session)
        self.pid = int.from_bytes(self._answers.recv(CODE, socket.MSG_WAITALL), "big")
        self._code: int | None = None

    def wait(self, timeout: float) -> int:
        """Return the exit code, when it has ended. Raises TimeoutError."""
        if self._code is None:
            with self._answers:
                self._answers.settimeout(timeout)
                self._code = int.from_bytes(self._answers.recv(CODE, socket.MSG_WAITALL), "big", signed=True)
        return self._code

    def poll(self) -> int | None:
        """Return the exit code if it has ended."""
        if self._code is None and not select.select([self._answers], [], [], 0)[0]:
            return None
        return self.wait(_AT_ONCE)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class Process(ForkedProcess):
    """A command that goes on."""

    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader
    _output: asyncio.ReadTransport

    def stop_reading(self) -> None:
        """Close the pipe of its output."""
        self._output.close()

    async def communicate(self) -> tuple[bytes, bytes]:
        if self.stdin is not None:
            self.stdin.close()
        out, err, _ = await asyncio.gather(self.stdout.read(), self.stderr.read(), self.wait())
        return out, err

    @classmethod
    async def start(cls, *arguments: str, environment: dict[str, str], fed: bool) -> Process:
        self = cls()
        (read_out, write_out), (read_err, write_err) = os.pipe(), os.pipe()
        if fed:
            read_in, write_in = os.pipe()
            self.stdin = await written(write_in)
        else:
            read_in = os.open(os.devnull, os.O_RDONLY)
        answers = _fork([*_ESX, *arguments], environment, read_in, write_out, write_err)
        (self.stdout, self._output), (self.stderr, _) = await reader(read_out), await reader(read_err)
        told, self._writer = await asyncio.open_connection(sock=answers)
        self.pid = int.from_bytes(await told.readexactly(CODE), "big")
        self._end = asyncio.create_task(self._ended(told))
        return self


async def start(
    *arguments: str, environment: dict[str, str], fed: bool = False, really: bool = False
) -> Process | asyncio.subprocess.Process:
    """Start ``esx`` with these arguments and pipes for its output; if `fed`, also one for its input, else nothing.

    If it is to be started `really`, it is not forked: for tests of how Python itself ends.
    """
    if can_fork(environment) and not really:
        return await Process.start(*arguments, environment=environment, fed=fed)
    return await asyncio.create_subprocess_exec(
        *(*_ESX, *arguments),
        stdin=asyncio.subprocess.PIPE if fed else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        limit=LINE,
    )


def serve(load_tests: int) -> None:
    """Run commands, as `run` asks for them on the socket that is our standard input, until it closes.

    At the socket `load_tests` is asked for Locust, where they start it.
    """
    forked_locust.ask_at(load_tests)
    for module in pkgutil.walk_packages(importlib.import_module("esx.cli").__path__, "esx.cli."):
        importlib.import_module(module.name)
    for name in _USED:
        importlib.import_module(name)
    gc.freeze()
    running: dict[int, socket.socket] = {}  # who waits for each process
    ended, ending = socket.socketpair()
    for each in (ended, ending):
        each.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ending.fileno(), warn_on_full_buffer=False)
    requests = socket.socket(fileno=0)
    while True:
        ready, _, _ = select.select([requests, ended], [], [])
        if ended in ready:
            ended.recv(LINE)
            _tell_ended(running)
        if requests not in ready:
            continue
        said, descriptors, _, _ = socket.recv_fds(requests, _NAME, 4)
        if not said:
            os._exit(0)
        _import_for(said.decode())
        answers = socket.socket(fileno=descriptors[0])
        pid = os.fork()
        if pid == 0:
            break
        running[pid] = answers
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        _tell(answers, pid.to_bytes(CODE, "big"))
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    requests.detach()
    for each in (ended, ending, *running.values()):
        each.close()
    _handle(answers, *descriptors[1:])


@cache
def _import_for(command: str) -> None:
    for name in _NEEDED.get(command, ()):
        importlib.import_module(name)
    gc.freeze()


def _tell_ended(running: dict[int, socket.socket]) -> None:
    """Tell the exit codes of the processes that have ended, to those who wait for them."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            break
        with running.pop(pid) as answers:
            _tell(answers, os.waitstatus_to_exitcode(status).to_bytes(CODE, "big", signed=True))


def _tell(answers: socket.socket, what: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it
        answers.sendall(what)


def _handle(answers: socket.socket, *streams: int) -> None:
    """Run the command that is asked for, in this process."""
    with answers:
        command, environment, directory, closed, session = json.loads(answers.makefile("rb").read())
    take_streams(*streams)
    if session:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for name in closed.split():
        os.close(getattr(sys, name).fileno())
        setattr(sys, name, None)  # as Python does when it starts
    run_command(command, "esx", environment, directory)


def _fork(
    command: list[str],
    environment: dict[str, str],
    *streams: int,
    explorer: bool = False,
    session: bool = False,
    closed: str = "",
) -> socket.socket:
    """Ask for a command with these standard streams, which are closed here; return where the answers come."""
    answers, theirs = socket.socketpair()
    name = "the explorer" if explorer else next((each for each in command if each in _NEEDED), "another")
    with theirs:
        socket.send_fds(_server(), [name.encode()], [theirs.fileno(), *streams])
    for stream in streams:
        os.close(stream)
    answers.sendall(json.dumps([command, environment, os.getcwd(), closed, session]).encode())
    answers.shutdown(socket.SHUT_WR)
    return answers


@cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        # It ends when this process does, as the socket closes then.
        load_tests = forked_locust.server().fileno()
        subprocess.Popen(
            [sys.executable, "-c", _SERVE.format(load_tests)],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            pass_fds=[load_tests],
        )
    return ours


def _write(descriptor: int, data: bytes) -> None:
    with open(descriptor, "wb") as stream, contextlib.suppress(BrokenPipeError):
        stream.write(data)
        stream.flush()


def _read(descriptor: int) -> bytes:
    with open(descriptor, "rb") as stream:
        return stream.read()
