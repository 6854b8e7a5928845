"""Inference and its commits in batches, for requests of one spectrum each.

What is queued when a thread is free goes together; no wait is added. Items are validated before they come
here; should a batch fail all the same, its items are tried one by one, so that none harms its neighbours (but
not when the store is unavailable: that fails the batch at once). Whatever goes wrong fails that batch alone:
the next one is worked on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from app import metrics
from app.errors import Busy
from app.operations.threads import Threads
from index.errors import StoreError

Item = TypeVar("Item")
Computed = TypeVar("Computed")
Result = TypeVar("Result")
Argument = TypeVar("Argument")

STUCK_S = 120.0
"""A batch that takes longer is stuck: its spectra take a second, and a store gives up after 30 s."""

log = logging.getLogger("chemtwin")


class Batcher(Generic[Item, Computed, Result]):
    """Runs `compute` and then `commit` on batches of what `submit` is given.

    Parameters
    ----------
    compute
        Gives what it makes of each item, or an exception. It is one of the functions that `threads` run, and
        takes what is queued when its turn comes: the busier they are, the larger are the batches.
    commit
        Gives the result of each item and what was made of it, or an exception. It has a thread of its own, in
        which it may wait for the disk.
    threads
        Run `compute`.
    queue_size
        Items that may wait.
    batch_size
        Most items of a batch.
    stuck_s
        Seconds after which a batch is stuck.
    """

    def __init__(
        self,
        compute: Callable[[list[Item]], Sequence[Computed | Exception]],
        commit: Callable[[list[tuple[Item, Computed]]], Sequence[Result | Exception]],
        threads: Threads,
        queue_size: int,
        batch_size: int,
        stuck_s: float = STUCK_S,
    ) -> None:
        self._compute, self._commit, self._threads = compute, commit, threads
        self._queue_size, self._batch_size, self._stuck_s = queue_size, batch_size, stuck_s
        self._queue: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._queued = asyncio.Event()
        self._since: float | None = None
        self._committing = Threads(1)
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._end)

    async def submit(self, item: Item) -> Result:
        """What `commit` gave for `item`.

        Raises
        ------
        Busy
            The queue is full, or nothing works on it.
        Exception
            What `compute` or `commit` gave for the item.
        """
        if self._task.done():
            raise Busy("busy", "the service works on no more spectra")
        if len(self._queue) >= self._queue_size:
            raise Busy("busy", "too many spectra are waiting; try again in a second")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        self._queued.set()
        with metrics.WAITING.track_inprogress():
            return await future

    def trouble(self) -> str | None:
        """Why no batch will be finished any more; None while all is well. Safe to call from any thread."""
        if self._task.done():
            return "inference has ended"
        since = self._since
        if since is not None and time.monotonic() - since > self._stuck_s:
            return f"a batch has been in inference for more than {self._stuck_s:g} s"
        return None

    async def stop(self, seconds: float) -> None:
        """Finish what was accepted, for at most `seconds`, then end; what is not finished then raises Busy."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._task.done() and (self._queue or self._since is not None):
                    await asyncio.sleep(0.01)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if not await self._committing.close(1.0):
            log.error("stopped with a batch still being committed")

    def _end(self, task: asyncio.Task[None]) -> None:
        """Leave nobody waiting for a task that has ended."""
        if not task.cancelled():
            log.error("inference has ended", exc_info=task.exception())
        while self._queue:
            _, future = self._queue.popleft()
            _settle(future, Busy("busy", "the service works on no more spectra"))

    async def _run(self) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            try:
                await self._finish_next()
            except Exception:
                log.exception("a batch failed")
            if self._queue:
                self._queued.set()

    async def _finish_next(self) -> None:
        """Settle the futures of the next batch, whatever it raises."""
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        results: list[Any] = []
        self._since = time.monotonic()
        try:
            computed = await self._threads.run(partial(self._take_and_compute, batch))
            sound = [row for row, result in enumerate(computed) if not isinstance(result, BaseException)]
            pairs: list[Any] = [(batch[row][0], computed[row]) for row in sound]
            committed = iter(await self._committing.run(partial(_attempt, self._commit, pairs)))
            results = [one if isinstance(one, BaseException) else next(committed) for one in computed]
            if batch:
                metrics.BATCH.observe(len(batch))
            metrics.EMBED_SECONDS.observe(time.monotonic() - self._since)
        finally:
            self._since = None
            unfinished = Busy("busy", "the service works on no more spectra")
            for (_, future), result in zip(batch, results or [unfinished] * len(batch), strict=True):
                _settle(future, result)

    def _take_and_compute(
        self, batch: list[tuple[Item, asyncio.Future[Result]]]
    ) -> list[Computed | BaseException]:
        """Put what is queued into `batch`, and give what `compute` makes of it."""
        self._since = time.monotonic()
        while not self._task.done() and self._queue and len(batch) < self._batch_size:
            item, future = self._queue.popleft()
            if not future.done():
                batch.append((item, future))
        return _attempt(self._compute, [item for item, _ in batch])


def _attempt(
    function: Callable[[list[Argument]], Sequence[Any]], arguments: list[Argument]
) -> list[Any | BaseException]:
    """A result or an exception for each argument, whatever `function` does."""
    try:
        results: list[Any | BaseException] = list(function(arguments)) if arguments else []
        if len(results) != len(arguments):
            raise RuntimeError(f"work on {len(arguments)} items gave {len(results)} results")
        return results
    except Exception as error:
        if len(arguments) == 1 or isinstance(error, StoreError):
            return [error for _ in arguments]
        return [_attempt(function, [argument])[0] for argument in arguments]
    except BaseException as error:  # an exit or an interrupt, which nobody meant for this thread
        return [error for _ in arguments]


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
