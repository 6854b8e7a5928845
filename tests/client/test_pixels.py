"""What the client makes of arrays; the docstrings are rows of the table in docs/reference/client.md."""

import re

import h5py
import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import InverseVariance
from astropy.table import Column, MaskedColumn
from astropy.utils.masked import Masked
from chemtwin_client import stars

from model.spectra.spectrum import BAD_BITS
from tests.client.inputs import codes
from tests.conftest import GIANT

pytestmark = pytest.mark.filterwarnings("default::chemtwin_client.ChemtwinWarning")


def test_masked_pixels(fresh, three):
    """masked pixels of `flux`, `ivar`, `error` or `bitmask`; the mask of a Spectrum"""
    from specutils import Spectrum

    labels, flux = three
    one = {name: labels[name][0] for name in ("teff", "logg", "fe_h")}
    ivar, hidden = np.full(flux.shape, 1e4), np.zeros(flux.shape, dtype=bool)
    hidden[:, 100:400] = True
    spoilt = np.where(hidden, 0.01, flux)
    right = fresh.embed(flux[0], ivar=np.where(hidden, 0, ivar)[0], star_id="right", **one)
    without = fresh.embed(flux[0], bitmask=hidden[0], star_id="without", **one)
    assert right.masked_fraction == without.masked_fraction == pytest.approx(300 / flux.shape[1])
    ma, error = np.ma.array, np.full(flux.shape, 1e-2)
    ways = [
        ({"sources": ma(spoilt, mask=hidden), "ivar": ivar}, right),
        ({"sources": ma(spoilt, mask=hidden), "error": error}, right),
        ({"sources": ma(spoilt, mask=hidden)}, without),
        ({"sources": ma(spoilt, mask=hidden), "bitmask": np.zeros(flux.shape, dtype=int)}, without),
        ({"sources": MaskedColumn(spoilt, mask=hidden), "ivar": ivar}, right),
        ({"sources": Masked(spoilt, mask=hidden), "ivar": ivar}, right),
        ({"sources": Masked(spoilt * u.one, mask=hidden), "ivar": ivar}, right),
        ({"sources": list(ma(spoilt, mask=hidden)), "ivar": ivar}, right),
        ({"sources": spoilt, "ivar": ma(ivar, mask=hidden)}, right),
        ({"sources": spoilt, "error": ma(error, mask=hidden)}, right),
        ({"sources": spoilt, "error": MaskedColumn(error, mask=hidden)}, right),
        ({"sources": spoilt, "bitmask": ma(np.zeros(flux.shape, dtype=int), mask=hidden), "ivar": ivar}, right),
    ]
    for way, same in ways:
        done = fresh.embed_many(labels=labels, progress=False, **way)
        assert done["masked_fraction"][0] == same.masked_fraction, way
        assert np.abs(done["latent"][0] - same.latent).max() < 1e-3, way
        source = way.pop("sources")
        alone = fresh.embed(source[0], star_id="x", **one, **{name: values[0] for name, values in way.items()})
        assert np.abs(alone.latent - same.latent).max() < 1e-3, way
    wavelength = fresh.recast("right", {}).spectral_axis
    spectrum = Spectrum(
        flux=spoilt[0] * u.one, spectral_axis=wavelength, mask=hidden[0], uncertainty=InverseVariance(ivar[0])
    )
    assert np.abs(fresh.embed(spectrum, star_id="x", **one).latent - right.latent).max() < 1e-3
    with pytest.raises(ValueError, match="wavelength has masked values"):
        fresh.embed(flux[0], wavelength=ma(wavelength.value, mask=hidden[0]), star_id="x", **one)


def test_bitmasks(fresh, three):
    """`bitmask` of booleans, integers, or whole numbers with a decimal point"""
    import pandas as pd

    labels, flux = three
    whole = np.zeros(flux.shape, dtype=int)
    whole[:, :200] = 1
    for bitmask in (
        whole,
        whole.astype(bool),
        whole.astype(float),
        whole.astype(np.uint64),
        pd.DataFrame(whole),
        whole.tolist(),
    ):
        done, refused = codes(fresh, labels, flux, bitmask=bitmask)
        assert refused == [""] * 3
        assert set(done["masked_fraction"]) == {200 / flux.shape[1]}
    assert stars.spectra.BAD & BAD_BITS == stars.spectra.BAD


def test_no_bitmask(fresh, three):
    """`bitmask` of anything else"""
    import pandas as pd

    labels, flux = three
    for wrong in (0.5, np.nan, np.inf, "0", 0j):
        with pytest.raises(ValueError, match="bitmask must hold"):
            fresh.embed(flux[0], bitmask=np.full(flux.shape[1], wrong), star_id="x", **GIANT)
    bitmask = pd.DataFrame(np.zeros(flux.shape), dtype=object)
    assert codes(fresh, labels, flux, bitmask=bitmask)[1] == ["not_sent"] * 3
    with pytest.raises(u.UnitsError, match="bitmask"):
        fresh.embed(flux[0], bitmask=np.zeros(flux.shape[1]) * u.K, star_id="x", **GIANT)


