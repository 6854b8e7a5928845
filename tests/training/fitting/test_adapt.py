"""Adapting to spectra of another generator, and telling its spectra from the model's own."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest

from model.bundle import REFERENCE, load_model, save_model
from model.errors import InputError
from model.methods.basis import design
from model.methods.gaussdis import GaussDis
from model.methods.measured_stars import Measured
from model.methods.scatter import line_strength
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation, Spectrum, prepare
from training.emulator.emulator import Emulator
from training.fitting.adapt import LEFT_OUT_PARTS, adapt, measured, rows_without, typical_errors
from training.fitting.choose_misfit import ObservedStars, choose_factor
from training.fitting.misfit import Misfit, Prior, fit_misfit, log_density
from training.surveys.synthetic_survey import draw_labels

OTHER = Path(__file__).with_name("second_generator.h5")
"""60 pairs and 120 single stars of `benchmarks.second_generator`."""


@pytest.fixture(scope="module")
def model() -> GaussDis:
    loaded = load_model(REFERENCE)
    assert isinstance(loaded, GaussDis)
    return loaded


def observed(model: GaussDis, flux: np.ndarray, labels: np.ndarray, snr: float, seed: int) -> list[Spectrum]:
    """Prepared spectra of noiseless `flux` (N, P) at labels (N, 3), with noise."""
    noisy = flux + np.random.default_rng(seed).normal(size=flux.shape) / snr
    return [
        prepare(
            Observation(
                flux=one,
                parameters=Parameters(teff=teff, logg=logg, fe_h=fe_h),
                ivar=np.full(len(one), snr**2),
                wavelength=model.grid.wavelength,
            ),
            model.grid,
            model.normaliser,
        )
        for one, (teff, logg, fe_h) in zip(noisy, labels, strict=True)
    ]


@cache
def others(model: GaussDis, kind: str, snr: float) -> list[Spectrum]:
    with h5py.File(OTHER) as file:
        flux = file[f"{kind}/flux"][:] * file.attrs["flux_scale"]
        labels = np.column_stack([file[f"{kind}/{name}"][:] for name in ("teff", "logg", "fe_h")])
    return observed(model, flux, labels, snr, seed=1 if kind == "pairs" else 2)


def flagged(model: GaussDis, spectra: list[Spectrum]) -> float:
    return float(np.mean([not one.in_domain for one in model.embed(spectra)]))


@pytest.mark.parametrize("snr", [20, 50, 200])
def test_own_spectra_are_in_the_domain_and_those_of_another_generator_are_not(
    model: GaussDis, snr: float
) -> None:
    emulator = Emulator.load()
    labels = draw_labels(150, 77, emulator.labels, emulator.lo, emulator.hi)
    assert flagged(model, observed(model, emulator(labels), labels[:, :3], snr, seed=3)) <= 0.01
    assert flagged(model, others(model, "pairs", snr)) >= 0.95


@pytest.mark.slow
def test_after_adapting_to_single_stars_twins_of_another_generator_meet(
    model: GaussDis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few sizes and degrees, and few stars to choose from them by, so that the choice is short."""
    monkeypatch.setattr("training.fitting.choose_misfit.SIZES", (1e-5, 1e-4))
    monkeypatch.setattr("training.fitting.choose_misfit.DEGREES", (0, 1))
    monkeypatch.setattr("training.fitting.choose_misfit.STARS", 60)
    monkeypatch.setattr("training.fitting.choose_misfit.FOLDS", 2)
    singles = others(model, "singles", 100)
    adapted = adapt(model, singles, np.full(len(singles), -1), "other", "test")
    path = tmp_path / "adapted.safetensors"
    save_model(adapted, path)
    adapted = load_model(path)
    assert adapted.card.name == "other"
    assert adapted.card.training["adapted"]["stars"] == len(singles)
    pairs = others(model, "pairs", 100)
    assert flagged(adapted, pairs) <= 0.10

    def nearest_is_twin(some: GaussDis) -> float:
        latents = np.array([one.latent for one in some.embed(pairs)])
        distance = np.linalg.norm(latents[:, None] - latents, axis=2) + np.diag(np.full(len(latents), np.inf))
        return float(np.mean(distance.argmin(axis=1) == (np.arange(len(latents)) ^ 1)))

    before, after = nearest_is_twin(model), nearest_is_twin(adapted)
    assert after > max(before, 0.97)
    embedded = adapted.embed(pairs)
    latents = np.array([one.latent for one in embedded], dtype=np.float64)
    covariances = np.array([one.covariance for one in embedded], dtype=np.float64)
    gap = latents[::2] - latents[1::2]
    pair = adapted.pair_covariance(covariances[::2], covariances[1::2])
    chi2 = np.einsum("nd,nd->n", gap, np.linalg.solve(pair, gap[..., None])[..., 0]).mean() / gap.shape[1]
    assert 0.6 < chi2 < 1.5  # 1 would be exact; 60 pairs, the misfit from 120 stars


def test_typical_errors_are_medians_of_those_that_are_known(model: GaussDis) -> None:
    (spectrum,) = others(model, "singles", 100)[:1]
    errors = [{"teff_err": 60.0, "fe_h_err": 0.0}, {"teff_err": 80.0, "fe_h_err": 0.0}, {"teff_err": 70.0}, {}]
    spectra = [replace(spectrum, parameters=replace(spectrum.parameters, **one)) for one in errors]
    assert typical_errors(model.parameter_names, spectra) == {"teff": 70.0}


