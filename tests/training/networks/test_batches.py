import numpy as np
import pytest
import torch

from training.networks.batches import Batches, Resident, Streamed, network_pixels, order, pixel_source
from training.surveys.survey import BLOCK_STARS

CPU = torch.device("cpu")


def test_an_epoch_has_every_star_once_in_an_order_of_its_own():
    first, second = order(5000, seed=1, epoch=0), order(5000, seed=1, epoch=1)
    assert np.array_equal(np.sort(first), np.arange(5000))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, order(5000, seed=1, epoch=0))
    assert not np.array_equal(first, order(5000, seed=2, epoch=0))
    assert np.abs(np.corrcoef(first[:1000], np.arange(1000))[0, 1]) < 0.15


@pytest.mark.parametrize("snr", [np.inf, 50])
def test_a_streamed_survey_gives_the_batches_of_a_resident_one(survey, snr):
    known = torch.arange(len(survey))[:, None].float()
    resident, streamed = (
        Batches(pixel_source(survey, None, snr, CPU, resident), known, batch=256, seed=3)
        for resident in (True, False)
    )
    assert isinstance(resident.source, Resident)
    assert isinstance(streamed.source, Streamed)
    for step in range(9):
        (x, u), (y, v) = resident(step), streamed(step)
        assert torch.equal(x, y)
        assert torch.equal(u, v)


def test_processes_divide_a_batch(survey):
    batches = Batches(Resident(torch.arange(1200)[:, None]), torch.arange(1200)[:, None], batch=64, seed=1)
    whole, parts = batches(5)[0], [batches(5, rank, 4)[0] for rank in range(4)]
    assert {len(part) for part in parts} == {16}
    assert set(torch.cat(parts).flatten().tolist()) == set(whole.flatten().tolist())


def test_pixels_are_scaled_as_in_the_paper(survey):
    source = pixel_source(survey, None, np.inf, CPU, resident=True)
    rows = np.array([0, BLOCK_STARS, 7])
    assert np.array_equal(
        source(rows).numpy(), 4 * np.stack([survey.flux(slice(i, i + 1))[0] for i in rows]) - np.float32(3.5)
    )
    assert network_pixels(np.ones((1, 1), np.float32))[0, 0] == 0.5
