"""The bridge between Locust's greenlets and asyncio. In processes of their own: gevent must not patch this one."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).parents[2]
_PATCHED = """
from gevent import monkey
monkey.patch_all()
import asyncio, gc, os, sys, time
import gevent
from esx.loadtest.bridge import AsyncioBridge, BridgeStopped
if LOOP == "plain":
    sys.modules["uvloop"] = None  # as where it is not installed
bridge = AsyncioBridge()
"""


def run_script(script: str, *arguments: str, loop: str = "uvloop") -> None:
    code = f"LOOP = {loop!r}\n{_PATCHED}\n{textwrap.dedent(script)}\nprint('done')"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error::RuntimeWarning", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=_ROOT,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["done"], done.stderr
    assert "never awaited" not in done.stderr


@pytest.mark.parametrize("loop", ["uvloop", "plain"])
def test_coroutines_run_in_a_patched_process(loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    run_script(
        """
        async def add(a, b):
            await asyncio.sleep(0.001)
            return a + b

        async def loop():
            return type(asyncio.get_running_loop()).__module__

        assert bridge.run(add(1, 2)) == 3
        assert ("uvloop" in bridge.run(loop())) == (LOOP == "uvloop")

        # Only the calling greenlet waits.
        order = []
        async def slow():
            await asyncio.sleep(0.2)
        waiting = gevent.spawn(lambda: (bridge.run(slow()), order.append("slow")))
        gevent.sleep(0)
        order.append("meanwhile")
        waiting.join()
        assert order == ["meanwhile", "slow"], order

        async def fail(error):
            raise error
        for error in (LookupError("why"), SystemExit(3)):
            try:
                bridge.run(fail(error))
            except (LookupError, SystemExit) as raised:
                assert raised is error
            else:
                raise AssertionError("no error")
        assert bridge.run(add(2, 2)) == 4  # the loop survived

        # Locks, threads, names, sockets: asyncio's own, not gevent's.
        async def locks():
            lock, event, entered = asyncio.Lock(), asyncio.Event(), []
            async def enter(n):
                async with lock:
                    await event.wait()
                    entered.append(n)
            tasks = [asyncio.create_task(enter(n)) for n in range(5)]
            await asyncio.sleep(0)
            event.set()
            await asyncio.gather(*tasks)
            return entered
        assert bridge.run(locks()) == [0, 1, 2, 3, 4]

        async def threads():
            return await asyncio.gather(*(asyncio.to_thread(pow, n, 2) for n in range(5)))
        assert bridge.run(threads()) == [0, 1, 4, 9, 16]
        async def thread_fails():
            await asyncio.to_thread(int, "x")
        try:
            bridge.run(thread_fails())
        except ValueError as error:
            assert "invalid literal" in str(error)
        else:
            raise AssertionError("no error")

        async def talk():
            async def echo(reader, writer):
                writer.write(await reader.readexactly(5))
                writer.close()
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("localhost", port)
            writer.write(b"hello")
            answer = await reader.read()
            writer.close()
            server.close()
            return answer
        assert bridge.run(talk()) == b"hello"

        posted = []
        async def post():
            bridge.post(lambda: posted.append(gevent.getcurrent()))
        bridge.run(post())
        with gevent.Timeout(120):
            while not posted:
                gevent.sleep(0.001)
        assert len(posted) == 1 and isinstance(posted[0], gevent.Greenlet)

        # Many at once, none mixed up.
        results = [gevent.spawn(bridge.run, add(n, n)) for n in range(500)]
        gevent.joinall(results)
        assert [each.value for each in results] == [2 * n for n in range(500)]
        assert bridge.stop()
        assert not bridge.running
        """,
        loop=loop,
    )


def test_killing_the_greenlet_cancels_the_coroutine_and_stop_frees_greenlets_that_wait() -> None:
    run_script(
        """
        began, ended = [], []
        async def forever():
            began.append(True)
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        def until_begun(count):
            with gevent.Timeout(120):
                while len(began) < count:
                    gevent.sleep(0.001)

        waiting = gevent.spawn(bridge.run, forever())
        until_begun(1)
        waiting.kill()
        assert ended == [True]
        try:
            with gevent.Timeout(1):
                bridge.run(forever())
        except gevent.Timeout:
            pass
        assert ended == [True, True]

        outcome = []
        def wait():
            try:
                bridge.run(forever())
            except BridgeStopped as error:
                outcome.append(str(error))
        waiting = gevent.spawn(wait)
        until_begun(3)
        assert bridge.stop()
        waiting.join()
        assert outcome == ["the bridge stopped before the coroutine ended"] and len(ended) == 3

        async def seven():
            return 7
        assert bridge.run(seven()) == 7  # starts again
        if hasattr(os, "fork"):
            child = gevent.fork()
            if child == 0:
                os._exit(bridge.run(seven()) if not bridge.running else 1)  # and again after a fork
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert bridge.run(seven()) == 7
        assert bridge.stop()
        """
    )


async def test_the_store_works_across_the_bridge(dsn18: str) -> None:
    run_script(
        """
        from esx import NO_STREAM, EventStore, NewEvent, WrongVersion

        async def append():
            async with EventStore.connect(sys.argv[1], max_connections=8) as store:
                writers = (store.append("s-1", [NewEvent("T")], expected=NO_STREAM) for _ in range(8))
                results = await asyncio.gather(*writers, return_exceptions=True)
                return sorted(type(each).__name__ for each in results)
        assert bridge.run(append()) == ["AppendResult"] + ["WrongVersion"] * 7
        assert bridge.stop()
        """,
        dsn18,
    )


def test_a_locust_user_with_async_tasks() -> None:
    run_script(
        """
        import logging
        logging.disable()
        from locust import constant, task
        from locust.env import Environment
        from esx.loadtest.user import AsyncUser

        seen = []
        class Steady(AsyncUser):
            async def on_start(self):
                seen.append("start")
            async def on_stop(self):
                seen.append("stop")
            @task
            async def work(self):
                seen.append("begin")
                await asyncio.sleep(0.05)
                seen.append("end")

        class Sleepy(AsyncUser):
            wait_time = constant(1000)
            @task
            async def work(self):
                seen.append("now I wait")

        class Failing(AsyncUser):
            @task
            async def work(self):
                raise ValueError("broken")

        class Stuck(AsyncUser):
            @task
            async def work(self):
                seen.append("begin")
                try:
                    await asyncio.Event().wait()
                finally:
                    seen.append("cut off")

        def live(kind, stop_timeout, until):
            seen.clear()
            environment = Environment(user_classes=[kind], stop_timeout=stop_timeout)
            errors = []
            environment.events.user_error.add_listener(lambda user_instance, exception, tb: errors.append(exception))
            runner = environment.create_local_runner()
            began = time.monotonic()
            runner.start(1, spawn_rate=1)
            while not until(errors):
                gevent.sleep(0.005)
            assert runner.user_count == 1
            runner.quit()
            return errors, time.monotonic() - began

        # A graceful stop lets the task in progress finish ...
        assert not live(Steady, 1000.0, lambda _: seen.count("begin") == 2)[0]
        assert seen[0] == "start" and seen[-1] == "stop" and seen.count("begin") == seen.count("end") >= 2, seen
        # ... wakes a user that waits between two tasks ...
        assert not live(Sleepy, 1000.0, lambda _: seen)[0]
        # ... and a forced one cancels.
        assert not live(Stuck, 0.0, lambda _: seen)[0]
        assert seen == ["begin", "cut off"]
        # What a task does not catch is reported, and the user does not spin: it pauses for a second.
        errors, seconds = live(Failing, 1000.0, lambda errors: errors)
        assert {str(error) for error in errors} == {"broken"} and len(errors) <= 1 + seconds, (errors, seconds)

        class Wrong(AsyncUser):
            @task
            def work(self):
                pass
        try:
            Wrong(None)
        except TypeError as error:
            assert "async def" in str(error)
        else:
            raise AssertionError("accepted")
        assert AsyncUser.bridge.stop()
        """
    )
