"""Threads that run functions for coroutines: results, errors, context, waiting, and a caller that gives up."""

import asyncio
import threading
import time
from contextvars import ContextVar

import pytest

from app.operations.threads import Threads

WHO = ContextVar("who", default="nobody")


def in_threads(number, body):
    async def main():
        threads = Threads(number)
        try:
            return await body(threads)
        finally:
            assert await threads.close(10)

    return asyncio.run(main())


def test_results_errors_and_context():
    async def body(threads):
        WHO.set("caller")
        assert await threads.run(WHO.get) == "caller"
        assert await threads.run(threading.current_thread) is not threading.current_thread()
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await threads.run(lambda: next(iter(())))

    in_threads(1, body)


def test_no_more_functions_at_once_than_threads():
    running, most = [], []

    def function():
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()

    in_threads(2, lambda threads: asyncio.gather(*(threads.run(function) for _ in range(8))))
    assert len(most) == 8
    assert max(most) == 2


def test_a_caller_that_gives_up_leaves_its_thread_usable():
    async def body(threads):
        finish = threading.Event()
        first = asyncio.create_task(threads.run(finish.wait))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        second = asyncio.create_task(threads.run(lambda: "done"))
        await asyncio.sleep(0.01)
        assert not second.done()
        finish.set()
        return await second

    assert in_threads(1, body) == "done"


def test_what_nobody_waits_for_any_more_is_not_run():
    ran = []

    async def body(threads):
        finish = threading.Event()
        first = asyncio.create_task(threads.run(finish.wait))
        second = asyncio.create_task(threads.run(lambda: ran.append(1)))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        finish.set()
        await first

    in_threads(1, body)
    assert ran == []


def test_a_thread_that_does_not_end_holds_up_nobody():
    finish = threading.Event()

    async def main():
        threads = Threads(1)
        waiting = asyncio.create_task(threads.run(finish.wait))
        await asyncio.sleep(0.01)
        assert not await threads.close(0.05)
        waiting.cancel()

    asyncio.run(main())
    finish.set()
