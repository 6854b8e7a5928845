"""One worker thread for inference and its commits, fed in batches by the event loop.

What is queued when the worker is free goes together; no wait is added. Items are validated before they come
here; should a batch fail all the same, its items are tried one by one, so that none harms its neighbours (but
not when the store is unavailable: that fails the batch at once).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from app.refusals import Busy
from index.store import StoreError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Runs `work` on batches of what `submit` is given; `work` gives a result or an exception for each item."""

    def __init__(
        self, work: Callable[[list[Item]], list[Result | Exception]], queue_size: int, batch_size: int
    ) -> None:
        self._work = work
        self._queue: asyncio.Queue[tuple[Item, asyncio.Future[Result]]] = asyncio.Queue(queue_size)
        self._batch_size = batch_size
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._task = asyncio.create_task(self._run())

    async def submit(self, item: Item) -> Result:
        """The result of `work` on `item`. Raises Busy when the queue is full, and what `work` found wrong."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((item, future))
        except asyncio.QueueFull:
            raise Busy("busy", "too many spectra are waiting; try again in a second") from None
        return await future

    async def stop(self) -> None:
        """Finish what was accepted, then end."""
        await self._queue.join()
        self._task.cancel()
        self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self._batch_size and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            wanted = [(item, future) for item, future in batch if not future.cancelled()]
            results = await loop.run_in_executor(self._thread, self._attempt, [item for item, _ in wanted])
            for (_, future), result in zip(wanted, results, strict=True):
                if future.cancelled():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
            for _ in batch:
                self._queue.task_done()

    def _attempt(self, items: list[Item]) -> list[Result | Exception]:
        try:
            return self._work(items) if items else []
        except Exception as error:
            if len(items) == 1 or isinstance(error, StoreError):
                return [error for _ in items]
            return [self._attempt([item])[0] for item in items]
