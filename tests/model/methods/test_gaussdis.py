import dataclasses
import itertools

import numpy as np
import pytest

from model.bundle import load_model, save_model
from model.errors import ModelFileError
from model.methods.base import Card
from model.methods.basis import exponents
from model.methods.gaussdis import NOISELESS_SNR, UNCONVERGED, GaussDis
from model.spectra.grid import Grid
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Spectrum

PIXELS, COMPONENTS, LATENTS, STARS = 400, 8, 4, 3000
RANGES = {"teff": (4000.0, 5000.0), "logg": (1.5, 3.0), "fe_h": (-1.0, 0.5)}
SNR = 60.0


NARROW = np.diag([1.5, 0.8, 0.3, 0.1]) + np.tril(np.full((LATENTS, LATENTS), 0.1), -1)
"""The root of a population's covariance: wider than the unit matrix in one direction, narrower in others."""


def toy(
    residue: float = 0.0,
    metric: np.ndarray | None = None,
    bend: float = 0.02,
    population: np.ndarray | None = None,
) -> GaussDis:
    """A known generator: linear and square terms that change with the parameters."""
    generator = np.random.default_rng(1)
    polynomial = generator.normal(0, 0.02, (len(exponents(3, 4)), PIXELS))
    polynomial[0] += 1
    linear = generator.normal(0, 0.05, (len(exponents(3, 2)), LATENTS, COMPONENTS))
    linear[0] = generator.normal(0, 0.4, (LATENTS, COMPONENTS))
    return GaussDis(
        Card("toy", "1", "gaussdis", RANGES, LATENTS, "Euclidean"),
        Grid(10 ** (4.2 + 6e-6 * np.arange(PIXELS))),
        None,
        scatter=np.diag(np.full(COMPONENTS, 1e-6)),
        continuum=np.zeros((COMPONENTS, COMPONENTS)),
        residue=residue * np.eye(LATENTS),
        metric=np.eye(LATENTS) if metric is None else metric,
        twins=np.zeros((0, 0)),
        population=population,
        response_mean=generator.normal(0, 0.01, (len(exponents(3, 2)), COMPONENTS)),
        response_linear=linear,
        response_products=generator.normal(0, bend, (4, LATENTS * (LATENTS + 1) // 2 + 4, COMPONENTS)),
        polynomial=polynomial,
        components=np.linalg.qr(generator.normal(size=(PIXELS, COMPONENTS)))[0].T,
        variances=np.full(COMPONENTS, 0.5),
        discarded=np.array([1e-8]),
    )


def drawn(model: GaussDis, count: int = STARS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True latents (N, D) of the prior, parameters (N, U) and noiseless flux (N, P)."""
    generator = np.random.default_rng(2)
    latents = generator.normal(size=(count, LATENTS))
    known = generator.uniform(model.ranges[:, 0], model.ranges[:, 1], (count, 3))
    return latents, known, model.decode(latents @ model.metric, known)


def noisy(flux: np.ndarray, variance: np.ndarray, seed: int = 3) -> np.ndarray:
    white = np.random.default_rng(seed).normal(size=flux.shape)
    return flux + white * np.sqrt(np.where(np.isfinite(variance), variance, 0.0))


def uneven(shape: tuple[int, int]) -> np.ndarray:
    """Variances about S/N 60 that differ from pixel to pixel, a tenth of them infinite."""
    generator = np.random.default_rng(4)
    variance = SNR**-2 * generator.uniform(0.3, 3, shape)
    variance[generator.random(shape) < 0.1] = np.inf
    return variance


@pytest.mark.parametrize("population", [None, NARROW], ids=["unit prior", "population"])
@pytest.mark.parametrize("masked", [False, True], ids=["even noise", "uneven noise and masks"])
def test_posteriors_hold_the_truth_as_often_as_they_say(masked, population):
    model = toy(bend=0.0, population=population)
    latents, known, flux = drawn(model)
    variance = uneven(flux.shape) if masked else np.full(flux.shape, SNR**-2)
    means, covariances = model.posterior(noisy(flux, variance), known, variance)
    gap = means - latents
    chi2 = np.einsum("ni,ni->n", gap, np.linalg.solve(covariances, gap[:, :, None])[:, :, 0])
    assert chi2.mean() == pytest.approx(LATENTS, abs=4 * np.sqrt(2 * LATENTS / STARS))
    # a linear posterior's errors are as large at the prior's edge as in its middle
    assert np.corrcoef(chi2, np.square(latents).sum(axis=1))[0, 1] == pytest.approx(0, abs=0.06)


def test_a_turned_response_is_the_response_of_turned_latents():
    """Products of two and of three latents are those of the turned ones."""
    response = toy(bend=0.3).response
    assert response.leading == 2
    latents = np.random.default_rng(8).normal(size=(6, LATENTS))
    known = np.random.default_rng(9).uniform(*response.ranges.T, size=(6, 3))
    turned = response.turned(NARROW)(latents, known)
    assert turned == pytest.approx(response(latents @ NARROW.T, known), rel=1e-12)


def test_posterior_means_are_the_most_probable_under_the_population():
    """Where the response bends, a fit under a wider prior, then drawn to the population, is somewhere else."""
    model = toy(bend=0.3, population=NARROW)
    _, known, flux = drawn(model, 20)
    variance = np.full(flux.shape, 0.1**2)
    observed = noisy(flux, variance)
    means = model.posterior(observed, known, variance)[0]

    def improbable(latents: np.ndarray) -> np.ndarray:
        residual = observed - model.decode(latents, known)
        coefficients = residual @ model.basis.components.T
        precision = np.linalg.inv(0.1**2 * np.eye(COMPONENTS) + model.scatter)
        return np.einsum("nk,kl,nl->n", coefficients, precision, coefficients) + np.square(latents).sum(axis=1)

    least = improbable(means)
    for step in 0.05 * np.concatenate([np.eye(LATENTS), -np.eye(LATENTS)]):
        assert np.all(improbable(means + step) > least)


def test_masked_pixels_carry_nothing():
    model = toy()
    _, known, flux = drawn(model, 20)
    variance = uneven(flux.shape)
    observed = noisy(flux, variance)
    spoilt = np.where(np.isfinite(variance), observed, 5.0)
    for one, other in zip(
        model.posterior(observed, known, variance), model.posterior(spoilt, known, variance), strict=True
    ):
        assert np.array_equal(one, other)


def test_weighted_and_plain_inference_agree_where_all_pixels_are_alike():
    model = toy()
    _, known, flux = drawn(model, 50)
    plain = np.full(flux.shape, SNR**-2)
    nearly = plain.copy()
    nearly[:, 0] *= 1 + 1e-9
    observed = noisy(flux, plain)
    for one, other in zip(
        model.posterior(observed, known, plain), model.posterior(observed, known, nearly), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("population", [None, 2 * NARROW], ids=["unit prior", "population"])
def test_differences_of_twins_have_the_covariance_that_is_said_of_them(population):
    """Also between poor spectra of unlike noise, whose posterior means shrink differently."""
    metric = np.random.default_rng(5).normal(size=(LATENTS, LATENTS))
    model = toy(metric=metric, bend=0.0, population=population)
    _, known, flux = drawn(model)
    good, poor = np.full(flux.shape, 1.5**-2), np.full(flux.shape, 0.8**-2)
    left, a = model.posterior(noisy(flux, good, 6), known, good)
    right, b = model.posterior(noisy(flux, poor, 7), known, poor)
    gap = left - right
    covariance = model.pair_covariance(a, b)
    chi2 = np.einsum("ni,ni->n", gap, np.linalg.solve(covariance, gap[:, :, None])[:, :, 0])
    assert chi2.mean() == pytest.approx(LATENTS, abs=4 * np.sqrt(2 * LATENTS / STARS))
    summed = np.einsum("ni,ni->n", gap, np.linalg.solve(a + b, gap[:, :, None])[:, :, 0])
    assert abs(summed.mean() - LATENTS) > 0.2, "the sum of the two would do as well: the test is blind"


def test_the_error_of_decoded_flux_is_that_of_its_latent():
    model = toy(metric=np.random.default_rng(5).normal(size=(LATENTS, LATENTS)), population=NARROW)
    known, latent = model.ranges.mean(axis=1), np.full(LATENTS, 0.3)
    root = np.random.default_rng(6).normal(size=(LATENTS, LATENTS))
    both = np.repeat(known[None], 2 * LATENTS, axis=0)
    ahead, behind = np.split(model.decode(latent + np.concatenate([root, -root]) * 1e-4, both), 2)
    expected = np.linalg.norm((ahead - behind) / 2e-4, axis=0)
    np.testing.assert_allclose(model.decode_sd(latent, known, root.T @ root), expected, rtol=1e-4)


def test_what_a_normaliser_takes_from_the_noise_leaves_variances_positive():
    """Also where a third of the pixels is ten times as noisy as the rest."""
    model = toy()
    model.continuum = -0.5 * np.eye(COMPONENTS)
    _, known, flux = drawn(model, 50)
    variance = uneven(flux.shape)
    variance[:, ::3] *= 100
    _, covariances = model.posterior(noisy(flux, variance), known, variance)
    assert np.linalg.eigvalsh(covariances).min() > 0
    _, halved = toy().posterior(noisy(flux, variance), known, variance / 2)
    np.testing.assert_allclose(covariances, halved, rtol=0.05, atol=0.02)


def test_a_residue_widens_what_noise_says():
    sharp, blunt = toy(), toy(residue=0.5)
    _, known, flux = drawn(sharp, 100)
    variance = np.full(flux.shape, NOISELESS_SNR**-2)
    _, narrow = sharp.posterior(flux, known, variance)
    _, wide = blunt.posterior(flux, known, variance)
    # half of the residue is each twin's own: (I + 2 / r)^-1 of a unit prior
    np.testing.assert_allclose(np.diagonal(wide, axis1=1, axis2=2), 0.2, rtol=0.02)
    assert np.diagonal(narrow, axis1=1, axis2=2).max() < 0.01


def test_errors_of_the_parameters_widen_the_posterior_as_much_as_they_should():
    model = toy(bend=0.0)
    latents, known, flux = drawn(model)
    errors = np.array([25.0, 0.05, 0.03])
    given = known + np.random.default_rng(8).normal(size=known.shape) * errors
    variance = np.full(flux.shape, 100.0**-2)
    observed = noisy(flux, variance)
    means, covariances = model.posterior(observed, given, variance, np.broadcast_to(errors, given.shape))
    gap = means - latents
    chi2 = np.einsum("ni,ni->n", gap, np.linalg.solve(covariances, gap[:, :, None])[:, :, 0]).mean()
    assert chi2 == pytest.approx(LATENTS, rel=0.1)
    blind, narrow = model.posterior(observed, given, variance)
    gap = blind - latents
    assert np.einsum("ni,ni->n", gap, np.linalg.solve(narrow, gap[:, :, None])[:, :, 0]).mean() > 1.3 * chi2


def test_a_star_has_the_same_latent_in_any_batch():
    model = toy()
    _, known, flux = drawn(model, 300)
    variance = uneven(flux.shape)
    observed = noisy(flux, variance)
    together = model.encode(observed, known, variance)
    alone = [
        model.encode(observed[i : i + 1], known[i : i + 1], variance[i : i + 1])[0] for i in range(0, 300, 7)
    ]
    assert np.allclose(together[::7], alone, rtol=0, atol=1e-5)


def test_a_model_file_brings_the_same_model_back(tmp_path):
    model = toy(residue=0.1, metric=np.diag([1.0, 2.0, 3.0, 4.0]))
    save_model(model, tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors")
    assert isinstance(loaded, GaussDis)
    _, known, flux = drawn(model, 5)
    np.testing.assert_allclose(loaded.encode(flux, known), model.encode(flux, known), atol=1e-4)
    np.testing.assert_allclose(
        loaded.decode(np.ones((5, 4)), known), model.decode(np.ones((5, 4)), known), atol=1e-5
    )


def test_a_file_of_disagreeing_sizes_is_refused(tmp_path):
    model = toy()
    model.card = dataclasses.replace(model.card, latent_dim=5)
    save_model(model, tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError, match="5 latents"):
        load_model(tmp_path / "m.safetensors")


def test_spectra_without_errors_are_embedded_without_covariance():
    model = toy()
    _, known, flux = drawn(model, 2)
    spectra = [
        Spectrum(star, np.full(PIXELS, ivar), Parameters(*u), has_errors)
        for star, u, ivar, has_errors in zip(flux, known, (1.0, 1e4), (False, True), strict=True)
    ]
    without, with_errors = model.embed(spectra)
    assert without.covariance is None
    assert without.chi2 is None
    assert with_errors.covariance is not None
    np.testing.assert_allclose(with_errors.covariance, model.covariance(spectra[1]), rtol=1e-6)


def test_stars_far_from_the_siblings_of_its_test_have_a_warning():
    model = toy()
    latents, known, _ = drawn(model, 2)
    known[:, 2] = -0.7, -0.1
    flux = model.decode(latents @ model.metric, known)
    spectra = [
        Spectrum(star, np.full(PIXELS, 1e4), Parameters(*u), True) for star, u in zip(flux, known, strict=True)
    ]
    plain = [star.warnings for star in model.embed(spectra)]
    model.card = dataclasses.replace(model.card, quality={"siblings_left_out": {"fe_h": [-0.3, 0.4]}})
    (poor, near) = model.embed(spectra)
    assert poor.in_domain
    assert poor.warnings[:-1] == plain[0]
    assert poor.warnings[-1].startswith(
        "fe_h = -0.70 is far from -0.30 to 0.40 dex, where the model was tested"
    )
    assert near.warnings == plain[1]


def corner_to_corner(model) -> tuple[np.ndarray, np.ndarray]:
    """Spectra (8, P) of the corners of the parameters' range, and the opposite corners (8, U)."""
    corners = np.array(list(itertools.product(*model.ranges)))
    return model.decode(np.zeros((8, model.card.latent_dim)), corners), model.ranges.sum(axis=1) - corners


@pytest.mark.parametrize("errors", [True, False])
def test_a_fit_from_one_corner_of_the_range_to_the_opposite_converges(model, errors):
    flux, others = corner_to_corner(model)
    ivar = 1e4 if errors else 1.0
    spectra = [
        Spectrum(star, np.full(len(star), ivar), Parameters(*u), errors)
        for star, u in zip(flux, others, strict=True)
    ]
    for found in model.embed(spectra):
        assert not any("converge" in warning for warning in found.warnings)
    latents, _ = model.posterior(flux, others, np.full(flux.shape, 1e-4))
    assert np.linalg.norm(model.unit(latents), axis=1).min() > 20, "no short way"
    near, _ = model.posterior(flux, others, np.full(flux.shape, 1.01e-4))
    assert np.linalg.norm(latents - near, axis=1).max() < 1, "the same end at nearly the same noise"


@pytest.mark.parametrize("snr", [20, 300, 1000])
def test_fits_of_stars_in_the_range_converge(model, spectra, survey, snr):
    """A small benchmarks/convergence.py, with stars that plain Gauss-Newton steps left 2.5 sigma off."""
    rows = np.concatenate([np.arange(0, 1200, 10), np.repeat([619, 734, 735, 775], 20)])
    noise = np.random.default_rng(2).normal(size=(len(rows), spectra.shape[1])) / snr
    flux = model.normaliser.batch((spectra[rows] + noise).astype(np.float32))
    parameters = survey.parameters[rows]
    precision = np.linalg.inv((np.eye(len(model.scatter)) + model.continuum) / snr**2 + model.scatter)
    observed = model.basis.project(flux.astype(float), parameters)
    fit = model.response.fit(observed, parameters, precision)
    assert fit.converged.all()
    assert fit.steps.max() < 25
    again = model.response.fit(observed, parameters, precision, start=fit.latents, tolerance=1e-7)
    moved = again.latents - fit.latents
    assert np.einsum("ni,nij,nj->n", moved, fit.information, moved).max() < 0.01**2


@pytest.mark.parametrize("errors", [True, False])
def test_a_fit_that_does_not_converge_puts_a_star_out_of_the_domain(errors):
    """One that lies further away than all steps together reach."""
    model = toy(bend=0.0)
    model.response.linear *= 0.01
    _, known, flux = drawn(model, 3)
    flux[2] += 10 * model.basis.components[0]
    spectra = [
        Spectrum(star, np.full(PIXELS, 1e4 if errors else 1.0), Parameters(*u), errors)
        for star, u in zip(flux, known, strict=True)
    ]
    assert [UNCONVERGED in found.warnings for found in model.embed(spectra)] == [False, False, True]
    assert [found.in_domain for found in model.embed(spectra)] == [True, True, False]
