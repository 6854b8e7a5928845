"""Doppelganger rates, the same over either store."""

import threading

import numpy as np
import pytest

from index.search import doppelganger_rates as rates
from index.search.twin_index import TwinIndex
from index.stores.star import Star

DIMENSION = 3


def stars(count: int, scale: float = 1.0) -> list[Star]:
    latents = np.random.default_rng(1).normal(scale=scale, size=(count, DIMENSION)).astype("f4")
    return [Star(f"S{row:04d}", "m@1", latents[row], None, 4500.0, 2.0, 0.0) for row in range(count)]


@pytest.fixture
def index(store, tmp_path):
    index = TwinIndex(store, "m@1", DIMENSION, tmp_path)
    yield index
    index.close()


def test_nobody_waits_for_pairs_that_are_drawn_again(index, monkeypatch):
    index.upsert(stars(1200))
    index.catch_up()
    before = index.doppelganger_rates([0.5])
    index.upsert(stars(1200, scale=10.0))
    index.catch_up()
    drawing, go_on = threading.Event(), threading.Event()
    draw = rates.random_distances

    def slowly(latents):
        drawing.set()
        assert go_on.wait(30)
        return draw(latents)

    monkeypatch.setattr(rates, "random_distances", slowly)
    first = threading.Thread(target=index.doppelganger_rates, args=([0.5],))
    first.start()
    try:
        assert drawing.wait(30)
        meanwhile = []
        second = threading.Thread(target=lambda: meanwhile.append(index.doppelganger_rates([0.5])))
        second.start()
        second.join(5)
        assert meanwhile == [before], "the pairs of before are used while others are drawn"
    finally:
        go_on.set()
        first.join()
    assert index.doppelganger_rates([0.5])[0] < before[0] / 10


def test_stars_deleted_since_they_were_counted_have_no_rates(index):
    index.upsert(stars(1000))
    index.catch_up()
    gone = rates.Rates(lambda _: np.zeros((0, DIMENSION), "f4"))
    assert gone.at([0.5], 1000, 1000) is None
