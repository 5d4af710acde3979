"""What one would write without the bridge: a Locust user that appends with psycopg, on gevent. For tests.bench.load."""

from __future__ import annotations

import os
import random
import time
from uuid import uuid4

import psycopg
from locust import User, constant, task

from tests.bench.statements import APPEND, VERSION


class PsycopgWriter(User):
    """The same two statements as the bundled scenario, each append reported to Locust."""

    wait_time = constant(0)

    def on_start(self) -> None:
        self.connection = psycopg.connect(os.environ["ESX_DSN"], autocommit=True, prepare_threshold=1)
        self.cursor = self.connection.cursor()

    def on_stop(self) -> None:
        self.connection.close()

    @task
    def append(self) -> None:
        stream = f"load-psycopg-{random.randrange(10_000)}"
        row = self.cursor.execute(VERSION.format("%s"), (stream,)).fetchone()
        assert row is not None
        version = row[0]
        error: Exception | None = None
        began = time.perf_counter()
        try:
            values = {
                "stream": stream,
                "version": version,
                "data": '{"n":1}',
                "metadata": '{"run_id":"psycopg"}',
                "id": uuid4(),
            }
            self.cursor.execute(
                APPEND.format(
                    stream="%(stream)s", version="%(version)s", data="%(data)s", metadata="%(metadata)s", id="%(id)s"
                ),
                values,
            )
        except psycopg.Error as raised:
            error = raised
        self.environment.events.request.fire(
            request_type="psycopg",
            name="append",
            response_time=(time.perf_counter() - began) * 1000,
            response_length=0,
            exception=error,
            context={},
        )
