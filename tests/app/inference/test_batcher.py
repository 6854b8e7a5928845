import asyncio
import concurrent.futures
import threading
import time

import httpx
import pytest

from app.application import create_app
from app.errors import Busy
from app.inference.batcher import Batcher
from app.operations.threads import Threads
from app.settings import Settings
from index.errors import StoreError


def work(items):
    """Doubles numbers; a 13 is refused for itself, a 666 wrecks its whole batch."""
    if 666 in items:
        raise RuntimeError("wrecked")
    return [ValueError("unlucky") if item == 13 else 2 * item for item in items]


def batcher_of(compute, queue_size, batch_size, **more):
    """A batcher whose commits change nothing."""
    return Batcher(
        compute, lambda pairs: [made for _, made in pairs], Threads(1), queue_size, batch_size, **more
    )


def run(scenario):
    async def main():
        await asyncio.wait_for(scenario(), 20)

    asyncio.run(main())


def test_one_bad_item_never_touches_its_neighbours():
    async def scenario():
        batcher = batcher_of(work, 100, 10)
        results = await asyncio.gather(*(batcher.submit(i) for i in (1, 13, 2, 666, 3)), return_exceptions=True)
        assert [results[i] for i in (0, 2, 4)] == [2, 4, 6]
        assert isinstance(results[1], ValueError)
        assert isinstance(results[3], RuntimeError)
        await batcher.stop(10)

    run(scenario)


def test_what_is_queued_goes_together_up_to_the_batch_size():
    sizes, gate = [], threading.Event()

    def slow(items):
        gate.wait()
        sizes.append(len(items))
        return items

    async def scenario():
        batcher = batcher_of(slow, 100, 8)
        tasks = [asyncio.create_task(batcher.submit(0))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(batcher.submit(i)) for i in range(1, 21)]
        await asyncio.sleep(0.05)
        gate.set()
        assert await asyncio.gather(*tasks) == list(range(21))
        assert sizes == [1, 8, 8, 4]
        await batcher.stop(10)

    run(scenario)


def test_a_full_queue_says_so_and_a_cancelled_client_is_forgotten():
    gate = threading.Event()

    def slow(items):
        gate.wait()
        return items

    async def scenario():
        batcher = batcher_of(slow, 3, 8)
        first = asyncio.create_task(batcher.submit(0))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(batcher.submit(i)) for i in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(Busy):
            await batcher.submit(99)
        waiting[1].cancel()
        gate.set()
        assert await first == 0
        assert await waiting[0] == 0
        assert await waiting[2] == 2
        assert await batcher.submit(5) == 5
        await batcher.stop(10)

    run(scenario)


FAILURES = {
    "an error": ValueError("broken"),
    "no memory": MemoryError(),
    "an end of iteration": StopIteration(),
    "an exit": SystemExit(1),
    "an interrupt": KeyboardInterrupt(),
    "a cancellation": asyncio.CancelledError(),
    "another cancellation": concurrent.futures.CancelledError(),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
@pytest.mark.parametrize("how", ["raised", "returned"])
def test_whatever_goes_wrong_fails_its_batch_alone(failure, how):
    def breaks(items):
        if 0 in items and how == "raised":
            raise failure
        return [failure if item == 0 else item for item in items]

    async def scenario():
        batcher = batcher_of(breaks, 100, 10)
        with pytest.raises((ValueError, MemoryError, RuntimeError, concurrent.futures.CancelledError)):
            await batcher.submit(0)
        assert await batcher.submit(1) == 1
        assert batcher.trouble() is None
        await batcher.stop(10)

    run(scenario)


@pytest.mark.parametrize("results", [[], [1, 2, 3], None])
def test_results_that_do_not_match_the_items_are_an_error(results):
    async def scenario():
        batcher = batcher_of(lambda items: results if 0 in items else items, 100, 10)
        with pytest.raises((RuntimeError, TypeError)):
            await batcher.submit(0)
        assert await batcher.submit(5) == 5
        await batcher.stop(10)

    run(scenario)


def test_a_stuck_batch_is_noticed_and_holds_up_no_stop():
    gate = threading.Event()

    def stuck(items):
        gate.wait()
        return items

    async def scenario():
        batcher = batcher_of(stuck, 100, 1, stuck_s=0.1)
        waiting = [asyncio.create_task(batcher.submit(i)) for i in range(3)]
        await asyncio.sleep(0.02)
        assert batcher.trouble() is None
        await asyncio.sleep(0.15)
        assert "0.1 s" in batcher.trouble()
        await asyncio.wait_for(batcher.stop(0.1), 60)
        assert not gate.is_set(), "the batch is as stuck as before"
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, Busy) for result in results)
        with pytest.raises(Busy):
            await batcher.submit(4)
        assert batcher.trouble() == "inference has ended"

    try:
        run(scenario)
    finally:
        gate.set()


