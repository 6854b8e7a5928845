import h5py
import numpy as np
import pytest

from model.spectra.grid import Grid
from training.emulator.broadening import LIGHT, broaden
from training.surveys.synthetic_survey import synthesize


def lines(sd: np.ndarray, grid: Grid) -> np.ndarray:
    """Unit continua (N, P) with 60 Gaussian lines of the resolution's width, broadened by sd (N,), km/s."""
    ln = np.log(grid.wavelength)
    centres = np.random.default_rng(1).uniform(ln[0], ln[-1], 60)
    width = np.hypot(6.0, sd)[:, None]
    depth = sum(np.exp(-0.5 * ((ln - centre) * LIGHT / width) ** 2) for centre in centres)
    return 1 - 0.3 * 6.0 / width * depth


def test_lines_widen_as_gaussians_do():
    grid, sd = Grid.apogee(), np.array([0.0, 0.3, 1.0, 3.0, 10.0, 20.0])
    sharp = np.repeat(lines(np.zeros(1), grid), len(sd), axis=0).astype(np.float32)
    inner = np.concatenate([np.r_[detector][30:-30] for detector in grid.detectors])
    apart = np.abs(broaden(sharp, sd, grid) - lines(sd, grid))
    assert apart[:, inner].max() < 1e-5
    assert apart[0].max() < 1e-5


def test_a_detector_knows_nothing_of_another_and_keeps_its_mean():
    grid = Grid.apogee()
    flux = np.ones((1, len(grid)), dtype=np.float32)
    flux[:, : grid.detectors[0].stop] = 0.5
    flux[0, 5000] = 0.0
    broad = broaden(flux, np.array([15.0]), grid)
    assert np.abs(broad[0, : grid.detectors[0].stop] - 0.5).max() < 1e-6
    for detector in grid.detectors:
        assert broad[0, detector].mean() == pytest.approx(flux[0, detector].mean(), abs=1e-6)


def test_every_star_has_its_own_broadening_before_the_noise(emulator, tmp_path):
    for name, snr, broadening in (("sharp", np.inf, None), ("broad", np.inf, (2, 12)), ("noisy", 50, (2, 12))):
        synthesize(tmp_path / f"{name}.h5", emulator, 300, 7, snr, broadening=broadening)
    files = {name: h5py.File(tmp_path / f"{name}.h5") for name in ("sharp", "broad", "noisy")}
    vbroad = files["broad"]["vbroad"][:]
    assert files["broad"]["vbroad"].attrs["unit"] == "km/s"
    assert np.allclose(np.quantile(vbroad, [0, 0.5, 1]), [2, 7, 12], atol=0.6)
    assert abs(np.corrcoef(vbroad[::2], vbroad[1::2])[0, 1]) < 0.15
    assert "vbroad" not in files["sharp"]
    for name in ("teff", "logg", "fe_h", "abundances"):
        assert np.array_equal(files["sharp"][name], files["broad"][name])
    sharp, broad = files["sharp"]["flux"][500:520], files["broad"]["flux"][500:520]
    expected = broaden(sharp, vbroad[500:520], Grid(emulator.wavelength))
    assert np.abs(broad - expected).max() < 1e-6
    noise = files["noisy"]["flux"][:100] - files["broad"]["flux"][:100]
    assert noise.std() == pytest.approx(1 / 50, rel=0.01)
    white = noise - noise.mean()
    assert abs(np.mean(white[:, 1:] * white[:, :-1])) < 0.01 / 50**2


@pytest.mark.parametrize("broadening", [(5, 5), (-1, 3), (3, 1), (0, np.inf), (np.nan, 1)])
def test_a_range_that_does_not_rise_is_refused(emulator, tmp_path, broadening):
    with pytest.raises(ValueError, match="two rising numbers"):
        synthesize(tmp_path / "x.h5", emulator, 1, 1, broadening=broadening)