def test_other_lengths(fresh, three):
    """`ivar`, `error`, `bitmask` or `wavelength` of another length than `flux`"""
    labels, flux = three
    pixels = flux.shape[1]
    for keywords in (
        {"bitmask": np.zeros((3, 10), int)},
        {"error": np.ones((3, pixels + 1))},
        {"ivar": [1.0] * 3},
    ):
        ((name, values),) = keywords.items()
        done, refused = codes(fresh, labels, flux, **keywords)
        assert refused == ["not_sent"] * 3
        length = r"10|\d+|of shape \(\)"
        says = f"lengths disagree: flux {pixels}, {name} ({length}); give a value for each pixel"
        assert re.match(says, done["message"][0]), done["message"][0]
        with pytest.raises(ValueError, match=says):
            fresh.embed(flux[0], star_id="x", **GIANT, **{name: values[0]})
    with pytest.raises(ValueError, match=f"flux {pixels}, error 1;"):
        fresh.embed(flux[0], star_id="x", **GIANT, error=0.01)
    for single in (0.01, np.float64(0.01), np.array(0.01)):
        with pytest.raises(TypeError, match="error must hold one per star"):
            fresh.embed_many(flux, labels, error=single, progress=False)
    with pytest.raises(ValueError, match=f"sources 3, error {pixels}"):
        fresh.embed_many(flux, labels, error=np.ones(pixels), progress=False)
    assert fresh.model()["stars"] == 0


def test_other_numbers(fresh, three):
    """`flux` of integers, or of objects that are numbers"""
    import pandas as pd

    labels, flux = three
    counts = np.round(flux * 10000).astype(np.int32)
    reference, _ = codes(fresh, labels, flux, normalized=False)
    for sources in (
        counts,
        counts.astype(object),
        pd.DataFrame(counts),
        pd.Series(list(counts), index=[9, 1, 0]),
    ):
        done, refused = codes(fresh, labels, sources, normalized=False)
        assert refused == [""] * 3
        assert np.abs(done["latent"] - reference["latent"]).max() < 0.1
    with h5py.File("in memory", "w", driver="core", backing_store=False) as file:
        done, _ = codes(fresh, labels, file.create_dataset("flux", data=flux))
    assert np.isfinite(done["latent"]).all()


def test_no_flux(fresh, three):
    """`flux` of text, booleans or complex numbers, or in magnitudes"""
    labels, flux = three
    for wrong in (flux.astype(str), flux.astype(complex), flux > 1, flux.astype(str).astype(object)):
        done, refused = codes(fresh, labels, wrong)
        assert refused == ["not_sent"] * 3
        assert "flux must hold numbers" in done["message"][0]
    for unit in (u.mag, u.ABmag):
        with pytest.raises(u.UnitsError, match="flux must be linear"):
            fresh.embed(u.Magnitude(flux[0], unit) if unit == u.ABmag else flux[0] * unit, star_id="x", **GIANT)


def test_plain_errors(fresh, three):
    """`ivar` or `error` without a unit"""
    labels, flux = three
    error = np.full(flux.shape, 0.01)
    right, _ = codes(fresh, labels, flux, error=error)
    for keywords in ({"error": 100 * error}, {"ivar": 1 / (100 * error) ** 2}, {"error": error * u.one}):
        for sources in (100 * flux * u.percent, Column(100 * flux, unit=u.percent)):
            done, refused = codes(fresh, labels, sources, **keywords)
            assert refused == [""] * 3
            assert np.allclose(done["snr"], right["snr"])


def test_wavelengths(fresh, three):
    """`wavelength` with a unit, or the axis of a Spectrum that moves"""
    import pandas as pd
    from specutils import Spectrum

    labels, flux = three
    right, _ = codes(fresh, labels, flux)
    rest = fresh.recast("A", {}).spectral_axis.value * u.AA
    shift = np.sqrt((1 + 1e-4) / (1 - 1e-4))
    moving = Spectrum(
        flux=flux[0] * u.one, spectral_axis=rest * shift, radial_velocity=1e-4 * 299792.458 * u.km / u.s
    )
    for axis in (
        rest.to(u.nm),
        rest.to(u.THz, u.spectral()),
        Column(rest.to_value(u.um), unit="um"),
        pd.Series(rest.value, index=np.arange(len(rest))[::-1]),
        moving.spectral_axis,
    ):
        done, refused = codes(fresh, labels, flux, wavelength=axis)
        assert refused == [""] * 3
        assert np.abs(done["latent"] - right["latent"]).max() < 0.02
    with pytest.raises(u.UnitsError):
        fresh.embed_many(flux, labels, wavelength=rest.value * u.K, progress=False)
