import json
import zlib
from dataclasses import replace

import numpy as np
import pytest

from app.inference.stored_observation import pack, unpack
from index.errors import StoreError
from model.spectra.grid import Grid
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation

APOGEE = Grid.apogee()
LABELS = Parameters(4700.0, 2.5, 0.1, 50.0, 0.1, 0.02, {"vbroad": 6.25}, {"vbroad": 0.5})


def observation(pixels: int = len(APOGEE), **fields) -> Observation:
    generator = np.random.default_rng(pixels)
    return Observation(generator.uniform(0.5, 1.0, pixels).astype("f4").astype(float), LABELS, **fields)


@pytest.mark.parametrize("pixels", [7514, 8575])
@pytest.mark.parametrize("normalized", [True, False])
def test_what_is_stored_comes_back(pixels, normalized):
    given = observation(
        pixels, ivar=np.full(pixels, 2.5e3), bad=np.arange(pixels) % 7 == 0, normalized=normalized
    )
    back, warnings = unpack(pack(given, APOGEE, ("one", "two")))
    for name in ("flux", "ivar", "bad"):
        assert np.array_equal(getattr(back, name), getattr(given, name))
        assert getattr(back, name).dtype == getattr(given, name).dtype
    assert (back.parameters, back.normalized, warnings) == (LABELS, normalized, ("one", "two"))


def test_bytes_of_earlier_releases_have_extra_parameters_under_another_name():
    raw = zlib.decompress(pack(observation(), APOGEE, ("one",)))
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length]
    former = header.replace(rb"\"extra\"", rb"\"others\"").replace(rb"\"extra_err\"", rb"\"others_err\"")
    stored = json.loads(json.loads(former)["__metadata__"]["observation"])["parameters"]
    assert (stored["others"], stored["others_err"]) == ({"vbroad": 6.25}, {"vbroad": 0.5})
    assert "extra" not in stored
    back, warnings = unpack(zlib.compress(len(former).to_bytes(8, "little") + former + raw[8 + length :]))
    assert (back.parameters, warnings) == (LABELS, ("one",))


def test_an_error_of_0_is_exact_but_not_in_bytes_of_earlier_releases():
    """These have 0 where no error was given."""
    labels = Parameters(4700.0, 2.5, 0.1, teff_err=0.0, logg_err=0.1)
    given = replace(observation(), parameters=labels)
    raw = zlib.decompress(pack(given, APOGEE))
    assert unpack(zlib.compress(raw))[0].parameters == labels
    former = raw.replace(b"chemtwin-spectrum-2", b"chemtwin-spectrum-1")
    back = unpack(zlib.compress(former))[0].parameters
    assert (back.teff_err, back.logg_err, back.fe_h_err) == (None, 0.1, None)


def test_another_grid_is_stored_to_the_last_digit():
    wavelength = np.linspace(15_200.0, 16_900.0, 4_000)
    given = observation(4_000, wavelength=wavelength)
    back, _ = unpack(pack(given, APOGEE))
    assert np.array_equal(back.wavelength, wavelength)
    assert (back.ivar, back.bad) == (None, None)


def test_a_models_own_grid_is_stored_for_another_model():
    grid = Grid(APOGEE.wavelength[100:5_000])
    back, _ = unpack(pack(observation(4_900), grid))
    assert np.array_equal(back.wavelength, grid.wavelength)


def test_the_detectors_grid_costs_nothing():
    bare = pack(observation(), APOGEE)
    assert len(pack(observation(wavelength=APOGEE.wavelength), APOGEE)) == len(bare) < 30_000
    assert APOGEE.is_own(unpack(bare)[0].wavelength, len(APOGEE))


def test_other_bytes_are_refused():
    for content in (b"", b"x" * 100, pack(observation(), APOGEE)[:-9]):
        with pytest.raises(StoreError, match="cannot be read"):
            unpack(content)
