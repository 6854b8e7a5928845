"""One worker thread for inference and its commits, fed in batches by the event loop.

What is queued when the worker is free goes together; no wait is added. Items are validated before they come
here; should a batch fail all the same, its items are tried one by one, so that none harms its neighbours (but
not when the store is unavailable: that fails the batch at once). Whatever goes wrong fails that batch alone:
the next one is worked on.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, NamedTuple, TypeVar

from app import metrics
from app.errors import Busy
from index.errors import StoreError

Item = TypeVar("Item")
Result = TypeVar("Result")

STUCK_S = 120.0
"""A batch that takes longer is stuck: 64 spectra take seconds, and a store gives up after 30 s."""

log = logging.getLogger("chemtwin")


class _Batch(NamedTuple, Generic[Item, Result]):
    items: list[Item]
    done: Future[list[Result | BaseException]]


class Batcher(Generic[Item, Result]):
    """Runs `work` on batches of what `submit` is given; `work` gives a result or an exception for each item."""

    def __init__(
        self,
        work: Callable[[list[Item]], Sequence[Result | Exception]],
        queue_size: int,
        batch_size: int,
        stuck_s: float = STUCK_S,
    ) -> None:
        self._work = work
        self._batch_size, self._stuck_s = batch_size, stuck_s
        self._queue: asyncio.Queue[tuple[Item, asyncio.Future[Result]]] = asyncio.Queue(queue_size)
        self._batches: queue.SimpleQueue[_Batch[Item, Result] | None] = queue.SimpleQueue()
        self._since: float | None = None
        # a daemon, so that a stuck batch does not keep the process from ending
        self._thread = threading.Thread(target=self._serve, name="inference", daemon=True)
        self._thread.start()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._end)

    async def submit(self, item: Item) -> Result:
        """The result of `work` on `item`.

        Raises
        ------
        Busy
            The queue is full, or nothing works on it.
        Exception
            What `work` gave for the item.
        """
        if self._task.done():
            raise Busy("busy", "the service works on no more spectra")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((item, future))
        except asyncio.QueueFull:
            raise Busy("busy", "too many spectra are waiting; try again in a second") from None
        with metrics.WAITING.track_inprogress():
            return await future

    def trouble(self) -> str | None:
        """Why no batch will be finished any more; None while all is well. Safe to call from any thread."""
        if self._task.done() or not self._thread.is_alive():
            return "inference has ended"
        since = self._since
        if since is not None and time.monotonic() - since > self._stuck_s:
            return f"a batch has been in inference for more than {self._stuck_s:g} s"
        return None

    async def stop(self, seconds: float) -> None:
        """Finish what was accepted, for at most `seconds`, then end; what is not finished then raises Busy."""
        finished = asyncio.ensure_future(self._queue.join())
        await asyncio.wait({finished, self._task}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (finished, self._task):
            task.cancel()
        await asyncio.gather(finished, self._task, return_exceptions=True)
        self._batches.put(None)
        self._thread.join(1.0)
        if self._thread.is_alive():
            log.error("stopped with a batch still in inference")

    def _end(self, task: asyncio.Task[None]) -> None:
        """Leave nobody waiting for a task that has ended."""
        if not task.cancelled():
            log.error("inference has ended", exc_info=task.exception())
        while not self._queue.empty():
            _, future = self._queue.get_nowait()
            _settle(future, Busy("busy", "the service works on no more spectra"))

    async def _run(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self._batch_size and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                await self._finish([(item, future) for item, future in batch if not future.done()])
            finally:
                for _ in batch:
                    self._queue.task_done()

    async def _finish(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        """Settle the futures of a batch. Raises nothing but the cancellation of the loop's task."""
        done: Future[list[Result | BaseException]] = Future()
        unfinished: Result | BaseException = Busy("busy", "the service works on no more spectra")
        results = [unfinished] * len(batch)
        self._since = time.monotonic()
        try:
            self._batches.put(_Batch([item for item, _ in batch], done))
            results = await asyncio.wrap_future(done)
        finally:
            self._since = None
            for (_, future), result in zip(batch, results, strict=True):
                _settle(future, result)

    def _serve(self) -> None:
        """Work on batches, in the thread, until there is a None."""
        while (batch := self._batches.get()) is not None:
            if batch.done.set_running_or_notify_cancel():
                batch.done.set_result(self._attempt(batch.items))

    def _attempt(self, items: list[Item]) -> list[Result | BaseException]:
        """A result or an exception for each item, whatever `work` does."""
        try:
            results: list[Result | BaseException] = list(self._work(items)) if items else []
            if len(results) != len(items):
                raise RuntimeError(f"work on {len(items)} items gave {len(results)} results")
            return results
        except Exception as error:
            if len(items) == 1 or isinstance(error, StoreError):
                return [error for _ in items]
            return [self._attempt([item])[0] for item in items]
        except BaseException as error:  # an exit or an interrupt, which nobody meant for this thread
            return [error for _ in items]


def _settle(future: asyncio.Future[Result], result: Result | BaseException) -> None:
    """Give a future its result or its exception, unless it has one or nobody waits for it."""
    if future.done():
        return
    if not isinstance(result, BaseException):
        future.set_result(result)
    elif isinstance(result, Exception) and not isinstance(result, StopIteration):
        future.set_exception(result)
    else:  # no future takes a StopIteration, and an exit would end the process that waits
        failure = RuntimeError(f"{type(result).__name__} in a batch")
        failure.__cause__ = result
        future.set_exception(failure)