def test_a_batch_of_a_loop_that_has_ended_harms_nobody():
    gate, ended = threading.Event(), threading.Event()

    def slow(items):
        gate.wait()
        ended.set()
        return items

    async def leave():
        threads = Threads(1)
        batcher = Batcher(slow, lambda pairs: pairs, threads, 100, 10)
        batcher.submission = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.05)
        return threads

    threads = asyncio.run(leave())
    gate.set()
    assert ended.wait(10)
    time.sleep(0.05)
    assert threads._threads[0].is_alive()
    threads._calls.put(None)
    threads._threads[0].join(10)


@pytest.mark.parametrize(
    ("error", "neighbour", "tries"), [(StoreError("full"), StoreError, 1), (OSError("odd"), int, 4)]
)
def test_a_commit_fails_its_batch_at_once_where_the_store_is_unavailable(error, neighbour, tries):
    committed = []

    def commit(pairs):
        committed.append(pairs)
        if (2, 4) in pairs:
            raise error
        return [made for _, made in pairs]

    async def scenario():
        batcher = Batcher(work, commit, Threads(1), 100, 10)
        results = await asyncio.gather(*(batcher.submit(i) for i in (1, 2, 13, 3)), return_exceptions=True)
        assert [type(result) for result in results] == [neighbour, type(error), ValueError, neighbour]
        await batcher.stop(10)

    run(scenario)
    assert committed[0] == [(1, 2), (2, 4), (3, 6)], "what could not be computed is not committed"
    assert len(committed) == tries


def test_nothing_is_said_to_be_stored_before_it_is():
    """A batch is given up while it is being committed."""
    gate = threading.Event()

    def commit(pairs):
        gate.wait()
        raise OSError("full")

    async def scenario():
        batcher = Batcher(work, commit, Threads(1), 100, 10)
        waiting = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.05)
        await batcher.stop(0.05)
        with pytest.raises(Busy):
            await waiting

    try:
        run(scenario)
    finally:
        gate.set()


def test_what_is_counted_of_a_batch_cannot_end_inference(monkeypatch):
    def full(_):
        raise OSError("no space left")

    async def scenario():
        batcher = batcher_of(work, 100, 10)
        monkeypatch.setattr("app.metrics.BATCH.observe", full)
        assert await batcher.submit(1) == 2
        assert await batcher.submit(2) == 4
        assert batcher.trouble() is None
        await batcher.stop(10)

    run(scenario)


def test_a_search_does_not_wait_for_a_commit():
    gate = threading.Event()

    def commit(pairs):
        gate.wait()
        return [made for _, made in pairs]

    async def scenario():
        threads = Threads(1)
        batcher = Batcher(work, commit, threads, 100, 10)
        embedding = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.05)
        assert await threads.run(lambda: "found") == "found"
        assert not embedding.done()
        gate.set()
        assert await embedding == 2
        await batcher.stop(10)

    run(scenario)


def test_the_service_is_not_ready_while_inference_is_stuck(tmp_path):
    gate = threading.Event()

    def stuck(items):
        gate.wait()
        return items

    async def scenario():
        app = create_app(Settings(data_dir=tmp_path))
        app.state.service = None  # not asked while inference is stuck
        app.state.batcher = batcher_of(stuck, 8, 8, stuck_s=0.05)
        waiting = asyncio.create_task(app.state.batcher.submit("a job"))
        await asyncio.sleep(0.2)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            response = await client.get("/readyz")
            assert (response.status_code, response.json()["error"]["code"]) == (503, "stuck")
        gate.set()
        assert await waiting == "a job"
        assert app.state.batcher.trouble() is None
        await app.state.batcher.stop(10)

    run(scenario)
