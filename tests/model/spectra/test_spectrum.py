import dataclasses
import re

import numpy as np
import pytest

from model.errors import ParameterError, SpectrumError
from model.methods.base import Model
from model.spectra.grid import apogee_wavelength
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation, _simple, prepare, prepare_all

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


def test_unphysical_flux_is_masked_and_reported(observation, model):
    flux = observation.flux.copy()
    flux[[700, 800]] = 7.0, -3.0
    spectrum = prepared(observation, model, flux=flux)
    assert np.array_equal(np.flatnonzero(spectrum.ivar == 0), [700, 800])
    assert spectrum.warnings == ("2 pixels with unphysical flux were masked",)


@pytest.mark.parametrize("errors", [True, False])
def test_a_flux_of_exactly_zero_is_no_flux(observation, model, errors):
    flux = observation.flux.copy()
    flux[900:950] = 0
    spectrum = prepared(observation, model, flux=flux, **({} if errors else {"ivar": None}))
    assert np.array_equal(np.flatnonzero(spectrum.ivar == 0), np.arange(900, 950))
    together = prepare_all([Observation(flux, SUN_LIKE)], model.grid, model.normaliser)[0]
    assert together.masked_fraction == pytest.approx(50 / 7514)


@pytest.mark.parametrize("ivar", [0.01, 1e8])
def test_an_odd_snr_is_a_warning(observation, model, ivar):
    spectrum = prepared(observation, model, ivar=np.full(len(observation.flux), ivar))
    assert spectrum.warnings[-1].endswith("per pixel: is ivar an error, or error an inverse variance?")
    assert not prepared(observation, model).warnings


@pytest.mark.parametrize(("snr", "low"), [(12, True), (21, True), (22, False)])
def test_a_low_snr_is_a_warning(observation, model, snr, low):
    spectrum = prepared(observation, model, ivar=np.full(len(observation.flux), float(snr) ** 2))
    assert spectrum.snr == pytest.approx(0.94 * snr, rel=0.01)
    text = f"S/N {spectrum.snr:.3g} per pixel is below 20: hardly any twin stands out from other stars"
    assert spectrum.warnings == ((text,) if low else ())


def test_pixels_that_say_next_to_nothing_are_masked(observation, model):
    ivar = np.full(len(observation.flux), 1e4)
    ivar[::3] = 1e-12
    assert prepared(observation, model, ivar=ivar).masked_fraction == pytest.approx(1 / 3, abs=1e-3)
    ivar[np.arange(len(ivar)) % 10 > 0] = 1e-12
    with pytest.raises(SpectrumError, match=r"93\.3% of the model's pixels are masked"):
        prepared(observation, model, ivar=ivar)


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
def test_invalid_observations(observation, model, change, code):
    with pytest.raises(SpectrumError) as caught:
        prepared(observation, model, **change(observation.flux))
    assert caught.value.code == code


def without_continuum(model, numbers) -> np.ndarray:
    """True (P,) at the continuum pixels of the detectors of these numbers."""
    bad = np.zeros(len(model.grid), bool)
    bad[model.normaliser.pixels] = True
    for number, detector in enumerate(model.grid.detectors):
        bad[detector] &= number in numbers
    return bad


def test_a_spectrum_that_loses_most_pixels_with_its_continuum_is_refused(observation, model):
    """11 % masked by the sender, 73 % after the continuum."""
    bad = without_continuum(model, {0, 1})
    assert 0.11 < bad.mean() < 0.12
    with pytest.raises(SpectrumError, match=r"73.5% of the model's pixels are masked.*no continuum") as caught:
        prepared(observation, model, bad=bad)
    assert caught.value.code == "too_many_masked"


@pytest.mark.parametrize("errors", [True, False])
def test_a_detector_that_is_lost_is_named(observation, model, errors):
    changes = {} if errors else {"ivar": None}
    spectrum = prepared(observation, model, bad=without_continuum(model, {1}), **changes)
    assert spectrum.masked_fraction > 0.33
    assert spectrum.warnings == (
        "detector 2 of 3, 15868 to 16424 Angstrom, is masked whole: no continuum could be fitted there",
        "33.2% of the model's pixels are masked or not covered: the latent is of the rest alone",
    )
    (embedding,) = model.embed([spectrum])
    assert set(spectrum.warnings) <= set(embedding.warnings)
    (together,) = prepare_all(
        [dataclasses.replace(observation, bad=without_continuum(model, {1}), **changes)],
        model.grid,
        model.normaliser,
    )
    assert together.warnings == spectrum.warnings


