import asyncio
import threading

import pytest

from app.batcher import Batcher
from app.refusals import Busy


def work(items):
    """Doubles numbers; a 13 is refused for itself, a 666 wrecks its whole batch."""
    if 666 in items:
        raise RuntimeError("wrecked")
    return [ValueError("unlucky") if item == 13 else 2 * item for item in items]


def run(scenario):
    async def main():
        await asyncio.wait_for(scenario(), 20)

    asyncio.run(main())


def test_one_bad_item_never_touches_its_neighbours():
    async def scenario():
        batcher = Batcher(work, 100, 10)
        results = await asyncio.gather(*(batcher.submit(i) for i in (1, 13, 2, 666, 3)), return_exceptions=True)
        assert [results[i] for i in (0, 2, 4)] == [2, 4, 6]
        assert isinstance(results[1], ValueError)
        assert isinstance(results[3], RuntimeError)
        await batcher.stop()

    run(scenario)


def test_what_is_queued_goes_together_up_to_the_batch_size():
    sizes, gate = [], threading.Event()

    def slow(items):
        gate.wait()
        sizes.append(len(items))
        return items

    async def scenario():
        batcher = Batcher(slow, 100, 8)
        tasks = [asyncio.create_task(batcher.submit(0))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(batcher.submit(i)) for i in range(1, 21)]
        await asyncio.sleep(0.05)
        gate.set()
        assert await asyncio.gather(*tasks) == list(range(21))
        assert sizes == [1, 8, 8, 4]
        await batcher.stop()

    run(scenario)


def test_a_full_queue_says_so_and_a_cancelled_client_is_forgotten():
    gate = threading.Event()

    def slow(items):
        gate.wait()
        return items

    async def scenario():
        batcher = Batcher(slow, 3, 8)
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
        await batcher.stop()

    run(scenario)
