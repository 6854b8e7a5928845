"""Threads that run short functions for coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")
Finish = Callable[[Any, BaseException | None], None]
Calls = SimpleQueue[tuple[Callable[[], Any], Finish] | None]


class Threads:
    """Threads of an event loop. The one that finished last runs the next function: its memory is in the caches.

    GET /twins takes 1.28 ms with them, 1.36 ms with `asyncio.to_thread` and 1.21 ms with neither (1e5 stars,
    2,400 calls each in turns, without HTTP).
    """

    def __init__(self, number: int) -> None:
        """Start so many threads, in a running event loop."""
        self._number = number
        self._idle: asyncio.LifoQueue[Calls] = asyncio.LifoQueue()
        loop = asyncio.get_running_loop()
        for _ in range(number):
            calls: Calls = SimpleQueue()
            threading.Thread(target=_work, args=(calls, loop), name="short", daemon=True).start()
            self._idle.put_nowait(calls)

    async def run(self, function: Callable[[], Result]) -> Result:
        """What `function` returns or raises, run by a thread in this coroutine's context, once one is idle."""
        calls = await self._idle.get()
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def finish(result: Result, error: BaseException | None) -> None:
            self._idle.put_nowait(calls)
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        context = copy_context()
        calls.put((lambda: context.run(function), finish))
        return await future

    async def close(self) -> None:
        """End the threads, each once it is idle."""
        for _ in range(self._number):
            (await self._idle.get()).put(None)


def _work(calls: Calls, loop: asyncio.AbstractEventLoop) -> None:
    while (call := calls.get()) is not None:
        function, finish = call
        try:
            result, error = function(), None
        except BaseException as raised:
            result, error = None, raised
        loop.call_soon_threadsafe(finish, result, error)
        del call, function, finish, result, error  # nothing of a request remains while the thread waits
