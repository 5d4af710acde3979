"""Runs a real broker, Apache Kafka in KRaft mode, for as long as a process lives: ``python -m`` with DIRECTORY and PID.

DIRECTORY gets the file `ready` when the broker answers, or `failed` with its last words.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PASSWORD = "only-for-tests"
USER = "esx"
_PATIENCE = 120.0
_CLUSTER = "4L6g3nShT-eMCtK--X86sw"
_HEAP = "-Xmx256m"


def jars() -> str | None:
    """Return the class path of Kafka, None if ESX_KAFKA names no folder with it."""
    folder = os.environ.get("ESX_KAFKA")
    if folder is None or not all(map(shutil.which, ("java", "openssl"))):
        return None
    if not any(Path(folder).glob("kafka_2.13-*.jar")):
        return None
    return f"{folder}/*"


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens at."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            listening = stack.enter_context(socket.socket())
            listening.bind(("127.0.0.1", 0))
            found.append(listening.getsockname()[1])
        return found


@dataclass(frozen=True)
class Node:
    """A broker that is also a controller; all listen at the loopback interface only.

    Who asks at `behind` is sent on to `front`, where the broker does not listen: it is away until a test leads from
    there to `behind`.
    """

    number: int
    plain: int
    secure: int
    controller: int
    behind: int
    front: int


def new_nodes(count: int) -> list[Node]:
    """Return nodes with free ports."""
    ports = iter(free_ports(5 * count))
    return [Node(number + 1, *itertools.islice(ports, 5)) for number in range(count)]


def unprivileged() -> dict[str, Any]:
    """Return as whom to run, for subprocess: root becomes nobody."""
    return {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}


class Broker:
    """One broker in a directory of its own."""

    def __init__(self, directory: Path, node: Node, nodes: list[Node]) -> None:
        self.directory = directory
        self.node = node
        self._nodes = nodes
        self.process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Make its folder, its certificate and its settings."""
        self.directory.mkdir(parents=True)
        # By openssl, as keytool would start Java twice more.
        key, certificate = self.directory / "key.pem", self.directory / "ca.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-keyout", key, "-out", certificate, "-days", "30", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            ],
            check=True,
            capture_output=True,
        )
        (self.directory / "broker.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
        (self.directory / "server.properties").write_text(self._settings())
        if unprivileged():
            shutil.chown(self.directory, **unprivileged())
            for each in self.directory.iterdir():
                shutil.chown(each, **unprivileged())
            self.directory.chmod(0o755)
        self._java("kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", "server.properties").wait(_PATIENCE)

    def start(self) -> None:
        """Start it; `answers` says when it is there."""
        self.process = self._java("kafka.Kafka", "server.properties")

    def answers(self) -> bool:
        """Return whether it can be connected to. Raises RuntimeError if it has ended."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError((self.directory / "log").read_text()[-2000:])
        try:
            socket.create_connection(("127.0.0.1", self.node.plain), 1).close()
        except OSError:
            return False
        return True

    def wait(self) -> None:
        """Wait until it can be connected to."""
        deadline = time.monotonic() + _PATIENCE
        while not self.answers():
            if time.monotonic() > deadline:
                raise RuntimeError("the broker does not answer")
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _java(self, *arguments: str) -> subprocess.Popen[bytes]:
        path = jars()
        assert path is not None
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                ["java", _HEAP, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", path, *arguments],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **unprivileged(),
            )

    def _settings(self) -> str:
        node, copies = self.node, min(len(self._nodes), 3)
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        return "\n".join(
            f"{key}={value}"
            for key, value in {
                "process.roles": "broker,controller",
                "node.id": node.number,
                "controller.quorum.voters": ",".join(f"{n.number}@127.0.0.1:{n.controller}" for n in self._nodes),
                "listeners": f"PLAINTEXT://127.0.0.1:{node.plain},SASL_SSL://127.0.0.1:{node.secure},"
                f"CONTROLLER://127.0.0.1:{node.controller},AWAY://127.0.0.1:{node.behind}",
                "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.plain},SASL_SSL://localhost:{node.secure},"
                f"AWAY://127.0.0.1:{node.front}",
                "controller.listener.names": "CONTROLLER",
                "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,"
                "AWAY:PLAINTEXT",
                "ssl.keystore.location": self.directory / "broker.pem",
                "ssl.keystore.type": "PEM",
                "sasl.enabled.mechanisms": "PLAIN",
                "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{login} user_{USER}="{PASSWORD}";',
                "log.dirs": self.directory / "data",
                "offsets.topic.replication.factor": copies,
                "offsets.topic.num.partitions": 1,
                "transaction.state.log.replication.factor": copies,
                "transaction.state.log.min.isr": min(copies, 2),
                "transaction.state.log.num.partitions": 1,
                "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
                "default.replication.factor": copies,
                "min.insync.replicas": min(copies, 2),
                "group.initial.rebalance.delay.ms": 0,
                "auto.create.topics.enable": "false",
                "num.partitions": 3,
            }.items()
        )


def main() -> None:
    """Run a broker until the process of that id ends."""
    home, master = Path(sys.argv[1]), int(sys.argv[2])
    [node] = nodes = new_nodes(1)
    broker = Broker(home / "broker", node, nodes)
    # Kept from others, and refused to clients, until a test listens there too.
    front = socket.socket()
    front.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    front.bind(("127.0.0.1", node.front))
    try:
        broker.prepare()
        broker.start()
        broker.wait()
        told, there = home / "told", home / "ready"
        told.write_text(f"127.0.0.1:{node.plain} localhost:{node.secure} {node.front} {node.behind}")
        told.rename(there)
        while psutil.pid_exists(master) and there.exists() and broker.answers():
            time.sleep(0.5)
    except (RuntimeError, subprocess.SubprocessError, OSError) as error:
        (home / "failed").write_text(str(error))
    finally:
        broker.kill()
        front.close()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
