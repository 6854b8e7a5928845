import numpy as np
import pytest
from scipy.interpolate import make_interp_spline

from model.errors import SpectrumError
from model.spectra.grid import APOGEE_PIXELS, Grid, apogee_wavelength


@pytest.fixture(scope="module")
def grid() -> Grid:
    return Grid.apogee()


def test_the_apogee_grid_has_three_detectors(grid):
    assert len(grid) == 7514
    assert [part.stop - part.start for part in grid.detectors] == [3028, 2495, 1991]
    assert grid.wavelength[0] == pytest.approx(10 ** (4.179 + 6e-6 * 246))


def test_apogee_spectra_are_cut_not_interpolated(grid):
    flux = np.arange(APOGEE_PIXELS, dtype=float)
    resampled, ivar, _ = grid.resample(None, flux, flux + 1)
    assert resampled[0] == 246
    assert resampled[-1] == 8334
    assert np.array_equal(ivar, resampled + 1)


def test_other_lengths_need_a_wavelength(grid):
    with pytest.raises(SpectrumError, match="7514 or APOGEE's 8575") as caught:
        grid.resample(None, np.ones(4000), np.ones(4000))
    assert caught.value.code == "wrong_length"


def test_resampling_keeps_a_spectrum_within_a_tenth_of_a_percent(grid, emulator, spectra, survey):
    """A line spectrum on pixels shifted by half of one, brought back."""
    first = np.interp(apogee_wavelength(), grid.wavelength, spectra[0].astype(float))
    half = 10 ** (4.179 + 6e-6 * (np.arange(APOGEE_PIXELS) + 0.5))
    shifted = make_interp_spline(apogee_wavelength(), first, k=7)(half)
    back, ivar, how = grid.resample(half, shifted, np.full(APOGEE_PIXELS, 1e4))
    error = np.abs(back - spectra[0])[ivar > 0]
    assert "resampled" in how
    assert np.mean(ivar > 0) > 0.999
    assert np.median(error) < 2e-4
    assert np.percentile(error, 99) < 1e-3


def test_resampling_spreads_a_bad_pixel_to_its_neighbours_only(grid):
    wavelength = grid.wavelength * (1 + 3e-6)
    ivar = np.full(len(grid), 4.0)
    ivar[100] = 0
    flux = np.ones(len(grid))
    flux[100] = 1e6
    resampled, new_ivar, _ = grid.resample(wavelength, flux, ivar)
    assert set(np.flatnonzero(new_ivar[:200] == 0)) <= {0, 100, 101}
    assert {100, 101} <= set(np.flatnonzero(new_ivar == 0))
    assert np.allclose(resampled[new_ivar > 0], 1)
    assert np.allclose(new_ivar[new_ivar > 0], 4)


def test_pixels_that_are_not_covered_carry_nothing(grid):
    covered = grid.wavelength > 15500
    resampled, ivar, _ = grid.resample(grid.wavelength[covered], np.ones(covered.sum()), np.ones(covered.sum()))
    assert np.array_equal(ivar > 0, covered)
    assert np.all(resampled[~covered] == 0)


@pytest.mark.parametrize(("factor", "hint"), [(0.1, "nanometres"), (1e-4, "micrometres"), (0.3, "is needed")])
def test_wavelengths_in_other_units_are_recognised(grid, factor, hint):
    with pytest.raises(SpectrumError, match=hint) as caught:
        grid.resample(grid.wavelength * factor, np.ones(len(grid)), np.ones(len(grid)))
    assert caught.value.code == "wavelength_out_of_range"


def test_wavelengths_must_increase(grid):
    with pytest.raises(SpectrumError, match="increasing"):
        grid.resample(grid.wavelength[::-1].copy(), np.ones(len(grid)), np.ones(len(grid)))