def dark(observation, model):
    """No light on the first detector, as files have it that fill with 0."""
    flux = observation.flux.copy()
    flux[model.grid.detectors[0]] = 0
    return {"flux": flux}


def short(observation, model):
    part = np.arange(len(model.grid)) >= model.grid.detectors[0].stop
    return {name: getattr(observation, name)[part] for name in ("flux", "ivar")} | {
        "wavelength": model.grid.wavelength[part]
    }


def uncertain(observation, model):
    """Errors of twenty times the median on the first detector."""
    ivar = observation.ivar.copy()
    ivar[model.grid.detectors[0]] /= 400
    return {"ivar": ivar}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dark, "nothing usable was sent"),
        (short, "nothing usable was sent"),
        (uncertain, "nothing usable was sent"),
    ],
)
def test_whatever_masks_a_quarter_of_the_pixels_is_reported(observation, model, change, reason):
    spectrum = prepared(observation, model, **change(observation, model))
    assert spectrum.masked_fraction == pytest.approx(3028 / 7514, abs=1e-3)
    assert spectrum.warnings == (
        f"detector 1 of 3, 15152 to 15799 Angstrom, is masked whole: {reason}",
        "40.3% of the model's pixels are masked or not covered: the latent is of the rest alone",
    )


def test_from_a_quarter_of_masked_pixels_on_there_is_a_warning(observation, model):
    ivar = observation.ivar.copy()
    ivar[:7512:4] = 0
    assert prepared(observation, model, ivar=ivar).warnings == ()
    ivar[1:30:4] = 0
    (warning,) = prepared(observation, model, ivar=ivar).warnings
    assert warning.startswith("25.1% of the model's pixels are masked")


def test_raw_counts_need_a_normaliser(observation, model):
    assert prepared(observation, model, flux=1000 * observation.flux, normalized=False).flux.max() < 1.3
    with pytest.raises(SpectrumError) as caught:
        prepare(dataclasses.replace(observation, normalized=False), model.grid, None)
    assert caught.value.code == "needs_normalization"


@pytest.mark.parametrize("change", [{"teff": -9999}, {"logg": float("nan")}, {"fe_h": 45.0}, {"teff_err": -1}])
def test_impossible_parameters_are_named(change):
    with pytest.raises(ParameterError, match=next(iter(change))):
        dataclasses.replace(SUN_LIKE, **change)


def test_extra_parameters_stand_beside_the_usual_ones():
    known = Parameters(
        4500, 2.0, 0.0, teff_err=50, extra={"vbroad": 6.2, "fibre": 17}, extra_err={"vbroad": 0.5}
    )
    assert known.values(["vbroad", "teff", "fibre"]).tolist() == [6.2, 4500, 17]
    assert known.errors(["vbroad", "teff", "fibre"]).tolist() == [0.5, 50, 0]
    known.check(["teff", "fibre", "vbroad"])
    SUN_LIKE.check(["teff", "logg"])


@pytest.mark.parametrize(
    ("extra", "code", "named"),
    [
        ({}, "missing_parameters", "fibre, vbroad"),
        ({"vbroad": 1.0}, "missing_parameters", "fibre"),
        ({"vbroad": 1.0, "fibre": 2, "vmic": 1.0}, "unknown_parameters", "vmic"),
        ({"vbroad": 1.0, "fibre": 2, "teff": 4500.0}, "unknown_parameters", "teff"),
    ],
)
def test_missing_and_unknown_parameters_are_named(extra, code, named):
    with pytest.raises(ParameterError, match=named) as caught:
        Parameters(4500, 2.0, 0.0, extra=extra).check(["teff", "fibre", "vbroad"])
    assert caught.value.code == code


@pytest.mark.parametrize(
    "change",
    [
        {"extra": {"vbroad": float("nan")}},
        {"extra_err": {"vbroad": 1.0}},
        {"extra": {"vbroad": 1.0}, "extra_err": {"vbroad": -1.0}},
    ],
)
def test_impossible_extra_parameters_are_errors(change):
    with pytest.raises(ParameterError, match="vbroad"):
        Parameters(4500, 2.0, 0.0, **change)


