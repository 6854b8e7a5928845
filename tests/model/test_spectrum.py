import dataclasses

import numpy as np
import pytest

from model.errors import ParameterError, SpectrumError
from model.spectrum import Observation, Parameters, prepare

SUN_LIKE = Parameters(4500, 2.0, 0.0)


@pytest.fixture
def observation(spectra) -> Observation:
    flux = spectra[0].astype(float)
    return Observation(flux, SUN_LIKE, ivar=np.full(len(flux), 1e4))


def prepared(observation, model, **changes):
    return prepare(dataclasses.replace(observation, **changes), model.grid, model.normaliser)


def test_a_good_spectrum_passes_whole(observation, model):
    spectrum = prepared(observation, model)
    assert spectrum.masked_fraction == 0
    assert spectrum.snr == pytest.approx(97, abs=5)
    assert spectrum.history[0] == "model grid"
    assert "continuum_pixels" in spectrum.history[1]


def test_without_errors_there_is_no_snr(observation, model):
    assert prepared(observation, model, ivar=None).snr is None


def test_masked_pixels_may_hold_anything(observation, model):
    flux, bad = observation.flux.copy(), np.zeros(len(observation.flux), bool)
    flux[10:20], bad[10:20] = np.nan, True
    spectrum = prepared(observation, model, flux=flux, bad=bad)
    assert np.all(spectrum.ivar[10:20] == 0)
    assert np.all(np.isfinite(spectrum.flux))
    assert spectrum.masked_fraction == pytest.approx(10 / 7514)


def test_pixels_with_huge_errors_carry_nothing(observation, model):
    ivar = observation.ivar.copy()
    ivar[50] = 1e-20
    assert prepared(observation, model, ivar=ivar).ivar[50] == 0


def test_unphysical_flux_is_masked_and_told(observation, model):
    flux = observation.flux.copy()
    flux[[700, 800]] = 7.0, -3.0
    spectrum = prepared(observation, model, flux=flux)
    assert np.array_equal(np.flatnonzero(spectrum.ivar == 0), [700, 800])
    assert spectrum.warnings == ("2 pixels with unphysical flux were masked",)


def half_masked(flux):
    ivar = np.ones(len(flux))
    ivar[: len(flux) // 2 + 1] = 0
    return ivar


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda flux: {"flux": np.where(np.arange(len(flux)) == 3, np.inf, flux)}, "flux_not_finite"),
        (lambda flux: {"ivar": -np.ones(len(flux))}, "negative_ivar"),
        (lambda flux: {"ivar": half_masked(flux)}, "too_many_masked"),
        (lambda flux: {"ivar": np.zeros(len(flux))}, "too_many_masked"),
        (lambda flux: {"flux": 1000 * flux}, "not_normalized"),
        (lambda flux: {"ivar": np.ones(3)}, "lengths_disagree"),
        (lambda flux: {"flux": flux[None]}, "bad_shape"),
    ],
)
def test_refusals(observation, model, change, code):
    with pytest.raises(SpectrumError) as caught:
        prepared(observation, model, **change(observation.flux))
    assert caught.value.code == code


def test_raw_counts_need_a_normaliser(observation, model):
    assert prepared(observation, model, flux=1000 * observation.flux, normalized=False).flux.max() < 1.3
    with pytest.raises(SpectrumError) as caught:
        prepare(dataclasses.replace(observation, normalized=False), model.grid, None)
    assert caught.value.code == "needs_normalization"


@pytest.mark.parametrize("change", [{"teff": -9999}, {"logg": float("nan")}, {"fe_h": 45.0}, {"teff_err": -1}])
def test_impossible_parameters_are_named(change):
    with pytest.raises(ParameterError, match=next(iter(change))):
        dataclasses.replace(SUN_LIKE, **change)


def test_further_parameters_stand_beside_the_usual_ones():
    known = Parameters(
        4500, 2.0, 0.0, teff_err=50, others={"vbroad": 6.2, "fibre": 17}, others_err={"vbroad": 0.5}
    )
    assert known.values(["vbroad", "teff", "fibre"]).tolist() == [6.2, 4500, 17]
    assert known.errors(["vbroad", "teff", "fibre"]).tolist() == [0.5, 50, 0]
    known.check(["teff", "fibre", "vbroad"])
    SUN_LIKE.check(["teff", "logg"])


@pytest.mark.parametrize(
    ("others", "code", "named"),
    [
        ({}, "missing_parameters", "fibre, vbroad"),
        ({"vbroad": 1.0}, "missing_parameters", "fibre"),
        ({"vbroad": 1.0, "fibre": 2, "vmic": 1.0}, "unknown_parameters", "vmic"),
        ({"vbroad": 1.0, "fibre": 2, "teff": 4500.0}, "unknown_parameters", "teff"),
    ],
)
def test_missing_and_unknown_parameters_are_named(others, code, named):
    with pytest.raises(ParameterError, match=named) as caught:
        Parameters(4500, 2.0, 0.0, others=others).check(["teff", "fibre", "vbroad"])
    assert caught.value.code == code


@pytest.mark.parametrize(
    "change",
    [
        {"others": {"vbroad": float("nan")}},
        {"others_err": {"vbroad": 1.0}},
        {"others": {"vbroad": 1.0}, "others_err": {"vbroad": -1.0}},
    ],
)
def test_impossible_further_parameters_are_refused(change):
    with pytest.raises(ParameterError, match="vbroad"):
        Parameters(4500, 2.0, 0.0, **change)