def test_too_few_stars_are_refused(model: GaussDis) -> None:
    few = others(model, "singles", 100)[:10]
    with pytest.raises(InputError, match="at least 20"):
        adapt(model, few, np.full(10, -1), "x", "x")


def test_a_known_misfit_is_found_from_siblings(model: GaussDis) -> None:
    random = np.random.default_rng(5)
    size, latents = model.basis.components.shape[0], model.card.latent_dim
    group = np.repeat(np.arange(60), 3)
    parameters = random.uniform(*model.ranges.T, size=(len(group), 3))
    chemistry = random.normal(size=(60, latents))[group]
    deviations = np.geomspace(0.1, 0.003, size)
    offset = np.zeros((4, size))
    offset[:2] = random.normal(size=(2, size)) * deviations
    strength = line_strength(model.basis, parameters)[:, None]
    assert strength.max() > 2 * strength.min()
    spread = strength * random.normal(size=(len(group), size)) * deviations
    stars = Measured(
        np.zeros((len(group), size)),
        np.broadcast_to(1e-6 * np.eye(size), (len(group), size, size)),
        parameters,
        np.zeros_like(parameters),
        np.zeros(len(group)),
    )
    shifts = strength * (design(parameters, model.ranges, 1) @ offset)
    stars = stars._replace(coefficients=model.response(chemistry, parameters) + shifts + spread)
    found = fit_misfit(model, stars, group, Prior(1, 1e-4))
    error = (found.offsets(model, parameters) - shifts).std(axis=0) / deviations
    assert np.median(error) < 0.3  # the mean of 60 latents' own scatter is part of it
    ratio = np.diag(found.own)[: size // 2] / deviations[: size // 2] ** 2
    assert 0.6 < np.median(ratio) < 1.6
    unknown = Misfit(0 * offset, 1e-4 * np.eye(size), np.zeros((size, size)))
    assert log_density(model, stars, group, found) > log_density(model, stars, group, unknown) + 1000


def test_a_misfit_is_enlarged_until_siblings_are_as_far_apart_as_expected(
    model: GaussDis, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(8)
    group = np.repeat(np.arange(30), 3)
    labels = random.uniform(*model.ranges.T, size=(len(group), 3))
    chemistry = random.normal(size=(30, model.card.latent_dim))[group]
    size, strength = len(model.basis.components), line_strength(model.basis, labels)[:, None]
    spread = 0.1 * strength * random.normal(size=(len(group), size))
    flux = model.basis.rebuild(model.response(chemistry, labels) + spread, labels)
    spectra = observed(model, flux, labels, 200, seed=9)
    stars = ObservedStars(spectra, measured(model, spectra), group)

    def factor_of(variance: float) -> float:
        misfit = Misfit(np.zeros((1, size)), variance * np.eye(size), np.zeros((size, size)))
        monkeypatch.setattr("training.fitting.choose_misfit.fit_misfit", lambda *_: misfit)
        return choose_factor(model, stars, Prior(0, 1e-4))

    assert factor_of(0.01) == pytest.approx(1, rel=0.15)
    assert factor_of(0.002) == pytest.approx(5, rel=0.15)
    assert factor_of(1e-4) == 10
    assert factor_of(1.0) == 0.1


def test_without_siblings_a_misfit_is_not_enlarged(model: GaussDis) -> None:
    singles = others(model, "singles", 100)[:20]
    assert (
        choose_factor(model, ObservedStars(singles, measured(model, singles), np.arange(20)), Prior(0, 1e-4))
        == 1
    )


def test_each_group_is_left_out_once_in_a_few_parts() -> None:
    groups = np.concatenate([np.repeat(np.arange(37), 3), np.full(20, -1)])
    used = np.stack(
        [np.isin(np.arange(len(groups)), rows_without(groups, part)) for part in range(LEFT_OUT_PARTS)]
    )
    assert (~used).sum(axis=0).tolist() == [1] * 111 + [0] * 20
    whole = used[:, :111].reshape(LEFT_OUT_PARTS, 37, 3)
    assert np.array_equal(whole.any(axis=2), whole.all(axis=2)), "groups stay whole"
    few = np.array([0, 0, 1, 1, -1])
    assert rows_without(few, 1).tolist() == [0, 1, 4]


def test_adapting_again_replaces_the_misfit(model: GaussDis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.fitting.adapt.choose_prior", lambda *_: Prior(0, 1e-4))
    singles = others(model, "singles", 100)[:40]
    alone = np.full(len(singles), -1)
    once = adapt(model, singles, alone, "once", "test")
    twice = adapt(once, singles, alone, "twice", "test")
    assert once.misfit.any()
    assert not model.misfit.any()
    assert np.trace(twice.misfit) == pytest.approx(np.trace(once.misfit), rel=0.3)
    assert twice.scatter == pytest.approx(model.scatter)


def test_the_error_floor_follows_the_spectra(model: GaussDis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spectra of another generator differ more from the model's the more metals they have."""
    monkeypatch.setattr("training.fitting.adapt.choose_prior", lambda *_: Prior(0, 1e-4))
    singles = others(model, "singles", 100)
    adapted = adapt(model, singles, np.full(len(singles), -1), "other", "test")
    poor, rich = (Parameters(teff=4500.0, logg=2.0, fe_h=value) for value in (-0.8, 0.3))
    assert adapted.error_floor(rich) > 1.1 * adapted.error_floor(poor)
    assert model.error_floor(rich) == model.error_floor(poor) == model.card.error_floor