def odd_ones(spectra) -> list[Observation]:
    """Spectra without errors, each with something that needs care, and two without."""
    flux = [row.astype(float) for row in spectra[:12]]
    slope = np.linspace(0.8, 1.1, len(flux[0]))
    flux[2] = 4e3 * slope * flux[2]
    flux[3][700] = 1.6
    flux[4][10] = -0.1
    flux[5][:] = 1e-30
    flux[6][20] = np.nan
    flux[7] *= 2
    flux[8][1000:1200] *= 0.2
    whole = np.ones(8575)
    bad = np.arange(len(slope)) < 9
    return [
        Observation(flux[0], SUN_LIKE),
        Observation(flux[1] * slope, SUN_LIKE),
        Observation(flux[2], SUN_LIKE, normalized=False),
        *(Observation(row, SUN_LIKE) for row in flux[3:9]),
        Observation(flux[9], SUN_LIKE, bad=bad),
        Observation(flux[10], SUN_LIKE, ivar=np.full(len(slope), 1e4)),
        Observation(whole, SUN_LIKE, wavelength=apogee_wavelength()),
    ]


def test_together_or_alone_a_spectrum_is_the_same(spectra, model):
    observations = odd_ones(spectra)
    for observation, found in zip(
        observations, prepare_all(observations, model.grid, model.normaliser), strict=True
    ):
        if isinstance(found, SpectrumError):
            with pytest.raises(SpectrumError, match=re.escape(found.message)):
                prepare(observation, model.grid, model.normaliser)
            continue
        alone = prepare(observation, model.grid, model.normaliser)
        np.testing.assert_allclose(found.flux, alone.flux, rtol=1e-12)
        np.testing.assert_array_equal(found.ivar > 0, alone.ivar > 0)
        assert (found.history, found.warnings) == (alone.history, alone.warnings)
        assert (found.has_errors, found.masked_fraction) == (alone.has_errors, alone.masked_fraction)
    assert {0, 1, 2} <= _simple(observations, range(12), model.grid, model.normaliser).keys()


def test_the_short_way_to_a_latent_leads_where_the_long_one_does(spectra, model):
    observations = [
        Observation(row.astype(float) + shift, Parameters(4000 + 10 * number, 2.0, 0.05))
        for number, (row, shift) in enumerate(zip(spectra[:100], np.tile([0, 0.05], 50), strict=True))
    ]
    noisy = np.random.default_rng(1).normal(0, 0.01, (100, len(model.grid)))
    observations += [
        dataclasses.replace(one, flux=one.flux + n) for one, n in zip(observations, noisy, strict=True)
    ]
    prepared = prepare_all(observations, model.grid, model.normaliser)
    for short, long in zip(model.embed(prepared), Model.embed(model, prepared), strict=True):
        # the long way weights pixels in single precision
        assert np.abs(short.latent - long.latent).max() < 2e-5 * np.linalg.norm(long.latent)
        assert (short.chi2, short.covariance) == (None, None)
        assert (short.in_domain, short.warnings) == (long.in_domain, long.warnings)


def test_pixels_too_wide_to_be_resampled_are_said(model):
    wavelength = np.arange(15155.0, 16943.0)
    observation = Observation(np.ones(len(wavelength)), Parameters(4500, 2.5, 0), wavelength=wavelength)
    with pytest.raises(SpectrumError, match=r"1 Angstrom apart: at most 0\.66") as raised:
        prepare(observation, model.grid, model.normaliser)
    assert raised.value.code == "too_coarse"


def test_errors_sent_as_inverse_variances_are_asked_about(model):
    """Bad pixels with huge errors have nearly all weight then."""
    error = np.full(len(model.grid), 0.01)
    error[::20] = 1e10
    observation = Observation(np.ones(len(error)), Parameters(4500, 2.5, 0), ivar=error)
    with pytest.raises(SpectrumError, match="errors and inverse variances mixed up") as raised:
        prepare(observation, model.grid, model.normaliser)
    assert raised.value.code == "too_many_masked"
    masked = dataclasses.replace(observation, ivar=np.where(np.arange(len(error)) < 5000, 0.0, 1e4))
    with pytest.raises(SpectrumError, match=r"66\.5% of the model's") as raised:
        prepare(masked, model.grid, model.normaliser)
    assert "mixed up" not in raised.value.message
