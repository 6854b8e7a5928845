import numpy as np
import pytest

from model.errors import SpectrumError
from model.spectra.pixels import USELESS, _least, bad_pixels, ivar_of, median
from model.spectra.spectrum import BAD_BITS

MASK = [0, 1, 1 << 7, 1 << 12, 1 << 13, 1 << 30]
BAD = [False, True, True, True, False, False]


@pytest.mark.parametrize("dtype", ["i4", ">i4", "i8", "u4", "u8", "f8", ">f4"])
def test_a_mask_of_any_numbers_is_read_alike(dtype):
    assert bad_pixels(np.array(MASK, dtype), BAD_BITS).tolist() == BAD


@pytest.mark.parametrize("dtype", ["i1", "u1"])
def test_a_mask_of_bytes(dtype):
    assert bad_pixels(np.array([0, 1, 64], dtype), BAD_BITS).tolist() == [False, True, True]


def test_the_bits_of_two_bytes_with_a_sign():
    assert bad_pixels(np.array([1 << 14, -(1 << 15), -1], "i2"), BAD_BITS).tolist() == [False, False, True]


def test_true_is_bad():
    assert bad_pixels(np.array([True, False]), BAD_BITS).tolist() == [True, False]
    assert not bad_pixels(np.array([True, False]), 1 << 13).any()


def test_an_unknown_flag_marks_nothing():
    assert bad_pixels(np.array([np.nan, np.inf, 1.0]), BAD_BITS).tolist() == [False, False, True]


@pytest.mark.parametrize("wrong", [[0.5], [-1.0], [2.0**53 + 2], [-9999.0]])
def test_numbers_that_are_no_bits_are_refused(wrong):
    with pytest.raises(SpectrumError, match="whole numbers"):
        bad_pixels(np.array([0.0, 1.0, *wrong]), BAD_BITS)
    with pytest.raises(SpectrumError, match="not integers"):
        bad_pixels(np.array(["1"]), BAD_BITS)


def test_an_error_becomes_an_inverse_variance():
    assert ivar_of(np.array([0.5, 0, -1, np.nan, np.inf, -9999])).tolist() == [4, 0, 0, 0, 0, 0]
    assert ivar_of(np.array([1e-25], "f4")) == pytest.approx(1e50), "in double precision"


@pytest.mark.parametrize("count", [1, 2, 3, 8, 7513, 7514])
def test_the_median_is_numpys(count):
    values = np.random.default_rng(count).normal(size=count)
    values[: count // 3] = values[-1]
    assert median(values) == np.median(values)


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0, 6.0])
def test_the_least_useful_ivar_is_that_of_the_sorted_pixels(spread):
    ivar = np.exp(spread * np.random.default_rng(1).normal(size=999))
    best = np.sort(ivar)[::-1]
    half = best[np.searchsorted(np.cumsum(best), 0.5 * best.sum())]
    assert _least(ivar) == pytest.approx(max(best[499], half / 10) / USELESS**2, rel=1e-12)
