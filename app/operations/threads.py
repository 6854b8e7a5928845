"""Threads that run short functions for coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

Result = TypeVar("Result")
Calls = SimpleQueue[Callable[[], None] | None]


class Threads:
    """Threads of an event loop for functions of a few milliseconds: longer ones keep the others waiting."""

    def __init__(self, number: int) -> None:
        """Start so many threads, in a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._calls: Calls = SimpleQueue()
        self._threads = [
            threading.Thread(target=_work, args=(self._calls,), name="short", daemon=True)
            for _ in range(number)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, function: Callable[[], Result]) -> Result:
        """What `function` returns or raises, run by a thread in this coroutine's context, in its turn.

        If this coroutine is cancelled before, `function` is not run.
        """
        future: asyncio.Future[Result] = self._loop.create_future()
        context = copy_context()

        def call() -> None:
            if future.cancelled():
                return
            try:
                settle: Callable[[], None] = partial(future.set_result, context.run(function))
            except StopIteration as error:  # which no future takes
                settle = partial(future.set_exception, RuntimeError(repr(error)))
            except BaseException as error:
                settle = partial(future.set_exception, error)
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                self._loop.call_soon_threadsafe(_unless_cancelled, future, settle)

        self._calls.put(call)
        return await future

    async def close(self, seconds: float) -> bool:
        """End the threads, after what they were given. False if they have not ended after so many seconds."""
        for _ in self._threads:
            self._calls.put(None)
        deadline = self._loop.time() + seconds
        while any(thread.is_alive() for thread in self._threads):
            if self._loop.time() > deadline:
                return False
            await asyncio.sleep(0.005)
        return True


def _work(calls: Calls) -> None:
    while (call := calls.get()) is not None:
        call()
        del call  # nothing of a request remains while the thread waits


def _unless_cancelled(future: asyncio.Future[Result], settle: Callable[[], None]) -> None:
    if not future.cancelled():
        settle()
